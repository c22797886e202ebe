"""The exact least-squares solution of a dataset: the known answer of the training.

One pass sums XᵀX exactly (`gram`), and the normal equations are solved to the last bit (`normal_equations`), so that
the answer depends neither on the order of the rows nor on the reading. Shares no summation with training; never uses
the true weights.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from fractions import Fraction

import numpy as np

from lntx.config.schema import Section
from lntx.data.dataset import Block, Dataset, fits_in_memory, pass_over, read_blocks
from lntx.evaluation.inference import f_tail
from lntx.numerics.collinearity import BIAS, Dependence, refuse, refuse_too_few
from lntx.numerics.exact_matrix import ExactMatrix
from lntx.numerics.gram import NARROW, Gram, units_of
from lntx.numerics.normal_equations import Singular, Solution, solve_normal_equations

# A column whose share in a linear combination is below this, relative to the lengths, contributes only rounding.
_NO_SHARE = 1e-6


class Reference(Section):
    """The exact solution and its statistics."""

    weights: tuple[float, ...]
    """Least-squares weights, in the order of the terms, correctly rounded."""

    bias: float | None
    """Least-squares bias; None if the model has no bias."""

    standard_errors: tuple[float | None, ...]
    """Standard errors of the weights; None without residual degrees of freedom."""

    bias_standard_error: float | None
    """Standard error of the bias; None without a bias or without residual degrees of freedom."""

    residual_sd: float | None
    """Standard deviation of the residuals, sqrt(RSS / (N - p)), of a row of weight 1; None if N = p."""

    r_squared: float | None
    """1 - RSS / TSS; TSS is taken about the mean with a bias, and about 0 without one (as NIST does). None if TSS
    is 0."""

    adjusted_r_squared: float | None
    """1 - (1 - R²) (N - b) / (N - p), b: 1 with a bias, else 0. None without residual degrees of freedom."""

    f_statistic: float | None
    """Mean square of the model, without its bias, divided by that of the residuals. None if that is 0 or unknown."""

    f_p_value: float | None
    """Probability of an F this large or larger if all weights are 0."""

    degrees_of_freedom: int
    """Residual degrees of freedom, N - p."""

    num_rows: int
    """Number of rows, N."""

    condition_number: float
    """Ratio of the largest to the smallest singular value of [x, 1], at most 1e300."""

    inverse_diagonal: tuple[float, ...]
    """Diagonal of the inverse of XᵀX, the bias last."""

    factor: tuple[tuple[float, ...], ...]
    """R of the QR factorisation of [x, 1], one tuple per row: XᵀX = RᵀR."""


def exact_sums(dataset: Dataset) -> Gram:
    """Return the exact sums of the products of the columns [x, 1, y] of a dataset, read in parts on all cores."""
    return merged(pass_over(dataset, functools.partial(_sums_of_part, adder_of(dataset))))


def merged(parts: Iterable[Gram]) -> Gram:
    """Return the sum of the sums of parts, at least one."""
    total: Gram | None = None
    for part in parts:
        total = total or Gram(part.num_columns)
        total.merge(part)
    assert total is not None
    return total


def _sums_of_part(add: Callable[[Iterable[Block]], Gram], part: Dataset) -> Gram:
    return add(read_blocks(part, reuse=True))


def adder_of(dataset: Dataset) -> Callable[[Iterable[Block]], Gram]:
    """Return the function that adds up the rows of any part of a dataset exactly, so that parts can be merged."""
    num_terms, is_one_part = len(dataset.terms), fits_in_memory(dataset)
    # The units of a single part, too, are those of the first block.
    units = None if is_one_part else units_of(_columns(next(read_blocks(dataset))))
    compiled = not is_one_part and num_terms + 2 <= NARROW and dataset.weight is None
    return functools.partial(sum_rows, num_terms=num_terms, units=units, compiled=compiled)


def sum_rows(
    blocks: Iterable[Block], num_terms: int, *, units: np.ndarray | None = None, compiled: bool = False
) -> Gram:
    """Return the exact sums of rows, by their weights. blocks: x, shape (n, num_terms), and y, shape (n,). Others: as
    `Gram` has them.
    """
    gram = Gram(num_terms + 2, units=units, compiled=compiled)
    for block in blocks:
        low = None if block.low is None else np.column_stack([block.low, np.zeros((len(block.y), 2))])
        gram.add(_columns(block), low, block.row_weights)
    return gram


def _columns(block: Block) -> np.ndarray:
    """Return [x, 1, y], column-major. The ones are there even without a bias: they give the mean of y."""
    num_rows, num_terms = block.x.shape
    columns = np.empty((num_rows, num_terms + 2), order="F")
    columns[:, :num_terms], columns[:, num_terms], columns[:, num_terms + 1] = block.x, 1.0, block.y
    return columns


def solve(sums: Gram, terms: tuple[str, ...], *, bias: bool) -> Reference:
    """Solve min ‖y - x · weights - bias‖, of weighted rows in the norm of their weights.

    sums: the exact sums of the rows. terms: names of the columns of x.

    Raises: BadInput: dependent columns (named in the message), or too few rows.
    """
    p, num_rows = len(terms) + bias, sums.num_rows
    refuse_too_few(num_rows, p, bias=bias)
    total = sums.total()
    columns = np.array([*range(p), len(terms) + 1])
    products = total.part(columns, columns)
    try:
        solution = solve_normal_equations(products)
    except Singular:
        refuse(_dependences(products, (*terms, BIAS)[:p], bias=bias))
    return _statistics(solution, total, terms, num_rows, bias=bias)


def _statistics(
    solution: Solution, total: ExactMatrix, terms: tuple[str, ...], num_rows: int, *, bias: bool
) -> Reference:
    d = len(terms)
    freedom = num_rows - d - bias
    squares, sum_y = total.fraction(d + 1, d + 1), total.fraction(d, d + 1)
    # The square of the ones is the sum of the weights of the rows.
    tss = squares - sum_y**2 / total.fraction(d, d) if bias else squares
    rss = solution.residual_sum_of_squares
    variance = float(rss / freedom) if freedom > 0 else None
    errors = [None if variance is None else math.sqrt(variance * entry) for entry in solution.inverse_diagonal.tolist()]
    singular = np.linalg.svd(solution.factor, compute_uv=False)
    weights = solution.coefficients.tolist()
    r_squared = 1 - rss / tss if tss > 0 else None
    f = _finite(max(tss - rss, Fraction(0)) * freedom / (d * rss)) if rss and freedom > 0 and tss > 0 else None
    return Reference(
        weights=tuple(weights[:d]),
        bias=weights[d] if bias else None,
        standard_errors=tuple(errors[:d]),
        bias_standard_error=errors[d] if bias else None,
        residual_sd=None if variance is None else math.sqrt(variance),
        r_squared=None if r_squared is None else float(r_squared),
        adjusted_r_squared=None if freedom <= 0 or tss <= 0 else float(1 - rss / tss * (num_rows - bias) / freedom),
        f_statistic=f,
        f_p_value=None if f is None else f_tail(f, d, freedom),
        degrees_of_freedom=freedom,
        num_rows=num_rows,
        condition_number=min(float(singular[0]) / max(float(singular[-1]), 1e-300), 1e300),
        inverse_diagonal=tuple(solution.inverse_diagonal.tolist()),
        factor=tuple(map(tuple, solution.factor.tolist())),
    )


def _finite(value: Fraction) -> float | None:
    """Return a float64, or None if it overflows."""
    try:
        return float(value)
    except OverflowError:
        return None


def _dependences(products: ExactMatrix, names: tuple[str, ...], *, bias: bool) -> list[Dependence]:
    """Find the first column that depends on those before it (the bias first), and the columns that it depends on."""
    p = len(names)
    order = [p - 1, *range(p - 1)] if bias else [*range(p)]
    lengths = np.sqrt(products.rounded().diagonal())
    if not lengths[:p].all():
        return [Dependence(name=name, shares={}) for name, length in zip(names, lengths, strict=False) if length == 0]
    independent, dependent = 0, p
    while dependent - independent > 1:
        middle = (independent + dependent) // 2
        try:
            _solve_leading(products, order, middle)
            independent = middle
        except Singular:
            dependent = middle
    column = order[independent]
    shares = _solve_leading(products, order, independent)
    involved = {
        names[j]: float(share)
        for j, share in zip(order, shares, strict=False)
        if abs(share) * lengths[j] > _NO_SHARE * lengths[column]
    }
    return [Dependence(name=names[column], shares=involved)]


def _solve_leading(products: ExactMatrix, order: list[int], count: int) -> np.ndarray:
    """Return the coefficients of the next column as a combination of the first `count` columns."""
    places = np.array([*order, len(order)][: count + 1])
    return solve_normal_equations(products.part(places, places)).coefficients
