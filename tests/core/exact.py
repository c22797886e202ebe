"""The least-squares solution in rational arithmetic: the oracle of the tests."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def least_squares(x: np.ndarray, y: np.ndarray, *, bias: bool) -> list[float]:
    """Solve the normal equations exactly; each coefficient rounded once, the bias last."""
    rows = [[*map(Fraction, row), *([Fraction(1)] if bias else [])] for row in x.tolist()]
    targets = [Fraction(value) for value in y.tolist()]
    p = len(rows[0])
    table = [
        [sum(row[i] * row[j] for row in rows) for j in range(p)]
        + [sum(row[i] * target for row, target in zip(rows, targets, strict=True))]
        for i in range(p)
    ]
    for i in range(p):
        for k in range(p):
            if k != i:
                factor = table[k][i] / table[i][i]
                table[k] = [a - factor * b for a, b in zip(table[k], table[i], strict=True)]
    return [float(table[i][p] / table[i][i]) for i in range(p)]
