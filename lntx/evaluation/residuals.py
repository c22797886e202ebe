"""How far a model's predictions are from the rows: the residuals, their mean square and their histogram."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lntx.data.dataset import Block
from lntx.numerics.doubledouble import two_product, two_sum

HISTOGRAM_EDGES = np.linspace(-5, 5, 41)
"""Edges of the histogram bins, in standard deviations of the residuals."""


@dataclass(frozen=True, kw_only=True)
class ResidualFigures:
    """Figures of y - x · weights - bias, each residual as if computed with twice the digits and rounded once."""

    mean_square: float
    """Mean squared error."""

    histogram: tuple[int, ...] | None
    """Counts of residuals in units of `spread`: below -5, 40 bins of width 1/4, above 5; None without a spread."""


def residual_figures(
    blocks: Iterable[Block], weights: tuple[float, ...], bias: float | None, *, spread: float | None = None
) -> ResidualFigures:
    """Measure the residuals in one pass over the rows.

    spread: the standard deviation of the residuals, or None if it is not known in advance.
    """
    squares, num_rows = [], 0
    counts = np.zeros(len(HISTOGRAM_EDGES) + 1, np.int64)
    for block in blocks:
        residual = residuals(block, weights, bias or 0.0)
        # No BLAS: its sums depend on the number of threads.
        squares.append(float((residual**2).sum()))
        num_rows += len(residual)
        if spread:
            places = np.searchsorted(HISTOGRAM_EDGES, residual / spread, side="right")
            counts += np.bincount(places, minlength=len(counts))
    return ResidualFigures(
        mean_square=math.fsum(squares) / num_rows,
        histogram=tuple(counts.tolist()) if spread else None,
    )


def residuals(block: Block, weights: tuple[float, ...], bias: float) -> np.ndarray:
    """Return y - x · weights - bias, shape (n,), as if computed with twice the digits and rounded once."""
    high, low = two_sum(block.y, np.full_like(block.y, -bias))
    for j, weight in enumerate(weights):
        product, error = two_product(block.x[:, j], -weight)
        high, more = two_sum(high, product)
        low += error + more
        if block.low is not None:
            low -= weight * block.low[:, j]
    residual: np.ndarray = high + low
    return residual
