"""How far a model's predictions are from the rows: the residuals, their mean square and their histogram."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lntx.data.dataset import Block, Dataset, fits_in_memory, open_dataset, pass_over, read_blocks
from lntx.numerics.residuals import residuals

HISTOGRAM_EDGES = np.linspace(-5, 5, 41)
"""Edges of the histogram bins, in standard deviations of the residuals."""

_NUM_BINS = len(HISTOGRAM_EDGES) + 1
_SAMPLE_ROWS = 500


@dataclass(frozen=True, kw_only=True)
class ResidualFigures:
    """Figures of y - x · weights - bias, each residual as if computed with twice the digits and rounded once, and
    multiplied by the square root of the row's weight.
    """

    mean_square: float
    """Mean squared error."""

    sample: tuple[tuple[float, float], ...]
    """Fitted value and residual of rows at equal distances, some hundred at most."""

    histogram: tuple[int, ...] | None
    """Counts of residuals in units of `spread`: below -5, 40 bins of width 1/4, above 5; None without a spread."""


def each_residual(paths: Sequence[Path], weights: tuple[float, ...], bias: float | None) -> np.ndarray:
    """Return the residual of each row of a dataset, shape (num_rows,). paths: its files, in order."""
    blocks = read_blocks(open_dataset(*paths))
    return np.concatenate([residuals(block.x, block.y, weights, bias or 0.0, low=block.low) for block in blocks])


def residual_figures(
    dataset: Dataset, weights: tuple[float, ...], bias: float | None, *, spread: float | None = None
) -> ResidualFigures:
    """Measure the residuals in one pass over the rows, in parts on all cores.

    spread: the standard deviation of the residuals, or None if it is not known in advance.
    """
    work = functools.partial(
        _figures_of_part,
        weights=weights,
        bias=bias or 0.0,
        spread=spread,
        step=-(-dataset.num_rows // _SAMPLE_ROWS),
        compiled=not fits_in_memory(dataset),
    )
    squares: list[float] = []
    sample: list[tuple[float, float]] = []
    counts = np.zeros(_NUM_BINS, np.int64)
    for part_squares, part_sample, part_counts in pass_over(dataset, work):
        squares += part_squares
        sample += part_sample
        counts += part_counts
    return ResidualFigures(
        mean_square=math.fsum(squares) / dataset.num_rows,
        sample=tuple(sample),
        histogram=tuple(counts.tolist()) if spread else None,
    )


def _figures_of_part(
    part: Dataset, *, weights: tuple[float, ...], bias: float, spread: float | None, step: int, compiled: bool
) -> tuple[list[float], list[tuple[float, float]], np.ndarray]:
    """Return the sums of squares of the blocks of a part, every `step`-th residual, and the counts of the histogram."""
    squares: list[float] = []
    sample: list[tuple[float, float]] = []
    row = part.first
    counts = np.zeros(_NUM_BINS, np.int64)
    for block in read_blocks(part, reuse=True):
        residual = _residuals(block, weights, bias, compiled=compiled)
        chosen = slice(-row % step, None, step)
        fitted = (block.y[chosen] - residual[chosen]).tolist()
        if block.row_weights is not None:
            residual = residual * np.sqrt(block.row_weights)
        sample += zip(fitted, residual[chosen].tolist(), strict=True)
        # No BLAS: its sums depend on the number of threads.
        squares.append(float((residual**2).sum()))
        row += len(residual)
        if spread:
            # The number of edges at or below each residual: all are multiples of 1/4, so that nothing is rounded here.
            places = np.floor(residual / spread * 4).clip(-21, 20).astype(np.int8) + 21
            counts += np.bincount(places, minlength=_NUM_BINS)
    return squares, sample, counts


def _residuals(block: Block, weights: tuple[float, ...], bias: float, *, compiled: bool) -> np.ndarray:
    if not compiled:
        return residuals(block.x, block.y, weights, bias, low=block.low)
    from lntx.numerics import compiled_residuals

    low = np.zeros((0, 0)) if block.low is None else block.low.T
    return compiled_residuals.residuals(block.x.T, low, block.y, np.array(weights), bias)
