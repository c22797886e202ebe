"""Sums of products of columns in Python's own whole numbers: slow, exact, and nothing but the interpreter in them.

For few rows, where it can stand beside the quicker `lntx.numerics.gram`.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

_MANTISSA_BITS = 53


class WholeNumberSums:
    """The matrix of products of columns, summed over rows as they come."""

    def __init__(self, num_columns: int) -> None:
        self._totals = [[Fraction(0)] * num_columns for _ in range(num_columns)]

    def add(self, columns: np.ndarray) -> None:
        """Add rows. columns: float64, finite, shape (n, num_columns)."""
        whole = [_whole_numbers(column) for column in columns.T]
        for i, (left, left_exponent) in enumerate(whole):
            for j, (right, right_exponent) in enumerate(whole[: i + 1]):
                product = Fraction(sum(a * b for a, b in zip(left, right, strict=True)))
                self._totals[i][j] += product * Fraction(2) ** (left_exponent + right_exponent)
                self._totals[j][i] = self._totals[i][j]

    def fraction(self, row: int, column: int) -> Fraction:
        """An entry of the sum so far."""
        return self._totals[row][column]


def _whole_numbers(column: np.ndarray) -> tuple[list[int], int]:
    """Numbers as whole multiples of one power of two, and its exponent."""
    mantissas, exponents = np.frexp(column)
    exponents = exponents - _MANTISSA_BITS
    used = exponents[mantissas != 0]
    least = int(used.min()) if len(used) else 0
    numbers = np.ldexp(mantissas, _MANTISSA_BITS).astype(np.int64).tolist()
    shifts = np.where(mantissas != 0, exponents - least, 0).tolist()
    return [number << shift for number, shift in zip(numbers, shifts, strict=True)], least
