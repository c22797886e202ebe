"""Compare learned, exact and true coefficients: the verdict, and the part to blame.

Reads rows and numbers; corrects nothing, and is independent of export.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from lntx.base.stages import Blame
from lntx.base.text import MAX_NAME, quoted
from lntx.config.schema import Data, Evaluate
from lntx.data.dataset import Block, Dataset, pass_over, read_blocks
from lntx.data.row_digest import RowsDigest
from lntx.evaluation.chi2 import chance_of_gaps
from lntx.evaluation.data_check import Redrawn, damaged_file, other_number, other_reading
from lntx.evaluation.diagnosis import why_training_missed
from lntx.evaluation.least_squares import Reference, adder_of, exact_sums, merged, solve
from lntx.evaluation.residuals import residual_figures
from lntx.evaluation.rounding import Rounding
from lntx.evaluation.verdict import Coefficient, Evaluation
from lntx.numerics.gram import Gram
from lntx.training.result import Fit

FULL_DIGITS = 15.95
"""Decimal digits of a float64: -log10(2^-53)."""

# Relative tolerances of torch.testing.assert_close.
RTOL = {"float64": 1e-7, "float32": 1.3e-6}

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}
"""Unit roundoff of each dtype."""

# Names of weights in a warning.
_NAMED = 5

# Of more coefficients a factor is too large to keep in each record.
_KEPT = 200

# A standard error this small relative to its weight comes from rounding alone.
_MEANINGLESS = 1e-12

# An optimiser's error this small relative to the sampling error changes no conclusion.
_STANDARD_ERRORS = 0.01


def evaluate(dataset: Dataset, *, sha256: str, data: Data, fit: Fit, settings: Evaluate) -> Evaluation:
    """Compare a fit with the exact solution of its rows and, if it is known, with the truth.

    sha256: expected digest of the file of a user's rows. data: source of the rows, including the truth.
    """
    bias = fit.bias is not None
    sums, damage = _read(dataset, sha256=sha256, data=data, readings=fit.rows_sha256)
    reference = solve(sums, dataset.terms, bias=bias)
    rounding = Rounding(dataset, sums, reference, unit=UNIT[fit.dtype])
    coefficients = compare(
        fit.weights, fit.bias, reference, rounding, dtype=fit.dtype, terms=dataset.terms, data=data, settings=settings
    )
    figures = residual_figures(dataset, fit.weights, fit.bias, spread=reference.residual_sd)
    if damage is None:
        blame, reason = _verdict(coefficients, reference, rounding, fit=fit, data=data, settings=settings)
    else:
        advice = "look at the disk, the file system and pyarrow, then rerun with --force generate"
        blame, reason = "data", f"{damage}: {advice}"
    return Evaluation(
        verdict="pass" if blame is None else "fail",
        blame=blame,
        reason=reason,
        coefficients=coefficients,
        digits=lowest_digits(coefficients),
        warnings=(
            *dataset.notes,
            *_coarse_weights(coefficients),
            *_perfect_fit(reference, rounding, data),
            *_naive_gradient(fit, reference),
        ),
        mse=figures.mean_square,
        residual_sd=reference.residual_sd,
        residual_histogram=figures.histogram,
        residual_sample=figures.sample,
        factor=reference.factor if len(coefficients) <= _KEPT else None,
        **reference.model_dump(
            include={"r_squared", "adjusted_r_squared", "f_statistic", "f_p_value", "degrees_of_freedom"}
        ),
        num_rows=reference.num_rows,
        features=dataset.terms,
        degree=dataset.degree,
        target=dataset.target,
        columns=dataset.columns,
        levels=dict(dataset.levels),
    )


def _read(dataset: Dataset, *, sha256: str, data: Data, readings: tuple[str, ...]) -> tuple[Gram, str | None]:
    """Return the exact sums of the rows, and a clause about what is wrong with these rows, or None."""
    if data.path is None:
        damage = other_number(dataset, data)
        work = functools.partial(
            _sum_and_compare, add=adder_of(dataset), data=None if damage else data, hashes=bool(readings)
        )
        clauses: list[str | None] = [damage]

        def sums() -> Iterator[Gram]:
            for gram, difference, drawn_sha256 in pass_over(dataset, work):
                clauses.append(difference or other_reading(readings, drawn_sha256))
                yield gram

        return merged(sums()), next(filter(None, clauses), None)
    if not readings:
        return exact_sums(dataset), damaged_file(dataset, sha256, readings=())
    digest = RowsDigest()
    gram = adder_of(dataset)(digest.through(read_blocks(dataset)))
    return gram, damaged_file(dataset, sha256, readings=(*readings, digest.sha256))


def _sum_and_compare(
    part: Dataset, *, add: Callable[[Iterable[Block]], Gram], data: Data | None, hashes: bool
) -> tuple[Gram, str | None, str | None]:
    """Return the exact sums of a part, how it differs from what was generated, and the digest of what was."""
    if data is None:
        return add(read_blocks(part, reuse=True)), None, None
    check = Redrawn(part, data, hashes=hashes)
    gram = add(check.through(read_blocks(part, reuse=True)))
    return gram, check.difference, check.sha256


def correct_digits(learned: float, expected: float) -> float:
    """Return the log relative error: -log10 of |learned - expected| / |expected|, in 0..15.95."""
    error = abs(learned - expected)
    if error == 0:
        return FULL_DIGITS
    return 0.0 if expected == 0 else min(FULL_DIGITS, max(0.0, -math.log10(error / abs(expected))))


def lowest_digits(coefficients: Iterable[Coefficient]) -> float:
    """Return the smallest `digits` of coefficients; those that are 0 within rounding have none."""
    return min((weight.digits for weight in coefficients if weight.digits is not None), default=FULL_DIGITS)


def compare(
    weights: tuple[float, ...],
    bias: float | None,
    reference: Reference,
    rounding: Rounding,
    *,
    dtype: str,
    terms: tuple[str, ...],
    data: Data,
    settings: Evaluate,
) -> tuple[Coefficient, ...]:
    """Compare the learned coefficients with the exact ones and, if they are known, the true ones; the bias last.

    rounding: asked only about weights that are neither within rtol nor within a part of their standard error.
    """
    rtol = RTOL[dtype] if settings.rtol is None else settings.rtol
    names: list[str] = [*terms]
    learned: list[float] = [*weights]
    exact: list[float] = [*reference.weights]
    errors: list[float | None] = [*reference.standard_errors]
    true: list[float | None] = [*data.true_weights] if data.true_weights is not None else [None] * len(names)
    if bias is not None:
        assert reference.bias is not None
        names, learned, exact = [*names, "bias"], [*learned, bias], [*exact, reference.bias]
        errors.append(reference.bias_standard_error)
        true.append(None if data.true_weights is None else data.bias)
    gaps = [abs(value - answer) for value, answer in zip(learned, exact, strict=True)]
    allowed = [
        max(rtol * abs(answer), _STANDARD_ERRORS * (error or 0.0)) for answer, error in zip(exact, errors, strict=True)
    ]
    missed = [j for j, gap in enumerate(gaps) if not gap <= allowed[j]]
    bounds: dict[int, float] = {}
    # Where one weight is wrong beyond doubt, the verdict needs no pass over the rows.
    if all(gaps[j] <= rounding.limit(j) for j in missed):
        bounds = dict(zip(missed, rounding.bounds(missed), strict=True))
    unit = np.float32 if dtype == "float32" else np.float64
    return tuple(
        Coefficient(
            name=name,
            learned=learned[j],
            reference=exact[j],
            true=true[j],
            standard_error=errors[j],
            digits=None if abs(exact[j]) <= bounds.get(j, -1.0) else correct_digits(learned[j], exact[j]),
            ulps=min(gaps[j] / float(np.spacing(unit(max(abs(exact[j]), bounds.get(j, 0.0))))), 1e300),
            allowed=max(allowed[j], bounds.get(j, 0.0)),
            rounding=bounds.get(j),
        )
        for j, name in enumerate(names)
    )


def _verdict(
    coefficients: Sequence[Coefficient],
    reference: Reference,
    rounding: Rounding,
    *,
    fit: Fit,
    data: Data,
    settings: Evaluate,
) -> tuple[Blame | None, str | None]:
    if data.true_weights is not None:
        off = _reference_off_truth(data, reference, coefficients, rounding, settings)
        if off is not None:
            return "reference", f"{off}: look at numpy, its BLAS and the generator of the rows"
    wrong = [coefficient for coefficient in coefficients if not coefficient.passes]
    if wrong:
        # The one that moves the predictions most: relative to a bias of 3e-16, any gap is large.
        lengths = dict(zip(coefficients, np.linalg.norm(np.array(reference.factor), axis=0).tolist(), strict=True))
        worst = max(wrong, key=lambda coefficient: coefficient.gap * lengths[coefficient])
        learned, exact = f"{worst.learned:.6g}", f"{worst.reference:.6g}"
        if learned == exact:
            learned, exact = repr(worst.learned), repr(worst.reference)
        missed = f"{worst.name} was learned as {learned} where the exact answer is {exact}"
        error = worst.standard_error or 0.0
        # Without noise the standard error is only rounding, and has no meaning.
        if error > _MEANINGLESS * abs(worst.reference):
            missed += f" ({worst.gap / error:.3g} standard errors away)"
        return "training", why_training_missed(fit, missed=missed)
    return None, None


def _coarse_weights(coefficients: Sequence[Coefficient]) -> Iterator[str]:
    """Yield a warning about the weights that pass only because the table does not determine them further."""
    coarse = [weight for weight in coefficients if weight.rounding is not None and weight.passes]
    if coarse:
        parts = [f"{quoted(weight.name, MAX_NAME)} {_determined(weight)}" for weight in coarse[:_NAMED]]
        more = f" and {len(coarse) - _NAMED} more" if len(coarse) > _NAMED else ""
        yield f"rounded once in each entry, the table determines some weights only so far: {', '.join(parts)}{more}"


def _determined(weight: Coefficient) -> str:
    if weight.digits is None:
        return "is 0 within that rounding"
    assert weight.rounding is not None
    return f"to {max(0.0, -math.log10(weight.rounding / abs(weight.reference))):.1f} digits"


def _perfect_fit(reference: Reference, rounding: Rounding, data: Data) -> Iterator[str]:
    # Of noisy rows, the first ones decide.
    if data.path is not None and reference.degrees_of_freedom > 0 and rounding.explains_residuals():
        yield "the fit is perfect up to rounding: standard errors, t and p say nothing"


def _naive_gradient(fit: Fit, reference: Reference) -> Iterator[str]:
    if fit.naive_gradient_error is not None:
        yield (
            f"the same loop in plain torch adds up {reference.num_rows:,} rows in float32, one after the other: its "
            f"first gradient is off by {fit.naive_gradient_error:.2g} (relative); here it was not"
        )


def _reference_off_truth(
    data: Data, reference: Reference, coefficients: Sequence[Coefficient], rounding: Rounding, settings: Evaluate
) -> str | None:
    """Test the exact solution jointly against the truth; return a clause if the test fails, else None."""
    gaps = np.array([coefficient.reference - (coefficient.true or 0.0) for coefficient in coefficients])
    missed = [j for j, c in enumerate(coefficients) if abs(gaps[j]) > RTOL["float64"] * abs(c.true or 0.0)]
    chance = float(chance_of_gaps(np.array(reference.factor), gaps, data.noise)) if data.noise else 0.0
    if not missed or (data.noise and chance >= settings.false_alarm_rate):
        return None
    # Each product and each sum of a generated target rounds once.
    roundings = 2 * len(coefficients) + 1
    if all(abs(gaps[j]) <= roundings * rounding.limit(j) for j in missed) and all(
        abs(gaps[j]) <= roundings * bound for j, bound in zip(missed, rounding.bounds(missed), strict=True)
    ):
        return None
    sizes = np.abs([coefficient.reference for coefficient in coefficients])
    worst = coefficients[int(np.argmax(np.abs(gaps) / np.maximum(sizes, np.finfo(float).tiny)))]
    off = f"the exact solution has {worst.name} = {worst.reference:.12g} where the truth is {worst.true or 0.0:.12g}"
    if data.noise == 0:
        return f"{off}, without noise"
    return f"{off}; noise alone does that with chance {chance:.2g}, below {settings.false_alarm_rate:g}"
