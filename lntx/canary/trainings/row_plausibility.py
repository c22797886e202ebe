"""Check drawn rows against their distribution, in Python's numbers, without numpy's arithmetic.

Checks only the first rows: a wrong generator is wrong from the start.
"""

from __future__ import annotations

import math
from fractions import Fraction

from lntx.config.schema import Data
from lntx.data.synthetic import feature_names, generate_blocks

_ROWS = 400
# Standard deviations: a normal variable exceeds them once in 10^15.
_SPREADS = 8.0


def implausible_rows(data: Data) -> str | None:
    """Return a clause that says what is wrong with the drawn rows, or None if nothing is."""
    weights = data.true_weights
    assert weights is not None
    x, y = next(iter(generate_blocks(data)))
    rows = [[float(value) for value in row] for row in x[:_ROWS].tolist()]
    targets = [float(value) for value in y[:_ROWS].tolist()]
    return _features(rows, data) or _targets(rows, targets, weights, data)


def _features(rows: list[list[float]], data: Data) -> str | None:
    names = feature_names(len(rows[0]))
    columns = [*zip(*rows, strict=True)]
    middle, spread = (data.low + data.high) / 2, (data.high - data.low) / 6
    reach = _SPREADS * spread if data.distribution == "normal" else (data.high - data.low) / 2
    for j, (name, column) in enumerate(zip(names, columns, strict=True)):
        for row, value in enumerate(column, start=1):
            if not abs(value - middle) <= reach or (data.distribution == "integers" and value != math.floor(value)):
                return f"row {row} was drawn with {name} = {value!r}, which {data.distribution} rows do not have"
        if len(set(column)) == 1 and data.low < data.high and len(column) > _SPREADS:
            return f"{name} was drawn as {column[0]!r} in every row"
        twin = next((names[k] for k in range(j) if columns[k] == column and len(column) > _SPREADS), None)
        if twin is not None:
            return f"{name} was drawn just like {twin}"
    return None


def _targets(rows: list[list[float]], targets: list[float], weights: tuple[float, ...], data: Data) -> str | None:
    exact = [Fraction(weight) for weight in weights]
    errors = []
    for number, (row, target) in enumerate(zip(rows, targets, strict=True), start=1):
        if not math.isfinite(target):
            return f"row {number} was drawn with y = {target!r}"
        terms = [weight * Fraction(value) for weight, value in zip(exact, row, strict=True)]
        errors.append(float(Fraction(target) - sum(terms, Fraction(data.bias))))
        # Each product and each sum rounds once.
        size = float(sum(map(abs, terms), Fraction(abs(data.bias))))
        allowed = (2 * len(terms) + 2) * 2.0**-53 * (size + abs(target)) + _SPREADS * data.noise
        if not abs(errors[-1]) <= allowed:
            return f"row {number} was drawn with y = {target!r}, {errors[-1]:.3g} from what its features give"
    if data.noise == 0:
        return None
    count = len(errors)
    mean, square = math.fsum(errors) / count, math.fsum(error**2 for error in errors) / count
    if not abs(mean) <= _SPREADS * data.noise / math.sqrt(count):
        return f"the noise was drawn with mean {mean:.3g} and standard deviation {math.sqrt(square):.3g}"
    # The variance of a mean of squares of normal numbers is 2 / count.
    if not abs(square / data.noise**2 - 1) <= _SPREADS * math.sqrt(2 / count) * (1 + _SPREADS / math.sqrt(count)):
        return f"the noise was drawn with standard deviation {math.sqrt(square):.3g}, not {data.noise:.3g}"
    return None
