"""Residuals of a linear model in double-double arithmetic; with y = 0, the negative of its exact predictions."""

from __future__ import annotations

import numpy as np

from lntx.numerics.doubledouble import two_product, two_sum


def residuals(
    x: np.ndarray, y: np.ndarray, weights: tuple[float, ...], bias: float, *, low: np.ndarray | None = None
) -> np.ndarray:
    """Return y - x · weights - bias, shape (n,), as if computed with twice the digits and rounded once.

    low: rounding error of x, of the same shape; None if x is exact.
    """
    high, rest = two_sum(y, np.full_like(y, -bias))
    for j, weight in enumerate(weights):
        product, error = two_product(x[:, j], -weight)
        high, more = two_sum(high, product)
        rest += error + more
        if low is not None:
            rest -= weight * low[:, j]
    residual: np.ndarray = high + rest
    return residual
