"""The exact sums of `numerics.gram` for few columns, as a compiled loop: BLAS is slow on narrow matrices."""

from __future__ import annotations

import numpy as np

from lntx.numerics.compiled import compiled
from lntx.numerics.exact_matrix import BITS, SHARED_ROWS

LEVELS = 6
"""Digits of a number here; a block with numbers that need more is left to numpy."""

_DIGIT = 2.0**BITS
_LARGEST = 2.0**BITS


def _dot(left: np.ndarray, right: np.ndarray) -> float:
    total = 0.0
    for k in range(len(left)):
        total += left[k] * right[k]
    return total


def _size(values: np.ndarray) -> float:
    total = 0.0
    for k in range(len(values)):
        total += abs(values[k])
    return total


# Products of digits are whole numbers below 2^53, and of sizes only whether they are 0 matters.
dot, size = compiled(_dot, any_order=True), compiled(_size, any_order=True)


@compiled
def take_digit(rest: np.ndarray, digit: np.ndarray) -> None:
    """Move the whole part of each number to `digit`, and scale what is left by 2^20."""
    for k in range(len(rest)):
        digit[k] = np.rint(rest[k])
        rest[k] = (rest[k] - digit[k]) * _DIGIT


@compiled
def add_rows(columns: np.ndarray, scales: np.ndarray, totals: np.ndarray) -> bool:
    """Add rows to the sums of products of digits.

    columns: float64, shape (p, n), row-major. scales: powers of two, shape (p,), that bring columns to within ±2^20.
    totals: int64, shape (2 · LEVELS - 1, p, p): by sum of levels; the lower triangle is not used.

    Returns: whether all digits were added; if not (numbers beyond ±2^20, or of more digits), totals are incomplete.
    """
    p, n = columns.shape
    digits, used = np.zeros((p, LEVELS, SHARED_ROWS)), np.zeros((p, LEVELS), np.bool_)
    rest = np.empty(SHARED_ROWS)
    for start in range(0, n, SHARED_ROWS):
        count = min(SHARED_ROWS, n - start)
        for j in range(p):
            column = columns[j, start : start + count]
            beyond = 0
            for k in range(count):
                rest[k] = column[k] * scales[j]
                beyond += not abs(rest[k]) <= _LARGEST
            if beyond:
                return False
            rest[count:] = 0.0
            used[j] = False
            for level in range(LEVELS):
                take_digit(rest, digits[j, level])
                used[j, level] = size(digits[j, level]) > 0
                if size(rest) == 0:
                    break
            else:
                return False
        for i in range(p):
            for j in range(i, p):
                for a in range(LEVELS):
                    for b in range(LEVELS):
                        if used[i, a] and used[j, b]:
                            totals[a + b, i, j] += np.int64(dot(digits[i, a], digits[j, b]))
    return True
