"""How far a model's predictions are from the rows: mean square, largest size and mean of the residuals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lntx.data.dataset import Block
from lntx.numerics.doubledouble import two_product, two_sum

HISTOGRAM_EDGES = np.linspace(-5, 5, 41)
"""Edges of the bins of residuals, in their standard deviations."""


@dataclass(frozen=True, kw_only=True)
class ResidualFigures:
    """Of y - x · weights - bias, each residual as if computed with twice the digits and rounded once."""

    mean_square: float
    """Mean squared error."""

    largest: float
    """Largest size."""

    mean: float
    """Mean."""

    histogram: tuple[int, ...] | None
    """Residuals by size in units of `spread`: below -5, 40 bins of a quarter, and above 5; none without a spread."""


def residual_figures(
    blocks: Iterable[Block], weights: tuple[float, ...], bias: float | None, *, spread: float | None = None
) -> ResidualFigures:
    """Measure the residuals in one pass over the rows.

    spread: their standard deviation, as far as it is known beforehand.
    """
    squares, totals, largest, num_rows = [], [], 0.0, 0
    counts = np.zeros(len(HISTOGRAM_EDGES) + 1, np.int64)
    for block in blocks:
        residual = residuals(block, weights, bias or 0.0)
        # Not by BLAS, whose sums depend on the number of threads.
        squares.append(float((residual**2).sum()))
        totals.append(float(residual.sum()))
        largest = max(largest, float(np.abs(residual).max()))
        num_rows += len(residual)
        if spread:
            places = np.searchsorted(HISTOGRAM_EDGES, residual / spread, side="right")
            counts += np.bincount(places, minlength=len(counts))
    return ResidualFigures(
        mean_square=math.fsum(squares) / num_rows,
        largest=largest,
        mean=math.fsum(totals) / num_rows,
        histogram=tuple(counts.tolist()) if spread else None,
    )


def residuals(block: Block, weights: tuple[float, ...], bias: float) -> np.ndarray:
    """y - x · weights - bias, shape (n,), as if computed with twice the digits and rounded once."""
    high, low = two_sum(block.y, np.full_like(block.y, -bias))
    for j, weight in enumerate(weights):
        product, error = two_product(block.x[:, j], -weight)
        high, more = two_sum(high, product)
        low += error + more
        if block.low is not None:
            low -= weight * block.low[:, j]
    residual: np.ndarray = high + low
    return residual
