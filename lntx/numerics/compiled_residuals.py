"""The residuals of `numerics.residuals`, bit for bit, as a compiled loop."""

from __future__ import annotations

import numpy as np

from lntx.numerics.compiled import compiled, two_product, two_sum

_ROWS = 256


@compiled
def residuals(x: np.ndarray, low: np.ndarray, y: np.ndarray, weights: np.ndarray, bias: float) -> np.ndarray:
    """Return y - x · weights - bias, shape (n,), as if computed with twice the digits and rounded once.

    x: terms, float64, shape (d, n), row-major. low: rounding error of x, of the same shape, or of shape (0, 0).
    y: shape (n,). weights: shape (d,).
    """
    d, n = x.shape
    values, rest = np.empty(n), np.empty(_ROWS)
    for start in range(0, n, _ROWS):
        count = min(_ROWS, n - start)
        high, target = values[start : start + count], y[start : start + count]
        for k in range(count):
            high[k], rest[k] = two_sum(target[k], -bias)
        for j in range(d):
            column = x[j, start : start + count]
            for k in range(count):
                product, error = two_product(column[k], -weights[j])
                high[k], more = two_sum(high[k], product)
                rest[k] += error + more
            if len(low):
                correction = low[j, start : start + count]
                for k in range(count):
                    rest[k] -= weights[j] * correction[k]
        for k in range(count):
            high[k] += rest[k]
    return values
