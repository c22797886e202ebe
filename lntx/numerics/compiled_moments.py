"""xᵀ(y - prediction) of many rows in double-double arithmetic: the sums of `training.moments`, as a compiled loop."""

from __future__ import annotations

import numpy as np

from lntx.numerics.compiled import compiled, two_product, two_sum

LANES = 256
"""Sums kept side by side, each over every 256th row, so that the processor adds several at once."""


@compiled
def add_rows(  # noqa: PLR0912 - one loop: what is called from it would be compiled for each of its callers
    x: np.ndarray,
    low: np.ndarray,
    y: np.ndarray,
    row_weights: np.ndarray,
    weights: np.ndarray,
    bias: float,
    high: np.ndarray,
    rest: np.ndarray,
    squares: np.ndarray,
) -> None:
    """Add rows to sums.

    x: terms, float64, shape (d, n), row-major. low: rounding error of x, of the same shape, or of shape (0, 0).
    y: shape (n,). row_weights: factor of each row, shape (n,), or (0,) for 1. weights: shape (d,).
    high, rest: the sums as pairs, shape (p, LANES), where p > d if there is a bias.
    squares: sums of squared residuals, shape (LANES,).
    """
    d, n = x.shape
    lanes = len(squares)
    residual, error = np.empty(lanes), np.empty(lanes)
    for start in range(0, n, lanes):
        count = min(lanes, n - start)
        target = y[start : start + count]
        for k in range(count):
            residual[k], error[k] = two_sum(target[k], -bias)
        for j in range(d):
            weight = -weights[j]
            column = x[j, start : start + count]
            for k in range(count):
                product, lost = two_product(column[k], weight)
                residual[k], more = two_sum(residual[k], product)
                error[k] += lost + more
            if len(low):
                correction = low[j, start : start + count]
                for k in range(count):
                    error[k] += weight * correction[k]
        for k in range(count):
            # Normalise after cancellation: the error must be below the rounding of the residual.
            residual[k], error[k] = two_sum(residual[k], error[k])
            if not len(row_weights):
                squares[k] += residual[k] * residual[k]
                continue
            plain, factor = residual[k], row_weights[start + k]
            residual[k], lost = two_product(plain, factor)
            error[k] = error[k] * factor + lost
            squares[k] += plain * residual[k]
        for j in range(d):
            column, total, part = x[j, start : start + count], high[j], rest[j]
            for k in range(count):
                product, lost = two_product(column[k], residual[k])
                total[k], more = two_sum(total[k], product)
                part[k] += (lost + column[k] * error[k]) + more
            if len(low):
                correction = low[j, start : start + count]
                for k in range(count):
                    part[k] += correction[k] * residual[k]
        if len(high) > d:
            total, part = high[d], rest[d]
            for k in range(count):
                total[k], more = two_sum(total[k], residual[k])
                part[k] += error[k] + more
