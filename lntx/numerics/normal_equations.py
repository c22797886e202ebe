"""Solve the normal equations of least squares from an exact XᵀX, to the last bit of the solution.

Pure numerics: takes a matrix and returns numbers; reads no rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lntx.numerics.exact_matrix import ExactMatrix, exactly, exponents

# Bits kept in a column of a preconditioner, relative to its largest entry.
_KEPT_BITS = 60
_MAX_ROUNDS = 8
_MAX_CORRECTIONS = 60
_WELL_CONDITIONED = 0.5
# Corrections stop below the first limit, relative to the coefficient. A coefficient below the second limit, relative to
# rms(y) / rms(column), is 0: of values from 1e-100 to 1e100 nothing smaller can come.
_CORRECTED = 2.0**-80
_NOTHING = 2.0**-800
# Corrections go on until what they still add to the residual sum of squares is below this part of it.
_SETTLED = Fraction(1, 2**60)
# What they add is known to this part: where nothing else is left, RSS is 0.
_EXCESS_ERROR = Fraction(1, 2**40)
# Digits of exact numbers end at 2^-1000: nothing below this part of yᵀy is known.
_LEAST = Fraction(1, 2**900)


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """The least-squares solution and the quantities for its statistics."""

    coefficients: np.ndarray
    """Coefficients, correctly rounded, float64, shape (p,); those below 2^-800 · rms(y) / rms(column) are 0."""

    residual_sum_of_squares: Fraction
    """RSS of the exact solution, to 60 bits."""

    inverse_diagonal: np.ndarray
    """Diagonal of the inverse of XᵀX, shape (p,)."""

    factor: np.ndarray
    """R, upper triangular, shape (p, p): XᵀX = RᵀR."""


class Singular(Exception):
    """The columns are dependent, or nearly so."""


def solve_normal_equations(gram: ExactMatrix) -> Solution:
    """Solve from the exact products of the columns [X, y].

    gram: shape (p + 1, p + 1), the target last.

    Raises: Singular: the columns are dependent.

    A preconditioner T with TᵀXᵀXT near I is built by repeated Cholesky factorisations in float64, each of the exact
    product of the previous one (Fukaya et al., Shifted Cholesky QR, 2020). With it, iterative refinement reduces the
    exact residual of the normal equations to nothing (Björck, Numerical Methods for Least Squares Problems, 1996,
    section 2.9).
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
    nothing = _NOTHING * lengths[p] / lengths[:p]
    rss = Fraction(0)
    for _ in range(_MAX_CORRECTIONS):
        coordinates = (transform.transposed @ residual).rounded()[:, 0]
        whitened = np.linalg.solve(cholesky, coordinates)
        if terms:
            size = np.maximum(np.abs(np.sum(terms, axis=0)), nothing)
            if (np.abs(terms[-1]) <= _CORRECTED * size).all():
                # ‖y - Xw‖² is larger than RSS by ‖X(w - w*)‖², which the next correction removes.
                excess = sum((Fraction(value) ** 2 for value in whitened.tolist()), Fraction(0))
                at_terms = _residual_squares(gram, terms, residual)
                rss = max(at_terms - excess, Fraction(0))
                is_nothing = at_terms <= _LEAST * gram.fraction(p, p) or (np.abs(terms[-1]) <= nothing).all()
                if excess <= _SETTLED * rss or is_nothing:
                    break
        terms.append(preconditioner @ np.linalg.solve(cholesky.T, whitened))
        residual = residual.minus(matrix @ _exact_vector(terms[-1], matrix, residual))
    least = max(_EXCESS_ERROR * _residual_squares(gram, terms, residual), _LEAST * gram.fraction(p, p))
    coefficients = np.array([math.fsum(values) for values in zip(*terms, strict=True)])
    coefficients[np.abs(coefficients) <= nothing] = 0.0
    return Solution(
        coefficients=coefficients,
        residual_sum_of_squares=rss if rss > least else Fraction(0),
        inverse_diagonal=(np.linalg.solve(cholesky, preconditioner.T) ** 2).sum(axis=0),
        factor=cholesky.T @ np.linalg.inv(preconditioner),
    )


def _preconditioner(matrix: ExactMatrix, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return T, upper triangular, and TᵀAT, near the identity and accurate to the last bits; both shape (p, p).

    matrix: A. lengths: square roots of its diagonal.
    """
    p = len(lengths)
    # Scaling by powers of two rounds nothing.
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
    """Return L of a matrix with unit diagonal; the matrix is shifted if rounding makes it not positive definite."""
    p = len(matrix)
    shift = 0.0
    for _ in range(40):
        try:
            return np.asarray(np.linalg.cholesky(matrix + shift * np.eye(p)))
        except np.linalg.LinAlgError:
            shift = max(4 * shift, p * np.finfo(float).eps)
    raise Singular


def _kept(scale: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Round a preconditioner relative to the largest entry of each column: any T is valid, and a short one is fast."""
    even = np.triu(transform / scale[:, None])
    unit = np.exp2(_KEPT_BITS - exponents(np.abs(even).max(axis=0)).astype(np.float64))
    rounded: np.ndarray = np.rint(even * unit) / unit * scale[:, None]
    return rounded


def _exact_columns(transform: np.ndarray, matrix: ExactMatrix) -> ExactMatrix:
    rows = -matrix.column_exponents
    return exactly(transform, rows, exponents(np.abs(np.ldexp(transform, -rows[:, None])).max(axis=0)))


def _exact_vector(values: np.ndarray, matrix: ExactMatrix, like: ExactMatrix) -> ExactMatrix:
    return exactly(values[:, None], -matrix.column_exponents, like.column_exponents)


def _residual_squares(gram: ExactMatrix, terms: list[np.ndarray], residual: ExactMatrix) -> Fraction:
    """Return yᵀy - wᵀXᵀy - wᵀ(Xᵀy - XᵀXw) in exact arithmetic, which is ‖y - Xw‖² for any w."""
    p = len(gram.row_exponents) - 1
    total = gram.fraction(p, p)
    for j in range(p):
        weight = sum((Fraction(float(term[j])) for term in terms), Fraction(0))
        total -= weight * (gram.fraction(j, p) + residual.fraction(j, 0))
    return total
