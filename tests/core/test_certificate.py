"""A PASS is always true: hostile tables against rationals. Run: pytest tests/core/test_certificate.py"""

from __future__ import annotations

import collections
import math
from fractions import Fraction
from pathlib import Path

import hostile
import numpy as np
import pandas as pd
import pytest

import lntx
from lntx.base.errors import BadInput
from lntx.data.dataset import open_dataset, write_dataset
from lntx.evaluation.least_squares import exact_sums, solve
from lntx.evaluation.rounding import Rounding
from lntx.runs.run import Run

# Rounding of the test's own limits to float64.
_MARGIN = Fraction(1001, 1000)


def _frame(x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({**{f"x{j}": x[:, j] for j in range(x.shape[1])}, "y": y})


def _close(value: float | None, exact: Fraction) -> bool:
    return value is not None and abs(Fraction(value) - exact) <= abs(exact) / 10**11


def _root(value: Fraction) -> Fraction:
    """The square root, to 60 digits."""
    scale = 10**400
    return Fraction(math.isqrt(value.numerator * scale**2 // value.denominator), scale)


def _judge(kind: str, seed: int, root: Path) -> tuple[str, list[str]]:
    """Fit a table; return the verdict, and what of it is not true."""
    x, y = hostile.KINDS[kind](np.random.default_rng([seed, len(kind)]))
    exact = hostile.solve(x, y)
    try:
        run = lntx.fit(_frame(x, y), target="y", root=root, until="evaluate")
    except BadInput:
        # Dependent up to rounding: there is no verdict.
        return "refused", []
    if exact is None:
        return str(run.verdict), ["dependent columns were fitted"]
    assert run.learned_weights is not None
    assert run.reference_weights is not None
    assert run.learned_bias is not None
    learned, solved = (*run.learned_weights, run.learned_bias), (*run.reference_weights, run.reference_bias)
    errors = [*(run.standard_errors or ()), run.bias_standard_error]
    wrong, allowed = [], []
    for j, weight in enumerate(exact.weights):
        error = _root(exact.variances[j]) if exact.variances else Fraction(0)
        allowed.append(_MARGIN * max(abs(weight) / 10**7, error / 100, exact.bounds[j]))
        if run.verdict == "pass" and abs(Fraction(learned[j]) - weight) > allowed[j]:
            wrong.append(f"weight {j} is {learned[j]}, exact {float(weight)}, allowed {float(allowed[j]):.2g}")
        if solved[j] != float(weight):
            wrong.append(f"the exact weight {j} is {float(weight)}, not {solved[j]}")
        if exact.variances and not _close(errors[j], error):
            wrong.append(f"the standard error of {j} is {float(error)}, not {errors[j]}")
    if run.verdict == "pass":
        for i, row in enumerate(x[:5]):
            terms = [*map(Fraction, row.tolist()), Fraction(1)]
            gap = abs(hostile.dot(terms, [*map(Fraction, learned)]) - hostile.dot(terms, exact.weights))
            if gap > hostile.sizes_of(terms, allowed):
                wrong.append(f"the prediction of row {i} is {float(gap):.2g} away")
    wrong += _wrong_figures(run, exact, x.shape)
    is_determined = all(bound <= abs(weight) / 10**8 for bound, weight in zip(exact.bounds, exact.weights, strict=True))
    if run.verdict == "fail" and is_determined:
        wrong.append(f"float64 determines each weight to 8 digits, and training missed: {run.reason}")
    return str(run.verdict), wrong


def _wrong_figures(run: Run, exact: hostile.Exact, shape: tuple[int, ...]) -> list[str]:
    num_rows, num_features = shape
    wrong = []
    if exact.tss:
        r_squared = 1 - exact.rss / exact.tss
        if run.r_squared is None or abs(Fraction(run.r_squared) - r_squared) > Fraction(1, 2**52):
            wrong.append(f"R² is {float(r_squared)}, not {run.r_squared}")
        if run.f_statistic is not None and run.degrees_of_freedom and exact.rss:
            f = (exact.tss - exact.rss) * run.degrees_of_freedom / (num_features * exact.rss)
            if not _close(run.f_statistic, f):
                wrong.append(f"F is {float(f)}, not {run.f_statistic}")
    if exact.variances and not _close(run.residual_sd, _root(exact.rss / (num_rows - num_features - 1))):
        wrong.append(f"the residual standard error is {run.residual_sd}")
    return wrong


@pytest.mark.parametrize("kind", hostile.KINDS)
@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(2, 91), marks=[pytest.mark.slow])], ids=str)
@pytest.mark.timeout(900)
def test_a_pass_is_true_and_what_can_be_learned_is_learned(kind: str, seeds: range, tmp_path: Path) -> None:
    verdicts: collections.Counter[str] = collections.Counter()
    wrong = {}
    for seed in seeds:
        verdict, sentences = _judge(kind, seed, tmp_path / str(seed))
        verdicts[verdict] += 1
        if sentences:
            wrong[seed] = sentences
    print(kind, f"seeds {seeds.start} to {seeds.stop - 1}:", dict(verdicts))
    assert wrong == {}
    # A kind that fails as a whole tests nothing.
    assert verdicts["pass"] or verdicts["refused"]


def _flagged(size: float) -> pd.DataFrame:
    """201 rows of y = 3 size + 2 + noise; the first is flagged, and has a target of this size."""
    draw = np.random.default_rng(1)
    sizes = np.round(draw.uniform(1, 10, 201), 2)
    y = np.round(3 * sizes + 2 + draw.normal(0, 0.1, 201), 3)
    y[0] = size
    return pd.DataFrame({"missing": np.eye(201)[0], "size": sizes, "y": y})


@pytest.mark.parametrize("size", [1e8, 1e12, 3e14, 1e20, 9.96921e36, 1e60])
def test_a_flagged_outlier_hides_no_other_weight(size: float, tmp_path: Path) -> None:
    frame = _flagged(size)
    exact = hostile.solve(frame[["missing", "size"]].to_numpy(), frame["y"].to_numpy())
    run = lntx.fit(frame, target="y", root=tmp_path)
    assert exact is not None
    assert run.verdict == "pass"
    assert run.learned_weights is not None
    assert (run.digits or 0) > 9
    assert run.learned_weights[1] == pytest.approx(float(exact.weights[1]), rel=1e-9)
    assert run.learned_bias == pytest.approx(float(exact.weights[2]), rel=1e-9)
    assert run.residual_sd == pytest.approx(math.sqrt(exact.rss / 198), rel=1e-12)
    assert not any("perfect" in warning for warning in run.warnings)
    assert any(warning.startswith("'y' is ") for warning in run.warnings)


def test_a_weight_that_the_table_does_not_determine_passes_with_a_warning(tmp_path: Path) -> None:
    """y is far larger than what the second column adds: rounding y keeps four digits of its weight."""
    x = np.random.default_rng(3).normal(size=(40, 2))
    frame = _frame(x, 1e12 * x[:, 0] + 1.5 * x[:, 1])
    run = lntx.fit(frame, target="y", root=tmp_path, train={"gradient": "autograd"})
    assert run.verdict == "pass", run.reason
    (warning,) = (text for text in run.warnings if "determines" in text)
    assert "'x1' to 4.1 digits, 'bias' is 0 within that rounding" in warning
    assert (run.digits or 0) < 6
    assert (lntx.fit(frame, target="y", root=tmp_path).digits or 0) > 15


def test_a_weight_that_is_zero_has_no_digits(tmp_path: Path) -> None:
    x = np.random.default_rng(3).normal(size=(40, 2))
    run = lntx.fit(_frame(x, 2.0 * x[:, 0]), target="y", root=tmp_path)
    assert run.verdict == "pass"
    assert (run.digits or 0) > 15


def test_a_fit_is_perfect_only_if_each_row_is_explained(tmp_path: Path) -> None:
    """Not beside one large value: the residuals of the other rows are real."""
    x = np.arange(1.0, 31)
    frame = pd.DataFrame({"x": x, "y": 3.7 * x + 1})
    assert any("perfect" in text for text in lntx.fit(frame, target="y", root=tmp_path).warnings)
    frame["flag"] = np.eye(30)[0]
    frame.loc[3, "y"] += 0.5
    frame.loc[0, "y"] = 1e30
    assert not any("perfect" in text for text in lntx.fit(frame, target="y", root=tmp_path).warnings)


@pytest.mark.parametrize("kind", hostile.KINDS)
def test_the_bound_of_rounding_is_that_of_rationals(kind: str, tmp_path: Path) -> None:
    """Not larger, which would pass a wrong weight, and not smaller; and the limit without a pass is above it."""
    for seed in range(3):
        x, y = hostile.KINDS[kind](np.random.default_rng([seed, len(kind)]))
        exact = hostile.solve(x, y)
        path = tmp_path / f"{seed}.parquet"
        terms = tuple(f"x{j}" for j in range(x.shape[1]))
        columns = dict(zip((*terms, "y"), (*x.T, y), strict=True))
        types = dict.fromkeys(columns, np.dtype(np.float64))
        write_dataset(path, iter([columns]), features=terms, target="y", types=types, repetitive=frozenset())
        dataset = open_dataset(path)
        sums = exact_sums(dataset)
        try:
            reference = solve(sums, terms, bias=True)
        except BadInput:
            continue
        assert exact is not None
        rounding = Rounding(dataset, sums, reference)
        for j, (bound, true) in enumerate(zip(rounding.bounds(range(len(terms) + 1)), exact.bounds, strict=True)):
            assert bound == pytest.approx(float(true), rel=1e-3), (seed, j)
            assert rounding.limit(j) >= bound
