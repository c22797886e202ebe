"""Matrices of exact numbers, and their products without rounding, at the speed of BLAS.

A number is split into digits of 20 bits, so that float64 matrix products of digits are integers below 2^53, whatever
the order of summation in BLAS (Ozaki, Ogita, Oishi and Rump, Error-free transformations of matrix multiplication,
2012). Sums of digits are carried in int64. Independent of least squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

BITS = 20
"""Bits per digit."""

SHARED_ROWS = 2**10
"""Maximum number of terms in one product of digits: 2^10 · (1.5 · 2^20)² is below 2^53."""

_HALF = 1 << (BITS - 1)
# Powers of two beyond this level overflow float64; the remainder is below 2^-1000.
_LAST_LEVEL = 1000 // BITS

Digits = dict[int, np.ndarray]
"""Digits by level: a number is the sum of digit · 2^(-20 · level)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactMatrix:
    """Entry (i, j) is the sum over levels of digit[i, j] · 2^(row_exponents[i] + column_exponents[j] - 20 · level)."""

    digits: Digits
    """Integers within ±2^20, float64, shape (rows, columns) each."""

    row_exponents: np.ndarray
    """Exponents of the rows, int64, shape (rows,)."""

    column_exponents: np.ndarray
    """Exponents of the columns, int64, shape (columns,)."""

    @property
    def transposed(self) -> ExactMatrix:
        """The transpose, shape (columns, rows)."""
        return ExactMatrix(
            digits={level: digit.T for level, digit in self.digits.items()},
            row_exponents=self.column_exponents,
            column_exponents=self.row_exponents,
        )

    def part(self, rows: np.ndarray, columns: np.ndarray) -> ExactMatrix:
        """Return the submatrix of the given rows and columns, in the given order."""
        return ExactMatrix(
            digits={level: digit[np.ix_(rows, columns)] for level, digit in self.digits.items()},
            row_exponents=self.row_exponents[rows],
            column_exponents=self.column_exponents[columns],
        )

    def rounded(self) -> np.ndarray:
        """Return the nearest float64 of each entry (or its neighbour, once in 10^15), shape (rows, columns)."""
        high = np.zeros((len(self.row_exponents), len(self.column_exponents)))
        low = np.zeros_like(high)
        exponents = self.row_exponents[:, None] + self.column_exponents[None, :]
        for level in sorted(self.digits):
            # Scale by the whole exponent at once: parts of it may overflow float64.
            term = np.ldexp(self.digits[level], exponents - BITS * level)
            total = high + term
            part = total - high
            low += (high - (total - part)) + (term - part)
            high = total
        rounded: np.ndarray = high + low
        return rounded

    def fraction(self, row: int, column: int) -> Fraction:
        """Return one entry as an exact fraction."""
        exponent = int(self.row_exponents[row] + self.column_exponents[column])
        terms = (
            int(digit[row, column]) * Fraction(2) ** (exponent - BITS * level) for level, digit in self.digits.items()
        )
        return sum(terms, Fraction(0))

    def __matmul__(self, other: ExactMatrix) -> ExactMatrix:
        """Return the product, shape (rows, columns of other); the exponents of the summed dimension must cancel."""
        assert (self.column_exponents == -other.row_exponents).all()
        totals: Digits = {}
        for left_level, left in self.digits.items():
            for right_level, right in other.digits.items():
                # Carried digits are within ±2^19: 2^14 products of them stay below 2^53.
                assert left.shape[1] <= 2**14
                add_digits(totals, left_level + right_level, (left @ right).astype(np.int64))
        return ExactMatrix(
            digits=carried(totals), row_exponents=self.row_exponents, column_exponents=other.column_exponents
        )

    def minus(self, other: ExactMatrix) -> ExactMatrix:
        """Return the difference of two matrices with the same exponents."""
        assert (self.row_exponents == other.row_exponents).all()
        assert (self.column_exponents == other.column_exponents).all()
        totals: Digits = {level: digit.astype(np.int64) for level, digit in self.digits.items()}
        for level, digit in other.digits.items():
            add_digits(totals, level, -digit.astype(np.int64))
        return ExactMatrix(
            digits=carried(totals), row_exponents=self.row_exponents, column_exponents=self.column_exponents
        )


def exactly(matrix: np.ndarray, row_exponents: np.ndarray, column_exponents: np.ndarray) -> ExactMatrix:
    """Convert a float64 matrix to digits in units of the given powers of two."""
    scaled = np.ldexp(matrix, -(row_exponents[:, None] + column_exponents[None, :]))
    totals = {level: digit.astype(np.int64) for level, digit in split(scaled).items()}
    return ExactMatrix(digits=carried(totals), row_exponents=row_exponents, column_exponents=column_exponents)


def exponents(sizes: np.ndarray) -> np.ndarray:
    """Return the exponent of the power of two just above each size, int64; 0 for 0."""
    result: np.ndarray = np.frexp(sizes)[1].astype(np.int64)
    return result


def split(*parts: np.ndarray) -> Digits:
    """Split the sum of float64 arrays of equal shape into digits within ±1.5 · 2^20; levels that are 0 are left out.

    Exact down to 2^-1000; the parts after the first must be smaller than the rounding of the first.
    """
    rest = [*parts]
    top = max(float(np.abs(part).max(initial=0.0)) for part in rest)
    digits: Digits = {}
    level = 1 - math.ceil(math.frexp(top)[1] / BITS)
    while any(part.any() for part in rest) and level <= _LAST_LEVEL:
        scale = 2.0 ** (BITS * level)
        digit = np.zeros_like(rest[0])
        for place, part in enumerate(rest):
            piece = np.rint(part * scale)
            rest[place] = part - piece / scale
            digit += piece
        if digit.any():
            digits[level] = digit
        level += 1
    return digits


def carried(totals: Digits) -> Digits:
    """Convert int64 totals by level to float64 digits within ±2^19; levels that are 0 are left out."""
    carry(totals)
    return {level: digit.astype(np.float64) for level, digit in sorted(totals.items()) if digit.any()}


def carry(totals: Digits) -> None:
    """Reduce int64 totals in place to ±2^19, level by level; the excess is carried to the next higher level."""
    level = max(totals, default=0)
    while totals and level >= min(totals):
        if level in totals:
            over = (totals[level] + _HALF) >> BITS
            if over.any():
                totals[level] -= over << BITS
                add_digits(totals, level - 1, over)
        level -= 1


def add_digits(totals: Digits, level: int, amount: np.ndarray) -> None:
    """Add an amount to the int64 totals of a level, in place."""
    if level in totals:
        totals[level] += amount
    else:
        totals[level] = amount.copy()
