"""The full-batch gradient from moments: it is affine in the weights, so that one pass over the rows serves many epochs.

A pass sums xᵀ(y - prediction) in double-double arithmetic at the current weights. At other weights the gradient is
updated with the QR factor of the Hessian, until the distance costs too many digits and a new pass is needed. Shares no
summation with the exact solution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from lntx.data.dataset import Dataset, read_blocks
from lntx.numerics.compensated import Pair, exact_predictions, exact_transform, sum_pairs
from lntx.numerics.doubledouble import two_product, two_sum
from lntx.training.curvature import Curvature
from lntx.training.gradients import Part

# Numbers per chunk: larger chunks do not fit into the processor's caches.
_CHUNK_NUMBERS = 2**15
# A new pass is needed if the gradient, relative to its change since the last pass, is below the first limit, or below
# the second one in roundings, times the squared condition number.
_WORTH_A_PASS = 1e-4
_ROUNDINGS = 64
_NO_LACK = 1e-2
# Measuring the metric takes about 40 ns for each product of two columns in a row: half a minute at most.
_METRIC_NUMBERS = 10**9
# A sum of squared residuals this small, relative to the sum that it was computed from, is only rounding.
_NO_RESIDUALS = 1e-13


Sums = tuple[Pair, float]
"""xᵀ(y - prediction), the bias last, shape (p,), as a pair, and the sum of squared residuals."""

PassSums = Callable[[torch.Tensor, torch.Tensor], Sums]
"""Computes the sums at given coefficients, and what rounding took from them, in a pass over all rows."""


class Moments:
    """Gradients of the mean squared error with respect to the coefficients, the bias last.

    rows: reads the rows. sums: a pass over the same rows.
    """

    def __init__(self, curvature: Curvature, rows: Callable[[], Iterator[Part]], sums: PassSums) -> None:
        self._rows = rows
        self._sums = sums
        self._num_rows = curvature.num_rows
        # QR again, with the bias last: R of the factor with reordered columns.
        self._factor = torch.linalg.qr(curvature.bias_last, mode="r").R
        p = len(self._factor)
        self._inverse = torch.linalg.solve_triangular(self._factor, torch.eye(p, dtype=torch.float64), upper=True)
        self._condition = curvature.scaled_condition
        lost = _ROUNDINGS * torch.finfo(torch.float64).eps * self._condition**2
        self._worth_a_pass = max(_WORTH_A_PASS, lost)
        self._anchor: torch.Tensor | None = None
        self._right: Pair = torch.empty(0), torch.empty(0)
        self._residuals = torch.inf
        self.rest = torch.zeros(p, dtype=torch.float64)
        """What rounding took from the coefficients, to be added to them; 0 unless steps keep it (Kahan, 1965)."""

    def gradient(self, coefficients: torch.Tensor, coordinates: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Return the gradient of the mean squared error in the coordinates S, shape (p,), and that error.

        coefficients: the current coefficients, float64, shape (p,). coordinates: S, float64, shape (p, p).
        """
        right, distance = self._carried(coefficients)
        is_coarse = right is None or self._excess(right) < (self._worth_a_pass * distance) ** 2
        if right is None or is_coarse or bool(self.rest.any()):
            right = self._pass(coefficients)
        loss = (self._residuals + self._excess(right)) / self._num_rows
        # Round only after the transform to the coordinates, where no more cancellation occurs.
        return -2 / self._num_rows * exact_transform(coordinates, right), loss

    def way_to_solution(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Return the Newton step from some coefficients, shape (p,)."""
        right, _ = self._carried(coefficients)
        if right is None:
            right = self._pass(coefficients)
        step: torch.Tensor = self._inverse @ exact_transform(self._inverse, right)
        return step

    @property
    def state(self) -> dict[str, torch.Tensor | float] | None:
        """The result of the last pass over the rows; None before the first pass."""
        if self._anchor is None:
            return None
        high, low = self._right
        return {"anchor": self._anchor, "high": high, "low": low, "residuals": self._residuals, "rest": self.rest}

    def restore(self, state: dict[str, Any] | None) -> None:
        """Restore a saved `state`."""
        if state is not None:
            self._anchor, self._residuals = state["anchor"], state["residuals"]
            self._right, self.rest = (state["high"], state["low"]), state["rest"]

    def metric(self, coordinates: torch.Tensor) -> torch.Tensor | None:
        """Return the correction for columns that are not exactly orthonormal in the coordinates S: the inverse of
        (xS)ᵀ(xS) / N, shape (p, p). None if the defect, squared condition number times rounding, is negligible or takes
        too long to measure.

        Rounded weights are some units in the last place away from the solution; without the correction the error of the
        next step would be the defect times that distance.
        """
        lack = self._condition**2 * torch.finfo(torch.float64).eps
        if lack < _NO_LACK or self._num_rows * len(self._factor) ** 2 > _METRIC_NUMBERS:
            return None
        total = torch.zeros_like(coordinates)
        for rows in self._rows():
            for chunk in _chunks(rows.x):
                part = rows.rows(chunk)
                columns = _transformed(part.x, part.low, coordinates)
                if part.row_weights is not None:
                    columns = columns * part.row_weights.sqrt()
                total += columns.T @ columns
        metric: torch.Tensor = torch.linalg.inv(total / self._num_rows)
        return metric

    def _carried(self, coefficients: torch.Tensor) -> tuple[Pair | None, float]:
        """Return xᵀ(y - prediction) updated from the last pass, and the change of the predictions since then."""
        if self._anchor is None:
            return None, 0.0
        moved = self._factor @ (coefficients - self._anchor)
        right = two_sum(self._right[0], -(self._factor.T @ moved))
        return (right[0], right[1] + self._right[1]), float(torch.linalg.vector_norm(moved))

    def _excess(self, right: Pair) -> float:
        """Return the sum of squared residuals minus its value at the solution."""
        return float(torch.linalg.vector_norm(exact_transform(self._inverse, right)) ** 2)

    def _pass(self, coefficients: torch.Tensor) -> Pair:
        total, squares = self._sums(coefficients, self.rest)
        residuals = squares - self._excess(total)
        self._residuals = residuals if residuals > _NO_RESIDUALS * squares else 0.0
        self._anchor, self._right = coefficients.clone(), total
        return total


def sums_of_rows(rows: Iterable[Part], coefficients: torch.Tensor, rest: torch.Tensor | None = None) -> Sums:
    """Return the sums of rows at coefficients of shape (p,): with more than x has columns, the last is the bias.

    rest: what rounding took from the coefficients, shape (p,).
    """
    return add_up(_sums_of_chunk(part.rows(chunk), coefficients, rest) for part in rows for chunk in _chunks(part.x))


def sums_of_part(part: Dataset, coefficients: torch.Tensor) -> Sums:
    """Return the same of a part of a dataset, by a compiled loop: for many rows."""
    from lntx.numerics import compiled_moments

    d, p = len(part.terms), len(coefficients)
    high, rest = np.zeros((p, compiled_moments.LANES)), np.zeros((p, compiled_moments.LANES))
    squares = np.zeros(compiled_moments.LANES)
    weights, bias = coefficients[:d].numpy(), float(coefficients[d]) if p > d else 0.0
    for x, y, low, row_weights in read_blocks(part, reuse=True):
        lower = np.zeros((0, 0)) if low is None else low.T
        factors = np.zeros(0) if row_weights is None else row_weights
        compiled_moments.add_rows(x.T, lower, y, factors, weights, bias, high, rest, squares)
    total = sum_pairs(torch.from_numpy(high).T, torch.from_numpy(rest).T)
    return total, float(squares.sum())


def add_up(parts: Iterable[Sums]) -> Sums:
    """Return the sum of sums, in order."""
    rest = iter(parts)
    (high, low), squares = next(rest)
    for more, square in rest:
        high, error = two_sum(high, more[0])
        low, squares = low + more[1] + error, squares + square
    return (high, low), squares


def _chunks(x: torch.Tensor) -> Iterator[slice]:
    step = max(1, _CHUNK_NUMBERS // (x.shape[1] + 1))
    return (slice(start, start + step) for start in range(0, len(x), step))


def _sums_of_chunk(part: Part, coefficients: torch.Tensor, rest: torch.Tensor | None) -> Sums:
    x, y, low, row_weights = part
    d = x.shape[1]
    bias = coefficients[d:] if len(coefficients) > d else None
    high, error = exact_predictions(x, low, coefficients[:d], bias)
    if rest is not None and bool(rest.any()):
        error = error + (x * rest[:d]).sum(dim=1) + rest[d:].sum()
    residual, more = two_sum(y[:, 0], -high)
    # Normalise again after cancellation: the remainder must be below the rounding of the residual.
    residual, remainder = two_sum(residual, more - error)
    plain = residual
    if row_weights is not None:
        factor = row_weights[:, 0]
        residual, lost = two_product(residual, factor)
        remainder = remainder * factor + lost
    remainder = remainder.unsqueeze(1)
    products, errors = two_product(x, residual.unsqueeze(1))
    errors = errors + x * remainder
    if low is not None:
        errors = errors + low * residual.unsqueeze(1)
    if bias is not None:
        products = torch.cat([products, residual.unsqueeze(1)], dim=1)
        errors = torch.cat([errors, remainder], dim=1)
    return sum_pairs(products, errors), float(plain @ residual)


def _transformed(x: torch.Tensor, low: torch.Tensor | None, coordinates: torch.Tensor) -> torch.Tensor:
    """Return (x + low) in the coordinates, the bias last, shape (n, p), each value rounded once.

    coordinates: shape (p, p).
    """
    d = x.shape[1]
    pairs = [exact_predictions(x, low, column[:d], column[d:] if len(column) > d else None) for column in coordinates.T]
    return torch.stack([high + error for high, error in pairs], dim=1)
