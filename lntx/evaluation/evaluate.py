"""Compare learned, exact and true coefficients: the verdict, and the part to blame.

Reads rows and numbers; corrects nothing, and is independent of export.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from lntx.config.schema import Data, Evaluate
from lntx.data.dataset import Block, Dataset, pass_over, read_blocks
from lntx.data.row_digest import RowsDigest
from lntx.evaluation.chi2 import chance_of_gaps
from lntx.evaluation.data_check import Redrawn, damaged_file, other_number, other_reading
from lntx.evaluation.diagnosis import why_training_missed
from lntx.evaluation.least_squares import Reference, adder_of, exact_sums, merged, solve
from lntx.evaluation.residuals import residual_figures
from lntx.evaluation.verdict import Coefficient, Evaluation
from lntx.numerics.gram import Gram
from lntx.stages import Blame
from lntx.training.result import Fit

FULL_DIGITS = 15.95
"""Decimal digits of a float64: -log10(2^-53)."""

# Relative tolerances of torch.testing.assert_close.
RTOL = {"float64": 1e-7, "float32": 1.3e-6}

# Loss surfaces of more coefficients are not drawn.
_DRAWN = 20

# A coefficient this small relative to its scale is 0 up to rounding.
_ZERO = 1e-12

# An optimiser's error this small relative to the sampling error changes no conclusion.
_STANDARD_ERRORS = 0.01


def evaluate(dataset: Dataset, *, sha256: str, data: Data, fit: Fit, settings: Evaluate) -> Evaluation:
    """Compare a fit with the exact solution of its rows and, if it is known, with the truth.

    sha256: expected digest of the file of a user's rows. data: source of the rows, including the truth.
    """
    bias = fit.bias is not None
    sums, damage = _read(dataset, sha256=sha256, data=data, readings=fit.rows_sha256)
    reference = solve(sums, dataset.terms, bias=bias)
    coefficients = compare(
        fit.weights, fit.bias, reference, dtype=fit.dtype, terms=dataset.terms, data=data, settings=settings
    )
    figures = residual_figures(dataset, fit.weights, fit.bias, spread=reference.residual_sd)
    if damage is None:
        blame, reason = _verdict(coefficients, reference, fit=fit, data=data, settings=settings)
    else:
        advice = "look at the disk, the file system and pyarrow, then rerun with --force generate"
        blame, reason = "data", f"{damage}: {advice}"
    return Evaluation(
        verdict="pass" if blame is None else "fail",
        blame=blame,
        reason=reason,
        coefficients=coefficients,
        digits=min(coefficient.digits for coefficient in coefficients),
        warnings=(*dataset.notes, *_warnings(fit, reference, data)),
        mse=figures.mean_square,
        residual_sd=reference.residual_sd,
        residual_histogram=figures.histogram,
        residual_sample=figures.sample,
        factor=reference.factor if len(coefficients) <= _DRAWN else None,
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


def correct_digits(learned: float, expected: float, scale: float) -> float:
    """Return the log relative error: -log10 of |learned - expected| / |expected|, in 0..15.95.

    If the expected value is 0 up to rounding, relative to the scale, the scale replaces it as the divisor.
    """
    size = _size(expected, scale)
    error = abs(learned - expected)
    if error == 0:
        return FULL_DIGITS
    return 0.0 if size == 0 else min(FULL_DIGITS, max(0.0, -math.log10(error / size)))


def _size(expected: float, scale: float) -> float:
    return abs(expected) if abs(expected) > _ZERO * scale else scale


def compare(
    weights: tuple[float, ...],
    bias: float | None,
    reference: Reference,
    *,
    dtype: str,
    terms: tuple[str, ...],
    data: Data,
    settings: Evaluate,
) -> tuple[Coefficient, ...]:
    """Compare the learned coefficients with the exact ones and, if they are known, the true ones; the bias last."""
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
    unit = np.float32 if dtype == "float32" else np.float64
    found = []
    for name, value, answer, error, truth, scale in zip(
        names, learned, exact, errors, true, reference.scales, strict=True
    ):
        size = max(abs(answer), scale)
        found.append(
            Coefficient(
                name=name,
                learned=value,
                reference=answer,
                true=truth,
                standard_error=error,
                digits=correct_digits(value, answer, scale),
                ulps=min(abs(value - answer) / float(np.spacing(unit(_size(answer, scale)))), 1e300),
                allowed=max(rtol * size, _STANDARD_ERRORS * (error or 0.0)),
            )
        )
    return tuple(found)


def _verdict(
    coefficients: Sequence[Coefficient], reference: Reference, *, fit: Fit, data: Data, settings: Evaluate
) -> tuple[Blame | None, str | None]:
    if data.true_weights is not None:
        off = _reference_off_truth(data, reference, coefficients, settings)
        if off is not None:
            return "reference", f"{off}: look at numpy, its BLAS and the generator of the rows"
    wrong = [coefficient for coefficient in coefficients if not coefficient.passes]
    if wrong:
        worst = max(wrong, key=lambda coefficient: coefficient.gap / max(coefficient.allowed, 1e-300))
        learned, exact = f"{worst.learned:.6g}", f"{worst.reference:.6g}"
        if learned == exact:
            learned, exact = repr(worst.learned), repr(worst.reference)
        missed = f"{worst.name} was learned as {learned} where the exact answer is {exact}"
        error = worst.standard_error or 0.0
        scale = reference.scales[coefficients.index(worst)]
        # Without noise the standard error is only rounding, and has no meaning.
        if error > _ZERO * max(abs(worst.reference), scale):
            missed += f" ({worst.gap / error:.3g} standard errors away)"
        return "training", why_training_missed(fit, missed=missed)
    return None, None


def _warnings(fit: Fit, reference: Reference, data: Data) -> tuple[str, ...]:
    perfect = data.path is not None and reference.is_perfect
    said = ("the fit is perfect up to rounding: standard errors, t and p say nothing",) if perfect else ()
    if fit.naive_gradient_error is None:
        return said
    return (
        *said,
        f"the same loop in plain torch adds up {reference.num_rows:,} rows in float32, one after the other: its first "
        f"gradient is off by {fit.naive_gradient_error:.2g} (relative); here it was not",
    )


def _reference_off_truth(
    data: Data, reference: Reference, coefficients: Sequence[Coefficient], settings: Evaluate
) -> str | None:
    """Test the exact solution jointly against the truth; return a clause if the test fails, else None."""
    gaps = np.array([coefficient.reference - (coefficient.true or 0.0) for coefficient in coefficients])
    sizes = [max(abs(c.true or 0.0), scale) for c, scale in zip(coefficients, reference.scales, strict=True)]
    if all(abs(gap) <= RTOL["float64"] * size for gap, size in zip(gaps, sizes, strict=True)):
        return None
    worst = coefficients[int(np.argmax(np.abs(gaps) / np.maximum(sizes, np.finfo(float).tiny)))]
    off = f"the exact solution has {worst.name} = {worst.reference:.12g} where the truth is {worst.true or 0.0:.12g}"
    if data.noise == 0:
        return f"{off}, without noise"
    chance = float(chance_of_gaps(np.array(reference.factor), gaps, data.noise))
    if chance >= settings.false_alarm_rate:
        return None
    return f"{off}; noise alone does that with chance {chance:.2g}, below {settings.false_alarm_rate:g}"
