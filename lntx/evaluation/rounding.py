"""How far rounding each entry of a table once can move each weight: the resolution that the table itself has.

First order, component by component, without a norm over rows or columns: with X⁺ the pseudoinverse and r the
residuals, weight j moves by at most u (Σᵢ |X⁺ⱼᵢ| (|yᵢ| + Σₖ |xᵢₖ wₖ|) + Σᵢₖ |(XᵀX)⁻¹ⱼₖ xᵢₖ rᵢ|) (Björck, Numerical
Methods for Least Squares Problems, 1996, section 1.4.5; Higham, Accuracy and Stability of Numerical Algorithms, 2002,
section 20.1). The ones of the bias are no entries. Powers of a column move together.
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
            left, sizes, _ = self._row_figures(block)
            if not (np.abs(left) <= 2 * _UNIT * sizes).all():
                return False
        return True

    def _row_figures(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return of each row r, |y| + Σ |x w|, and x as its entries move it, shape (n, d)."""
        d = block.x.shape[1]
        left = residuals(block.x, block.y, self._weights, self._bias or 0.0, low=block.low)
        moved = block.x * np.arange(1, d + 1) if self._dataset.degree > 1 else block.x
        return left, np.abs(block.y) + self._added(moved * np.array(self._weights)), moved

    def _added(self, terms: np.ndarray) -> np.ndarray:
        """Add up what the entries of each row move, shape (n,): powers of one entry move together."""
        added: np.ndarray = np.abs(terms.sum(axis=1)) if self._dataset.degree > 1 else np.abs(terms).sum(axis=1)
        return added

    def _pass(self, places: Sequence[int]) -> list[float]:
        inverse = self._inverse_rows(places)
        totals = [0.0] * len(places)
        for block in read_blocks(self._dataset):
            left, sizes, moved = self._row_figures(block)
            d = block.x.shape[1]
            for k, row in enumerate(inverse):
                high = np.array([float(value.mid()) for value in row])
                low = np.array([float((value - flint.arb(float(value.mid()))).mid()) for value in row])
                product = self._products_of(block, row, high, low, sizes, totals[k])
                totals[k] += float((product * sizes).sum() + (self._added(moved * high[:d]) * np.abs(left)).sum())
        return [min(self._unit * total, 1e300) for total in totals]

    def _products_of(
        self, block: Block, row: list[flint.arb], high: np.ndarray, low: np.ndarray, sizes: np.ndarray, total: float
    ) -> np.ndarray:
        """Return |X⁺ⱼᵢ| of each row of a block, the product of the row with row j of the inverse."""
        n, d = block.x.shape
        bias, bias_low = (float(high[d]), float(low[d])) if len(high) > d else (0.0, 0.0)
        product = residuals(block.x, np.zeros(n), tuple(high[:d].tolist()), bias, low=block.low)
        product = np.abs(product - (block.x * low[:d]).sum(axis=1) - bias_low)
        error = _PRODUCT_ERROR * (d + 2) * _UNIT**2 * ((np.abs(block.x) * np.abs(high[:d])).sum(axis=1) + abs(bias))
        limit = _NEGLIGIBLE * (total + float((np.maximum(product - error, 0.0) * sizes).sum())) / n
        for i in np.flatnonzero(error * sizes > limit):
            lower = np.zeros(d) if block.low is None else block.low[i]
            exact = row[d] if len(row) > d else flint.arb(0)
            for value, more, factor in zip(block.x[i].tolist(), lower.tolist(), row, strict=False):
                exact += (flint.arb(value) + flint.arb(more)) * factor
            product[i] = float(abs(exact).upper())
        return np.asarray(product)

    def _inverse_rows(self, places: Sequence[int]) -> list[list[flint.arb]]:
        """Return rows of (XᵀX)⁻¹ in balls."""
        p = self._num_coefficients
        entries = [[_ball(self._total.fraction(i, k)) for k in range(p)] for i in range(p)]
        solved = flint.arb_mat(entries).solve(flint.arb_mat([[1 if i == j else 0 for j in places] for i in range(p)]))
        return [[solved[i, k] for i in range(p)] for k in range(len(places))]


def _ball(value: Fraction) -> flint.arb:
    return flint.arb(flint.fmpq(value.numerator, value.denominator))
