"""Solve the normal equations of least squares from an exact XᵀX, to the last bit of the answer.

Numerics alone: a matrix in, numbers out. Rows are not read here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lntx.numerics.exact_matrix import ExactMatrix, exactly, exponents

# Bits kept of a preconditioner's column, beside its largest entry.
_KEPT_BITS = 60
_MAX_ROUNDS = 8
_MAX_CORRECTIONS = 60
_WELL_CONDITIONED = 0.5
# Corrections stop below this, relative to the coefficient; and a coefficient below the second, relative to rms(y) /
# rms(column), is 0.
_CORRECTED = 2.0**-80
_NOTHING = 2.0**-200


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """The least-squares solution and what its statistics need."""

    coefficients: np.ndarray
    """Correctly rounded, float64, shape (p,); below 2^-200 of rms(y) / rms(column) they are 0."""

    residual_sum_of_squares: float
    """RSS of the exact solution."""

    inverse_diagonal: np.ndarray
    """Diagonal of the inverse of XᵀX, shape (p,)."""

    factor: np.ndarray
    """R, upper triangular, shape (p, p): XᵀX = RᵀR."""


class Singular(Exception):
    """The columns are dependent, or nearly so."""


def solve_normal_equations(gram: ExactMatrix) -> Solution:
    """Solve from the exact products of the columns [X, y].

    gram: shape (p + 1, p + 1), the target last.

    Raises: Singular.

    A preconditioner T with TᵀXᵀXT near I comes from Cholesky factorisations in float64, each of the exact product of
    the one before (Fukaya et al., Shifted Cholesky QR, 2020); with it the exact residual of the normal equations is
    corrected until nothing is left (Björck, Numerical Methods for Least Squares Problems, 1996, section 2.9).
    """
    p = len(gram.row_exponents) - 1
    x, y = np.arange(p), np.array([p])
    matrix, right = gram.part(x, x), gram.part(x, y)
    lengths = np.sqrt(gram.rounded().diagonal())
    if not lengths[:p].all():
        raise Singular
    preconditioner, product = _preconditioner(matrix, lengths[:p])
    cholesky = np.linalg.cholesky(product)

    terms: list[np.ndarray] = []
    residual, transform = right, _exact_columns(preconditioner, matrix)
    for _ in range(_MAX_CORRECTIONS):
        coordinates = (transform.transposed @ residual).rounded()[:, 0]
        inner = np.linalg.solve(cholesky.T, np.linalg.solve(cholesky, coordinates))
        terms.append(preconditioner @ inner)
        residual = residual.minus(matrix @ _exact_vector(terms[-1], matrix, residual))
        size = np.maximum(np.abs(np.sum(terms, axis=0)), _NOTHING * lengths[p] / lengths[:p])
        if (np.abs(terms[-1]) <= _CORRECTED * size).all():
            break
    coefficients = np.array([math.fsum(values) for values in zip(*terms, strict=True)])
    coefficients[np.abs(coefficients) <= _NOTHING * lengths[p] / lengths[:p]] = 0.0
    whitened = np.linalg.solve(cholesky, preconditioner.T)
    return Solution(
        coefficients=coefficients,
        residual_sum_of_squares=float(_residual_squares(gram, terms, residual)),
        inverse_diagonal=(whitened**2).sum(axis=0),
        factor=cholesky.T @ np.linalg.inv(preconditioner),
    )


def _preconditioner(matrix: ExactMatrix, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T, upper triangular, and TᵀAT, near the identity and right to the last bits; both shape (p, p).

    matrix: A. lengths: square roots of its diagonal.
    """
    p = len(lengths)
    # Powers of two: nothing is rounded.
    scale = np.exp2(-np.round(np.log2(lengths)))
    transform = np.diag(scale)
    product = matrix.rounded() * scale[:, None] * scale[None, :]
    for _ in range(_MAX_ROUNDS):
        if np.linalg.norm(product - np.eye(p)) < _WELL_CONDITIONED:
            return transform, product
        diagonal = product.diagonal()
        if not (diagonal > 0).all():
            raise Singular
        unit = 1 / np.sqrt(diagonal)
        lower = _shifted_cholesky(product * unit[:, None] * unit[None, :])
        transform = _kept(scale, (transform * unit) @ np.linalg.inv(lower).T)
        columns = _exact_columns(transform, matrix)
        product = (columns.transposed @ (matrix @ columns)).rounded()
    raise Singular


def _shifted_cholesky(matrix: np.ndarray) -> np.ndarray:
    """L of a matrix of unit diagonal, shifted by its rounding where it is not positive definite to rounding."""
    p = len(matrix)
    shift = 0.0
    for _ in range(40):
        try:
            return np.asarray(np.linalg.cholesky(matrix + shift * np.eye(p)))
        except np.linalg.LinAlgError:
            shift = max(4 * shift, p * np.finfo(float).eps)
    raise Singular


def _kept(scale: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """A preconditioner less what is far below the largest entry of its column: it is exact all the same, and short."""
    even = np.triu(transform / scale[:, None])
    unit = np.exp2(_KEPT_BITS - exponents(np.abs(even).max(axis=0)).astype(np.float64))
    kept: np.ndarray = np.rint(even * unit) / unit * scale[:, None]
    return kept


def _exact_columns(transform: np.ndarray, matrix: ExactMatrix) -> ExactMatrix:
    rows = -matrix.column_exponents
    return exactly(transform, rows, exponents(np.abs(np.ldexp(transform, -rows[:, None])).max(axis=0)))


def _exact_vector(values: np.ndarray, matrix: ExactMatrix, like: ExactMatrix) -> ExactMatrix:
    return exactly(values[:, None], -matrix.column_exponents, like.column_exponents)


def _residual_squares(gram: ExactMatrix, terms: list[np.ndarray], residual: ExactMatrix) -> Fraction:
    """yᵀy - wᵀXᵀy - wᵀ(Xᵀy - XᵀXw), which is ‖y - Xw‖² for any w, in exact arithmetic."""
    p = len(gram.row_exponents) - 1
    total = gram.fraction(p, p)
    for j in range(p):
        weight = sum((Fraction(float(term[j])) for term in terms), Fraction(0))
        total -= weight * (gram.fraction(j, p) + residual.fraction(j, 0))
    return total
