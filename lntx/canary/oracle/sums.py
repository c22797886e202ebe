"""Exact sums over rows in rational numbers by FLINT, independent of the sums of numpy and lntx."""

from __future__ import annotations

from collections.abc import Iterable
from operator import lshift

import numpy as np
from flint import fmpq, fmpq_mat, fmpz_mat

_MANTISSA_BITS = 53


def mean_products(columns: Iterable[np.ndarray], num_columns: int) -> tuple[fmpq_mat, int]:
    """Return the mean over rows of the products of columns, XᵀX/N, and the number of rows N.

    columns: the rows in blocks, float64, finite, shape (n, num_columns).
    """
    total, num_rows = fmpq_mat(num_columns, num_columns), 0
    for block in columns:
        total += _products(block)
        num_rows += len(block)
    return total / fmpq(num_rows), num_rows


def _products(columns: np.ndarray) -> fmpq_mat:
    """Return XᵀX, computed in integers: each column in units of its smallest power of two."""
    mantissas, exponents = np.frexp(columns)
    whole = np.ldexp(mantissas, _MANTISSA_BITS).astype(np.int64)
    exponents = np.where(whole == 0, exponents.max(axis=0), exponents) - _MANTISSA_BITS
    least = exponents.min(axis=0)
    pairs = zip(whole.T.tolist(), (exponents - least).T.tolist(), strict=True)
    numbers = fmpz_mat([[*map(lshift, *pair)] for pair in pairs])
    units = fmpq_mat(len(least), len(least))
    for j, exponent in enumerate(least.tolist()):
        units[j, j] = fmpq(2) ** exponent
    return units * fmpq_mat(numbers * numbers.transpose()) * units
