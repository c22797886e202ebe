"""The powers of a feature to 31 digits: with x^10 rounded to float64, the weights of a polynomial have only 7 digits.

Pure numerics, without files.
"""

from __future__ import annotations

import numpy as np

from lntx.numerics.doubledouble import two_product, two_sum


def powers(x: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute x, x², …, x^degree.

    x: shape (n,), float64.

    Returns: the powers rounded to float64 and their rounding errors, shape (n, degree) each, column-major.
    """
    high, low = np.empty((len(x), degree), order="F"), np.zeros((len(x), degree), order="F")
    high[:, 0] = x
    # Overflow is refused later, with a clear message.
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(1, degree):
            product, error = two_product(high[:, k - 1], x)
            high[:, k], low[:, k] = two_sum(product, error + low[:, k - 1] * x)
    return high, low


def power_names(name: str, degree: int) -> tuple[str, ...]:
    """Return the names of the powers: x, x^2, …"""
    return (name, *(f"{name}^{k}" for k in range(2, degree + 1)))
