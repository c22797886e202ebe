"""Whether numbers are the extreme eigenvalues of a symmetric matrix, by counting signs (Sylvester's law of inertia).

Eliminates in decimal arithmetic: no library's eigensolver is asked about another's.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np


def is_largest(matrix: np.ndarray, value: float, tolerance: float) -> bool:
    """Whether the largest eigenvalue is that, to a relative tolerance. matrix: Decimal, shape (p, p)."""
    above, below = Decimal(value * (1 + tolerance)), Decimal(value * (1 - tolerance))
    identity = np.array([[Decimal(int(i == j)) for j in range(len(matrix))] for i in range(len(matrix))])
    return _is_positive_definite(above * identity - matrix) and not _is_positive_definite(below * identity - matrix)


def is_smallest(matrix: np.ndarray, value: float, tolerance: float) -> bool:
    """Whether the smallest eigenvalue is that, to an absolute tolerance. matrix: Decimal, shape (p, p)."""
    above, below = Decimal(value + tolerance), Decimal(value - tolerance)
    identity = np.array([[Decimal(int(i == j)) for j in range(len(matrix))] for i in range(len(matrix))])
    return _is_positive_definite(matrix - below * identity) and not _is_positive_definite(matrix - above * identity)


def _is_positive_definite(matrix: np.ndarray) -> bool:
    rows = matrix.copy()
    for i in range(len(rows)):
        if not rows[i, i] > 0:
            return False
        for j in range(i + 1, len(rows)):
            rows[j, i:] = rows[j, i:] - rows[j, i] / rows[i, i] * rows[i, i:]
    return True
