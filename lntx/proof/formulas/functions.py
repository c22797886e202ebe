"""Functions of numbers that FLINT computes with a certified error, by torch's names.

Sources: the documentation of torch and torch.special; FLINT's manual (arb, arb_hypgeom).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import methodcaller

from flint import arb


def _half(x: arb) -> arb:
    return x / arb(2).sqrt()


_NONE = arb("nan")


def _polygamma(n: arb, x: arb) -> arb:
    sign = 2 * (int(float(n)) % 2) - 1
    return sign * (n + 1).gamma() * (n + 1).zeta(x)


ULPS = {"special_airy_ai": 64.0}
"""The error of torch's own function in unit roundoffs, where it is more than 16."""

FUNCTIONS: Mapping[str, Callable[..., arb]] = {
    **{name: methodcaller(name) for name in ("acos", "acosh", "asin", "asinh", "atan", "atanh", "cosh", "sinh", "tan")},
    **{name: methodcaller(name) for name in ("digamma", "erfc", "erfinv", "lgamma")},
    "exp2": lambda x: arb(2) ** x,
    "log2": lambda x: x.log() / arb(2).log(),
    "log10": lambda x: x.log() / arb(10).log(),
    "sinc": methodcaller("sinc_pi"),
    "i0": methodcaller("bessel_i", 0),
    "special_i0e": lambda x: x.bessel_i(0) * (-abs(x)).exp(),
    "special_i1": methodcaller("bessel_i", 1),
    "special_i1e": lambda x: x.bessel_i(1) * (-abs(x)).exp(),
    "special_bessel_j0": methodcaller("bessel_j", 0),
    "special_bessel_j1": methodcaller("bessel_j", 1),
    "special_bessel_y0": methodcaller("bessel_y", 0),
    "special_bessel_y1": methodcaller("bessel_y", 1),
    "special_modified_bessel_i0": methodcaller("bessel_i", 0),
    "special_modified_bessel_i1": methodcaller("bessel_i", 1),
    "special_modified_bessel_k0": methodcaller("bessel_k", 0),
    "special_modified_bessel_k1": methodcaller("bessel_k", 1),
    "special_scaled_modified_bessel_k0": lambda x: x.bessel_k(0) * x.exp(),
    "special_scaled_modified_bessel_k1": lambda x: x.bessel_k(1) * x.exp(),
    "special_airy_ai": methodcaller("airy_ai"),
    "special_erfcx": lambda x: (x * x).exp() * x.erfc(),
    "special_log_ndtr": lambda x: ((-_half(x)).erfc() / 2).log(),
    "special_ndtri": lambda p: arb(2).sqrt() * (2 * p - 1).erfinv(),
    "special_spherical_bessel_j0": methodcaller("sinc"),
    "atan2": arb.atan2,
    "hypot": lambda x, y: (x * x + y * y).sqrt(),
    "logaddexp": lambda x, y: (x.exp() + y.exp()).log(),
    "logaddexp2": lambda x, y: (arb(2) ** x + arb(2) ** y).log() / arb(2).log(),
    "polygamma": _polygamma,
    "special_zeta": lambda s, q: s.zeta(q) if s > 1 and q > 0 else _NONE,
    "igamma": lambda a, x: x.gamma_lower(a, 1) if a > 0 and x >= 0 else _NONE,
    "igammac": lambda a, x: x.gamma_upper(a, 1) if a > 0 and x >= 0 else _NONE,
    "special_xlog1py": lambda x, y: x * y.log1p() if x != 0 else arb(0),
    "xlogy": lambda x, y: x * y.log() if x != 0 else arb(0),
}
"""The function of each operator, of its arguments in the order of its schema."""
