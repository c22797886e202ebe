"""The exact least-squares solution of a dataset: the known answer of the training.

Streaming QR in numpy, then two corrections with residuals in double-double arithmetic. Shares no summation with
training, which is torch's; never sees the true weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from lntx.config import Section
from lntx.dataset import Block

_CORRECTIONS = 2
# Double-double here and in `residuals` on purpose: what checks training shares no arithmetic with it.
# 2^27 + 1 splits a float64 into two halves of 26 bits (Dekker, A floating-point technique, 1971).
_SPLITTER = 134217729.0


class Reference(Section):
    """The exact solution and its statistics."""

    weights: tuple[float, ...]
    """Least-squares weights, in the order of the features."""

    bias: float | None
    """Least-squares bias; none where the model has none."""

    standard_errors: tuple[float | None, ...]
    """Of the weights; none without residual degrees of freedom."""

    bias_standard_error: float | None
    """Of the bias."""

    residual_sd: float | None
    """Standard deviation of the residuals, sqrt(RSS / (N - p)); none where N = p."""

    r_squared: float | None
    """1 - RSS / TSS; TSS is about the mean where there is a bias, about 0 where there is none (as NIST does).
    None where y does not vary."""

    num_rows: int
    """Rows, N."""

    scales: tuple[float, ...]
    """rms(y) / rms(x_j): the size below which a coefficient does not matter; the bias last. Where y is 0, 1 stands
    for rms(y)."""

    factor: tuple[tuple[float, ...], ...]
    """R of the QR factorisation of [x, 1], one tuple per row: XᵀX = RᵀR."""


def solve(blocks: Callable[[], Iterable[Block]], *, bias: bool) -> Reference:
    """Solve min ‖y - x · weights - bias‖.

    blocks: reads the rows, x, shape (n, num_features), and y, shape (n,); called once per pass.

    Returns: the solution after corrected semi-normal equations (Björck, Stability analysis of the method of
    seminormal equations, 1987).
    """
    factor: np.ndarray = np.empty((0, 0))
    num_rows, sum_y, sum_squares = 0, [], []
    for x, y in blocks():
        columns = np.column_stack([design(x, bias=bias), y])
        factor = np.asarray(np.linalg.qr(np.vstack([factor, columns]) if len(factor) else columns, mode="r"))
        num_rows += len(y)
        sum_y.append(float(y.sum()))
        sum_squares.append(float(y @ y))
    p = factor.shape[1] - 1
    r = factor[:p, :p]
    coefficients = np.linalg.solve(r, factor[:p, p])
    for _ in range(_CORRECTIONS):
        right, _ = _normal_residual(blocks(), coefficients, bias)
        coefficients = coefficients + np.linalg.solve(r, np.linalg.solve(r.T, right))
    _, rss = _normal_residual(blocks(), coefficients, bias)
    center = math.fsum(sum_y) / num_rows if bias else 0.0
    # About the mean in a pass of its own: the difference of two large sums would lose it.
    tss = math.fsum(float((y - center) @ (y - center)) for _, y in blocks())

    freedom = num_rows - p
    variance = rss / freedom if freedom > 0 else None
    inverse = np.linalg.inv(r)
    errors = [None if variance is None else math.sqrt(variance * float(row @ row)) for row in inverse]
    squares = math.fsum(sum_squares)
    target_rms = math.sqrt(squares / num_rows) or 1.0
    lengths = np.sqrt((r**2).sum(axis=0) / num_rows)
    weights = coefficients.tolist()
    return Reference(
        weights=tuple(weights[: p - bias]),
        bias=weights[-1] if bias else None,
        standard_errors=tuple(errors[: p - bias]),
        bias_standard_error=errors[-1] if bias else None,
        residual_sd=None if variance is None else math.sqrt(variance),
        r_squared=1 - rss / tss if tss > 1e-28 * squares else None,
        num_rows=num_rows,
        scales=tuple((target_rms / lengths).tolist()),
        factor=tuple(map(tuple, r.tolist())),
    )


def residuals(x: np.ndarray, y: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """y - x · coefficients, shape (n,), as if computed with twice the digits and rounded once.

    x: shape (n, p), the ones column included where there is a bias.
    """
    high, low = y.copy(), np.zeros_like(y)
    for column, coefficient in zip(x.T, coefficients, strict=True):
        product, error = _two_product(column, -float(coefficient))
        total = high + product
        part = total - high
        low += error + ((high - (total - part)) + (product - part))
        high = total
    total_residual: np.ndarray = high + low
    return total_residual


def _normal_residual(blocks: Iterable[Block], coefficients: np.ndarray, bias: bool) -> tuple[np.ndarray, float]:
    """Xᵀ(y - X · coefficients), shape (p,), and the sum of squared residuals."""
    rights, squares = [], []
    for x, y in blocks:
        columns = design(x, bias=bias)
        residual = residuals(columns, y, coefficients)
        rights.append(columns.T @ residual)
        squares.append(float(residual @ residual))
    return np.array([math.fsum(column) for column in zip(*rights, strict=True)]), math.fsum(squares)


def design(x: np.ndarray, *, bias: bool) -> np.ndarray:
    """X of the normal equations: x, and a last column of ones where there is a bias."""
    return np.hstack([x, np.ones((len(x), 1))]) if bias else x


def _two_product(a: np.ndarray, b: float) -> tuple[np.ndarray, np.ndarray]:
    product = a * b
    a_high = _SPLITTER * a - (_SPLITTER * a - a)
    b_high = _SPLITTER * b - (_SPLITTER * b - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
