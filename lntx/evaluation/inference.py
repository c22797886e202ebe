"""Tests and intervals of a least-squares fit: what R's summary(lm) prints beside the estimates.

The tail probabilities are regularised incomplete beta functions, which FLINT encloses.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95
"""Confidence level of the intervals."""

_BITS, _MOST_BITS = 100, 2**11
# Logarithm of a number that float64 cannot hold.
_UNDERFLOW = -750.0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One row of the table of coefficients; None where nothing is left to estimate the noise."""

    name: str
    """The feature, or "bias"."""

    estimate: float
    """Value in the exact least-squares solution."""

    standard_error: float | None
    """Standard error."""

    t: float | None
    """Estimate divided by its standard error; None if that is 0."""

    p: float | None
    """Probability of a |t| this large or larger if the coefficient is 0."""

    low: float | None
    """Lower end of the 95 % confidence interval."""

    high: float | None
    """Upper end of the 95 % confidence interval."""


def estimates(
    names: Sequence[str], values: Sequence[float], errors: Sequence[float | None], freedom: int
) -> list[Estimate]:
    """Return the table of coefficients. freedom: residual degrees of freedom."""
    rows = []
    for name, value, error in zip(names, values, errors, strict=True):
        t = value / error if error else None
        reach = None if error is None else t_quantile((1 + LEVEL) / 2, freedom) * error
        rows.append(
            Estimate(
                name=name,
                estimate=value,
                standard_error=error,
                t=t,
                p=None if t is None else t_tail(t, freedom),
                low=None if reach is None else value - reach,
                high=None if reach is None else value + reach,
            )
        )
    return rows


def t_tail(t: float, freedom: int) -> float:
    """Return P(|T| >= |t|) of Student's t with some degrees of freedom, 1 or more (Abramowitz and Stegun, 26.7.1)."""
    return _beta(freedom, t * t, freedom / 2, 0.5)


def f_tail(f: float, first: int, second: int) -> float:
    """Return P(F >= f) of Fisher's F with some degrees of freedom (26.6.2 of Abramowitz and Stegun)."""
    return _beta(second, first * f, second / 2, first / 2)


@functools.lru_cache(maxsize=64)
def t_quantile(probability: float, freedom: int) -> float:
    """Return t with P(T <= t) = probability, 0.5 < probability < 1, by bisection."""
    # Imported here: a list of runs must not pay for it.
    from statistics import NormalDist

    low = NormalDist().inv_cdf(probability)
    high = 2 * low
    while t_tail(high, freedom) > 2 * (1 - probability):
        high *= 2
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return middle
        low, high = (middle, high) if t_tail(middle, freedom) > 2 * (1 - probability) else (low, middle)


def _beta(part: float, rest: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) at x = part / (part + rest), to 53 bits."""
    import flint

    if _log_bound(part / (part + rest), a, b) < _UNDERFLOW:
        return 0.0
    bits = _BITS
    while True:
        with flint.ctx.workprec(bits):
            whole = flint.arb(part) + flint.arb(rest)
            if rest < part:
                # I_x(a, b) = 1 - I_(1-x)(b, a): near 1 the function is hard to compute.
                probability = 1 - (flint.arb(rest) / whole).beta_lower(b, a, regularized=True)
            else:
                probability = (flint.arb(part) / whole).beta_lower(a, b, regularized=True)
            if probability.rel_accuracy_bits() >= 53 or bits > _MOST_BITS:
                return float(probability)
        bits *= 2


def _log_bound(x: float, a: float, b: float) -> float:
    """Return an upper bound of log I_x(a, b): the series 8.17.8 of the DLMF as a geometric one; 0 where it grows."""
    ratio = x * (a + b) / (a + 1)
    if x == 0:
        return -math.inf
    if ratio >= 1 or x >= 1:
        return 0.0
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return a * math.log(x) + b * math.log1p(-x) - math.log(a) - log_beta - math.log1p(-ratio)
