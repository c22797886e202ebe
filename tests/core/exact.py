"""The least-squares solution in rational arithmetic: the oracle of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np


def least_squares(x: np.ndarray, y: np.ndarray, *, bias: bool) -> list[float]:
    """Solve the normal equations exactly; each coefficient rounded once, the bias last."""
    rows = [[*map(Fraction, row), *([Fraction(1)] if bias else [])] for row in x.tolist()]
    return solve_rows(rows, y.tolist())


def polynomial(x: Sequence[float], y: Sequence[float], degree: int) -> list[float]:
    """The least-squares polynomial, constant first, each coefficient rounded once."""
    return solve_rows([[Fraction(value) ** k for k in range(degree + 1)] for value in x], y)


def solve_rows(rows: Sequence[Sequence[Fraction]], y: Sequence[float]) -> list[float]:
    """Solve the normal equations of rows of fractions."""
    targets = [Fraction(value) for value in y]
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
