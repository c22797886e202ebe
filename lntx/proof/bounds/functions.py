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


def _nothing_times(y: arb) -> arb:
    """Return 0 times a logarithm: 0 even of 0, but no number if y is none."""
    return _NONE if y.is_nan() else arb(0)


def _polygamma(n: arb, x: arb) -> arb:
    sign = 2 * (int(float(n)) % 2) - 1
    return sign * (n + 1).gamma() * (n + 1).zeta(x)


def _polynomial(first: Callable[[arb], arb], step: Callable[[int, arb, arb, arb], arb]) -> Callable[[arb, arb], arb]:
    """Return orthogonal polynomials of x and degree. step: of k, x, P_k and P_(k-1), gives P_(k+1) (DLMF 18.9)."""

    def polynomial(x: arb, degree: arb) -> arb:
        count = int(float(degree))
        if count > _MOST_DEGREES:
            return _NONE
        before, value = arb(0 if count < 0 else 1), first(x)
        for k in range(1, count):
            before, value = value, step(k, x, value, before)
        return value if count > 0 else before

    return polynomial


def _chebyshev(first: Callable[[arb], arb], *, is_shifted: bool) -> Callable[[arb, arb], arb]:
    polynomial = _polynomial(first, lambda k, x, value, before: 2 * x * value - before)
    return (lambda x, degree: polynomial(2 * x - 1, degree)) if is_shifted else polynomial


_MOST_DEGREES = 100
_CHEBYSHEV: Mapping[str, Callable[[arb], arb]] = {
    "t": lambda x: x,
    "u": lambda x: 2 * x,
    "v": lambda x: 2 * x - 1,
    "w": lambda x: 2 * x + 1,
}

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
    **{f"special_chebyshev_polynomial_{kind}": _chebyshev(f, is_shifted=False) for kind, f in _CHEBYSHEV.items()},
    **{
        f"special_shifted_chebyshev_polynomial_{kind}": _chebyshev(f, is_shifted=True) for kind, f in _CHEBYSHEV.items()
    },
    "special_hermite_polynomial_h": _polynomial(lambda x: 2 * x, lambda k, x, p, q: 2 * (x * p - k * q)),
    "special_hermite_polynomial_he": _polynomial(lambda x: x, lambda k, x, p, q: x * p - k * q),
    "special_laguerre_polynomial_l": _polynomial(
        lambda x: 1 - x, lambda k, x, p, q: ((2 * k + 1 - x) * p - k * q) / (k + 1)
    ),
    "special_legendre_polynomial_p": _polynomial(
        lambda x: x, lambda k, x, p, q: ((2 * k + 1) * x * p - k * q) / (k + 1)
    ),
    "atan2": arb.atan2,
    "hypot": lambda x, y: (x * x + y * y).sqrt(),
    "logaddexp": lambda x, y: (x.exp() + y.exp()).log(),
    "logaddexp2": lambda x, y: (arb(2) ** x + arb(2) ** y).log() / arb(2).log(),
    "polygamma": _polygamma,
    "special_zeta": lambda s, q: s.zeta(q) if s > 1 and q > 0 else _NONE,
    "igamma": lambda a, x: x.gamma_lower(a, 1) if a > 0 and x >= 0 else _NONE,
    "igammac": lambda a, x: x.gamma_upper(a, 1) if a > 0 and x >= 0 else _NONE,
    "special_xlog1py": lambda x, y: _nothing_times(y) if x == 0 else x * y.log1p(),
    "xlogy": lambda x, y: _nothing_times(y) if x == 0 else x * y.log(),
}
"""The function of each operator, of its arguments in the order of its schema."""
