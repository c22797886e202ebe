"""Double-double arithmetic: a number as the unevaluated sum of two float64, about 31 digits.

Uses only + - *, so that it works for numpy arrays and torch tensors.
"""

from __future__ import annotations

from typing import Any

# 2^27 + 1 splits a float64 into two halves of 26 bits (Veltkamp; Dekker, A floating-point technique, 1971).
_SPLITTER = 134217729.0


def two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the rounded sum of float64 arrays and its error (Knuth, The Art of Computer Programming, volume 2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def two_product(a: Any, b: Any) -> tuple[Any, Any]:
    """Return the rounded product of float64 arrays and its error (Dekker, 1971); exact without over- or underflow."""
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _split(a: Any) -> tuple[Any, Any]:
    scaled = _SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high
