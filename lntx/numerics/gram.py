"""XᵀX, or XᵀWX, exact to the last bit, in one pass and bounded memory, independent of the order and number of the rows.

Only sums; `normal_equations` solves.
"""

from __future__ import annotations

import numpy as np

from lntx.numerics.doubledouble import two_product
from lntx.numerics.exact_matrix import (
    BITS,
    SHARED_ROWS,
    Digits,
    ExactMatrix,
    add_digits,
    carried,
    carry,
    exponents,
    split,
)

# Larger chunks do not fit into the processor's caches.
_CHUNK_NUMBERS = 2**16
# The largest accepted number, 1e100, stays within float64 if it is scaled by 2^400 or 2^-400.
_UNITS = 400
_Digits = list[tuple[int, np.ndarray, np.ndarray]]
"""Level, which columns have digits there, and these digits in groups of rows."""

# Columns up to which a compiled loop is faster than BLAS.
NARROW = 8


def units_of(columns: np.ndarray) -> np.ndarray:
    """Return exponents of units for columns of like size, int64, shape (num_columns,).

    Any unit is correct: one near the size of the numbers needs few digits, and in this range later, larger numbers lose
    nothing.
    """
    return exponents(np.abs(columns).max(axis=0)).clip(-_UNITS, _UNITS)


class Gram:
    """The matrix of products of columns, summed over blocks of rows.

    units: exponents of the units of the columns; those of the first block by default. Sums that are to be merged must
    have the same. compiled: whether a compiled loop adds up the rows, which is worth its import if they are many.
    """

    def __init__(self, num_columns: int, *, units: np.ndarray | None = None, compiled: bool = False) -> None:
        self.num_columns = num_columns
        self._exponents = units
        self._totals: Digits = {}
        self._compiled = compiled
        self.num_rows = 0

    def add(self, columns: np.ndarray, low: np.ndarray | None = None, row_weights: np.ndarray | None = None) -> None:
        """Add rows.

        columns: float64, shape (n, num_columns). low: correction to add to `columns`, smaller than its rounding.
        row_weights: factor of the products of each row, shape (n,); None: 1.
        """
        self.num_rows += len(columns)
        if self._exponents is None:
            self._exponents = units_of(columns)
        if self._compiled and low is None and row_weights is None and self._add_compiled(columns, self._exponents):
            return
        step = max(SHARED_ROWS, _CHUNK_NUMBERS // self.num_columns // SHARED_ROWS * SHARED_ROWS)
        for start in range(0, len(columns), step):
            parts = [
                np.ldexp(part[start : start + step], -self._exponents) for part in (columns, low) if part is not None
            ]
            left = _digits(parts)
            if row_weights is None:
                self._add_chunk(left, None)
            else:
                self._add_chunk(left, _digits(_weighted(parts, row_weights[start : start + step, None])))
            carry(self._totals)

    def _add_chunk(self, left: _Digits, right: _Digits | None) -> None:
        """Add the products of digits; without `right`, of `left` with itself."""
        for place, (level, rows, digit) in enumerate(left):
            across = digit.transpose(0, 2, 1)
            for other, columns, factor in left[place:] if right is None else right:
                product = np.zeros((self.num_columns, self.num_columns), dtype=np.int64)
                product[np.ix_(rows, columns)] = np.matmul(across, factor).astype(np.int64).sum(axis=0)
                if right is None and other != level:
                    product = product + product.T
                add_digits(self._totals, level + other, product)

    def _add_compiled(self, columns: np.ndarray, units: np.ndarray) -> bool:
        from lntx.numerics import compiled_gram

        shape = (2 * compiled_gram.LEVELS - 1, self.num_columns, self.num_columns)
        sums = np.zeros(shape, dtype=np.int64)
        # A digit is a whole number in the loop; here the first one counts units of 2^-20.
        scales = np.ldexp(1.0, BITS - units)
        if not compiled_gram.add_rows(np.ascontiguousarray(columns.T), scales, sums):
            return False
        for place, upper in enumerate(sums):
            if upper.any():
                add_digits(self._totals, place + 2, upper + np.triu(upper, 1).T)
        carry(self._totals)
        return True

    def merge(self, other: Gram) -> None:
        """Add the sums of other rows, which must have the same units."""
        self.num_rows += other.num_rows
        assert other._exponents is not None
        if self._exponents is None:
            self._exponents = other._exponents
        assert np.array_equal(self._exponents, other._exponents)
        for level, amount in other._totals.items():
            add_digits(self._totals, level, amount)
        carry(self._totals)

    def total(self) -> ExactMatrix:
        """Return the sum so far, shape (num_columns, num_columns)."""
        assert self._exponents is not None
        digits = carried({level: total.copy() for level, total in self._totals.items()})
        return ExactMatrix(digits=digits, row_exponents=self._exponents, column_exponents=self._exponents)


def _weighted(parts: list[np.ndarray], row_weights: np.ndarray) -> list[np.ndarray]:
    """Return the sum of parts times the weight of each row, as a number and its rounding error."""
    high, *rest = parts
    product, error = two_product(high, row_weights)
    return [product, error + sum((part * row_weights for part in rest), np.zeros(()))]


def _digits(parts: list[np.ndarray]) -> _Digits:
    """Return the digits of numbers by level, without the columns that have none there: whole numbers have few."""
    return [
        (level, is_used, digit if is_used.all() else np.ascontiguousarray(digit[:, :, is_used]))
        for level, digit in sorted(split(*map(_in_groups, parts)).items())
        for is_used in [np.asarray(digit.any(axis=(0, 1)))]
    ]


def _in_groups(rows: np.ndarray) -> np.ndarray:
    """Pad rows with zeros and group them so that each group can be summed at once, shape (groups, 2^10, columns)."""
    missing = -len(rows) % SHARED_ROWS
    if missing and len(rows) > SHARED_ROWS:
        rows = np.vstack([rows, np.zeros((missing, rows.shape[1]))])
    rows = np.ascontiguousarray(rows)
    return rows.reshape(-1, min(len(rows), SHARED_ROWS), rows.shape[1])


assert SHARED_ROWS * (1.5 * 2**BITS) ** 2 < 2**53
