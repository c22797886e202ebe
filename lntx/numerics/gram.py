"""XᵀX exact to the last bit, in one pass and bounded memory, independent of the order and number of the rows.

Only sums; `normal_equations` solves.
"""

from __future__ import annotations

import numpy as np

from lntx.numerics.exact_matrix import BITS, SHARED_ROWS, Digits, ExactMatrix, carried, carry, exponents, split

# Larger chunks do not fit into the processor's caches.
_CHUNK_NUMBERS = 2**16
# The largest accepted number, 1e100, stays within float64 if it is scaled by 2^400 or 2^-400.
_UNITS = 400


class Gram:
    """The matrix of products of columns, summed over blocks of rows."""

    def __init__(self, num_columns: int) -> None:
        self._num_columns = num_columns
        self._exponents: np.ndarray | None = None
        self._totals: Digits = {}

    def add(self, columns: np.ndarray, low: np.ndarray | None = None) -> None:
        """Add rows.

        columns: float64, shape (n, num_columns). low: correction to add to `columns`, smaller than its rounding.
        """
        if self._exponents is None:
            # Any unit is correct: one near the size of the numbers needs few digits, and in this range later, larger
            # numbers lose nothing.
            self._exponents = exponents(np.abs(columns).max(axis=0)).clip(-_UNITS, _UNITS)
        step = max(SHARED_ROWS, _CHUNK_NUMBERS // self._num_columns // SHARED_ROWS * SHARED_ROWS)
        for start in range(0, len(columns), step):
            parts = [
                np.ldexp(part[start : start + step], -self._exponents) for part in (columns, low) if part is not None
            ]
            self._add_chunk([_in_groups(part) for part in parts])
            carry(self._totals)

    def _add_chunk(self, parts: list[np.ndarray]) -> None:
        digits = sorted(split(*parts).items())
        for place, (level, left) in enumerate(digits):
            across = left.transpose(0, 2, 1)
            for other, right in digits[place:]:
                product = np.matmul(across, right).astype(np.int64).sum(axis=0)
                if other != level:
                    product = product + product.T
                total = self._totals.get(level + other)
                self._totals[level + other] = product if total is None else total + product

    def total(self) -> ExactMatrix:
        """Return the sum so far, shape (num_columns, num_columns)."""
        assert self._exponents is not None
        digits = carried({level: total.copy() for level, total in self._totals.items()})
        return ExactMatrix(digits=digits, row_exponents=self._exponents, column_exponents=self._exponents)


def _in_groups(rows: np.ndarray) -> np.ndarray:
    """Pad rows with zeros and group them so that each group can be summed at once, shape (groups, 2^10, columns)."""
    missing = -len(rows) % SHARED_ROWS
    if missing and len(rows) > SHARED_ROWS:
        rows = np.vstack([rows, np.zeros((missing, rows.shape[1]))])
    rows = np.ascontiguousarray(rows)
    return rows.reshape(-1, min(len(rows), SHARED_ROWS), rows.shape[1])


assert SHARED_ROWS * (1.5 * 2**BITS) ** 2 < 2**53
