"""How far rounding each entry of a table once can move each weight: the resolution that the table itself has.

First order, component by component, without a norm over rows or columns: with X⁺ the pseudoinverse and r the
residuals, weight j moves by at most u (Σᵢ |X⁺ⱼᵢ| (|yᵢ| + Σₖ |xᵢₖ wₖ|) + Σᵢₖ |(XᵀX)⁻¹ⱼₖ xᵢₖ rᵢ|) (Björck, Numerical
Methods for Least Squares Problems, 1996, section 1.4.5; Higham, Accuracy and Stability of Numerical Algorithms, 2002,
section 20.1). The ones of the bias and the weights of rows are no entries. Powers of a column move together. With
weights W of the rows, X⁺ is (XᵀWX)⁻¹XᵀW, and r is Wr.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import flint
import numpy as np

from lntx.data.dataset import Block, Dataset, read_blocks
from lntx.evaluation.least_squares import Reference
from lntx.numerics.gram import Gram
from lntx.numerics.residuals import residuals

_BITS = 1200
# Relative to u², the error of a product of a row with a vector of twice the digits, for each of its terms.
_PRODUCT_ERROR = 16.0
# A product whose error could add more than this part to the bound is computed again with all digits.
_NEGLIGIBLE = 1e-6
_UNIT = 2.0**-53


class Rounding:
    """The bounds of the weights of one solution; each is computed when it is needed.

    sums: exact sums of the products of the columns [x, 1, y]. reference: their solution. unit: unit roundoff of the
    format in which the table is trained.
    """

    def __init__(self, dataset: Dataset, sums: Gram, reference: Reference, *, unit: float = _UNIT) -> None:
        d = len(reference.weights)
        self._dataset = dataset
        self._total = sums.total()
        self._weights, self._bias = reference.weights, reference.bias
        self._num_coefficients = d + (reference.bias is not None)
        self._residual_length = (reference.residual_sd or 0.0) * math.sqrt(reference.degrees_of_freedom)
        self._lengths = np.sqrt(self._total.rounded().diagonal())
        self._roots = np.sqrt(reference.inverse_diagonal)
        self._unit = unit
        self._bounds: dict[int, float] = {}

    def limit(self, j: int) -> float:
        """Return a number above the bound of coefficient j, without a pass over the rows (Cauchy and Schwarz)."""
        d = len(self._weights)
        sizes = self._lengths[d + 1] + float((np.abs(self._weights) * self._lengths[:d]).sum())
        moved = float((self._roots[:d] * self._lengths[:d]).sum()) * self._residual_length
        return float(min(2 * self._unit * self._dataset.degree * self._roots[j] * (sizes + moved), 1e300))

    def bounds(self, places: Sequence[int]) -> list[float]:
        """Return the largest changes of some coefficients, from one pass over the rows."""
        new = [j for j in dict.fromkeys(places) if j not in self._bounds]
        if new:
            with flint.ctx.workprec(_BITS):
                self._bounds |= dict(zip(new, self._pass(new), strict=True))
        return [self._bounds[j] for j in places]

    def explains_residuals(self) -> bool:
        """Whether rounding the entries of each row once explains its residual: the fit is perfect."""
        for block in read_blocks(self._dataset):
            left = residuals(block.x, block.y, self._weights, self._bias or 0.0, low=block.low)
            if not (np.abs(left) <= 2 * _UNIT * self._sizes(block)).all():
                return False
        return True

    def _sizes(self, block: Block) -> np.ndarray:
        """Return |y| + Σ |x w| of each row."""
        sizes: np.ndarray = np.abs(block.y) + self._added(self._moved(block) * np.array(self._weights))
        return sizes

    def _moved(self, block: Block) -> np.ndarray:
        """Return how x moves with its entries, relative to them, shape (n, d)."""
        return block.x * np.arange(1, block.x.shape[1] + 1) if self._dataset.degree > 1 else block.x

    def _added(self, terms: np.ndarray) -> np.ndarray:
        """Add up what the entries of each row move, shape (n,): powers of one entry move together."""
        added: np.ndarray = np.abs(terms.sum(axis=1)) if self._dataset.degree > 1 else np.abs(terms).sum(axis=1)
        return added

    def _pass(self, places: Sequence[int]) -> list[float]:
        *inverse, solution = self._solved(places)
        totals = [0.0] * len(places)
        for block in read_blocks(self._dataset):
            row_weights = 1.0 if block.row_weights is None else block.row_weights
            moved, sizes = self._moved(block), self._sizes(block) * row_weights
            for k, row in enumerate(inverse):
                shares = _distances(block, np.zeros(len(block.y)), row, sizes, totals[k])
                totals[k] += float((shares * sizes).sum())
                weights = self._added(moved * np.array([float(value.mid()) for value in row[: moved.shape[1]]]))
                weights = weights * row_weights
                totals[k] += float((_distances(block, block.y, solution, weights, totals[k]) * weights).sum())
        return [min(self._unit * total, 1e300) for total in totals]

    def _solved(self, places: Sequence[int]) -> list[list[flint.arb]]:
        """Return rows of (XᵀX)⁻¹ and, last, the solution, in balls."""
        p, d = self._num_coefficients, len(self._weights)
        matrix = flint.arb_mat([[_ball(self._total.fraction(i, k)) for k in range(p)] for i in range(p)])
        right = [[*(flint.arb(int(i == j)) for j in places), _ball(self._total.fraction(i, d + 1))] for i in range(p)]
        solved = matrix.solve(flint.arb_mat(right))
        return [[solved[i, k] for i in range(p)] for k in range(len(places) + 1)]


def _distances(
    block: Block, target: np.ndarray, vector: list[flint.arb], weights: np.ndarray, total: float
) -> np.ndarray:
    """Return |target - [x, 1] · vector| of each row, shape (n,), in twice the digits of float64.

    weights: factors of a sum over the rows. Where the error could add to that sum, `total` included, all digits are
    used.
    """
    n, d = block.x.shape
    high = np.array([float(value.mid()) for value in vector])
    low = np.array([float((value - flint.arb(float(value.mid()))).mid()) for value in vector])
    bias, bias_low = (float(high[d]), float(low[d])) if len(high) > d else (0.0, 0.0)
    distance = residuals(block.x, target, tuple(high[:d].tolist()), bias, low=block.low)
    distance = np.abs(distance - (block.x * low[:d]).sum(axis=1) - bias_low)
    sizes = np.abs(target) + (np.abs(block.x) * np.abs(high[:d])).sum(axis=1) + abs(bias)
    error = _PRODUCT_ERROR * (d + 2) * _UNIT**2 * sizes
    limit = _NEGLIGIBLE * (total + float((np.maximum(distance - error, 0.0) * weights).sum())) / n
    for i in np.flatnonzero(error * weights > limit):
        lower = np.zeros(d) if block.low is None else block.low[i]
        exact = (vector[d] if len(vector) > d else flint.arb(0)) - flint.arb(float(target[i]))
        for value, more, factor in zip(block.x[i].tolist(), lower.tolist(), vector, strict=False):
            exact += (flint.arb(value) + flint.arb(more)) * factor
        distance[i] = float(abs(exact).upper())
    return np.asarray(distance)


def _ball(value: Fraction) -> flint.arb:
    return flint.arb(flint.fmpq(value.numerator, value.denominator))
