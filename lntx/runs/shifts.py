"""Find what changed since the last passing run on the same file: columns, and weights beyond their standard errors.

Reads runs; gives no verdict: another answer on other rows is no wrong answer.
"""

from __future__ import annotations

import math

from lntx.runs.records import load_runs
from lntx.runs.run import Run
from lntx.store.store import Store

_MOST_NAMED = 5


def shifts(store: Store, run: Run) -> tuple[str, ...]:
    """Return a sentence for each change; empty for synthetic rows, or if no run on the file has passed yet."""
    before = _last_passing(store, run)
    if before is None:
        return ()
    return (*_columns(before, run), *_weights(before, run))


def _last_passing(store: Store, run: Run) -> Run | None:
    data = run.config.data
    if data.path is None or run.reference_weights is None:
        return None
    for other in load_runs(store):
        if other.run >= run.run:
            continue
        same = (other.config.data.path, other.config.data.target) == (data.path, data.target)
        if same and other.verdict == "pass" and other.reference_weights is not None:
            return other
    return None


def _columns(before: Run, run: Run) -> list[str]:
    old, new = before.features or (), run.features or ()
    sentences = []
    for kind, names in (
        ("new", [n for n in new if n not in old]),
        ("no longer there", [n for n in old if n not in new]),
    ):
        if names:
            listed = ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
            sentences.append(f"columns that are {kind} since run {before.run}: {listed}")
    return sentences


def _weights(before: Run, run: Run) -> list[str]:
    """Compare exact solutions, in standard errors of the difference of two independent samples."""
    limit = run.config.evaluate.shift_limit
    old, new = _estimates(before), _estimates(run)
    moved = []
    for name, (value, error) in new.items():
        was, old_error = old.get(name, (None, None))
        if was is None or error is None or old_error is None:
            continue
        spread = math.hypot(error, old_error)
        # Without noise, a standard error is only rounding error, and so is a gap of that size.
        spread = max(spread, 1e-12 * max(abs(value), abs(was)))
        if spread > 0 and abs(value - was) > limit * spread:
            moved.append((abs(value - was) / spread, name, was, value))
    moved.sort(reverse=True)
    sentences = [
        f"{name} moved from {was:.6g} to {value:.6g} since run {before.run}, {gap:.3g} standard errors"
        for gap, name, was, value in moved[:_MOST_NAMED]
    ]
    return sentences + ([f"and {len(moved) - _MOST_NAMED} more weights moved"] if len(moved) > _MOST_NAMED else [])


def _estimates(run: Run) -> dict[str, tuple[float, float | None]]:
    assert run.features is not None
    assert run.reference_weights is not None
    assert run.standard_errors is not None
    estimates = dict(zip(run.features, zip(run.reference_weights, run.standard_errors, strict=True), strict=True))
    if run.reference_bias is not None:
        estimates["bias"] = (run.reference_bias, run.bias_standard_error)
    return estimates
