"""How far a model's predictions are from the rows: the residuals, their mean square and their histogram."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lntx.data.dataset import Block
from lntx.numerics.residuals import residuals

HISTOGRAM_EDGES = np.linspace(-5, 5, 41)
"""Edges of the histogram bins, in standard deviations of the residuals."""


_SAMPLE_ROWS = 500


@dataclass(frozen=True, kw_only=True)
class ResidualFigures:
    """Figures of y - x · weights - bias, each residual as if computed with twice the digits and rounded once."""

    mean_square: float
    """Mean squared error."""

    sample: tuple[tuple[float, float], ...]
    """Fitted value and residual of rows at equal distances, some hundred at most."""

    histogram: tuple[int, ...] | None
    """Counts of residuals in units of `spread`: below -5, 40 bins of width 1/4, above 5; None without a spread."""


def residual_figures(
    blocks: Iterable[Block],
    weights: tuple[float, ...],
    bias: float | None,
    *,
    num_rows: int,
    spread: float | None = None,
) -> ResidualFigures:
    """Measure the residuals in one pass over the rows, num_rows in all.

    spread: the standard deviation of the residuals, or None if it is not known in advance.
    """
    squares, step, done = [], -(-num_rows // _SAMPLE_ROWS), 0
    sample: list[tuple[float, float]] = []
    counts = np.zeros(len(HISTOGRAM_EDGES) + 1, np.int64)
    for block in blocks:
        residual = residuals(block.x, block.y, weights, bias or 0.0, low=block.low)
        # No BLAS: its sums depend on the number of threads.
        squares.append(float((residual**2).sum()))
        chosen = slice(-done % step, None, step)
        sample += zip((block.y - residual)[chosen].tolist(), residual[chosen].tolist(), strict=True)
        done += len(residual)
        if spread:
            places = np.searchsorted(HISTOGRAM_EDGES, residual / spread, side="right")
            counts += np.bincount(places, minlength=len(counts))
    return ResidualFigures(
        mean_square=math.fsum(squares) / num_rows,
        sample=tuple(sample),
        histogram=tuple(counts.tolist()) if spread else None,
    )
