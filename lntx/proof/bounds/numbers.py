"""Numbers that carry a bound: the true value of an expression, and how far any computed version of it may be from it.

The bounds are a-priori and hold for any order of summation:
- one operation: |fl(x) - x| <= u |x| (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 2.4);
- a sum of n terms: (n - 1) u sum |x| (Jeannerod and Rump, Improved error bounds for inner products, SIAM J. Matrix
  Anal. Appl. 34, 2013); a product of vectors: n u sum |a b| (the same, theorem 4.2). Both hold for every n.
A fused multiply-add only leaves roundings out. Errors of the inputs go through each operation by its derivative.

Two kinds of array hold the values: float64, for formats whose unit roundoff is 2^-24 or more, and balls of FLINT.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flint import arb, ctx

BALL_BITS = 300
"""Precision of the balls, in bits."""

# The error of float64 values, relative to a bound made of unit roundoffs of 2^-24 or more: 2^-29 for one operation,
# more for a chain of them. Also covers the rounding of the bounds themselves.
_MARGIN = 1 + 1e-6

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Format:
    """A floating-point format."""

    name: str
    """Its name in torch."""

    u: float
    """Unit roundoff: half the distance from 1 to the next number."""

    tiny: float
    """Largest error of a result below the normal numbers: float32 and float64 may be flushed to zero."""

    largest: float
    """Largest finite number."""


def _format(dtype: torch.dtype) -> Format:
    info = torch.finfo(dtype)
    tiny = 2.0**-24 if dtype == torch.float16 else info.tiny
    return Format(name=str(dtype).removeprefix("torch."), u=info.eps / 2, tiny=tiny, largest=info.max)


FORMATS: dict[torch.dtype, Format] = {
    dtype: _format(dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
}
"""The formats that have bounds."""

IN_FLOATS: dict[torch.dtype, Format] = {
    **FORMATS,
    torch.float64: dataclasses.replace(FORMATS[torch.float64], u=2 * FORMATS[torch.float64].u),
}
"""The same where float64 is computed in float64: the unit roundoff stands for the kernel's rounding and for ours."""

EXACT = Format(name="exact", u=0.0, tiny=0.0, largest=math.inf)
"""Arithmetic without rounding: copies, comparisons, whole numbers."""


def ball(value: float) -> arb:
    """Return a float as a ball without radius."""
    return arb(float(value))


_to_balls = np.frompyfunc(ball, 1, 1)
_upper = np.frompyfunc(lambda x: float(x.abs_upper()), 1, 1)
_middle = np.frompyfunc(float, 1, 1)


def as_balls(value: Array) -> Array:
    """Return an array of floats as an array of balls of the same shape."""
    ctx.prec = BALL_BITS
    return np.asarray(_to_balls(value), dtype=object).reshape(np.shape(value))


def magnitude(value: Array) -> Array:
    """Return an upper bound of |value|, float64."""
    return np.abs(value) if value.dtype != object else np.asarray(_upper(value), dtype=np.float64)


def middle(value: Array) -> Array:
    """Return the values as float64."""
    return value if value.dtype != object else np.asarray(_middle(value), dtype=np.float64)


def _by_element(on_float: Callable[[float], float]) -> Callable[[Array], Array]:
    elementwise = np.frompyfunc(on_float, 1, 1)
    return lambda value: np.asarray(elementwise(value), dtype=np.float64)


# Each elementary function: on float64 arrays, and the method of a ball.
_ON_FLOATS: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "erf": _by_element(math.erf),
}


def _apply(name: str, value: Array) -> Array:
    if value.dtype != object:
        return _ON_FLOATS[name](value)
    ctx.prec = BALL_BITS
    return np.asarray(np.frompyfunc(lambda x: getattr(x, name)(), 1, 1)(value), dtype=object).reshape(value.shape)


class Bounded:
    """Numbers and their bounds, arrays of one shape with at least one axis.

    (Numpy's arithmetic on an array without axes gives a ball, no array.)

    value: the true values, float64 or balls. error: bound of |any computed version - value|, float64. format: the
    format in which the next operation rounds.
    """

    __array_ufunc__ = None
    __slots__ = ("error", "format", "value")

    def __init__(self, value: Array, error: Array, format: Format) -> None:  # noqa: A002
        self.value = value
        self.error = error
        self.format = format

    @classmethod
    def exactly(cls, value: Array, format: Format) -> Bounded:  # noqa: A002
        """Return numbers that every version has to the bit."""
        return cls(value, np.zeros(np.shape(value)), format)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the arrays."""
        return np.shape(self.value)

    @property
    def size(self) -> Array:
        """Upper bound of the magnitude of any computed version."""
        return magnitude(self.value) + self.error

    def like(self, value: Array, error: Array) -> Bounded:
        """Return numbers of the same format without rounding."""
        return Bounded(value, error, self.format)

    def constant(self, number: float) -> Bounded:
        """Return a scalar of the program, float, as an operator of this format uses it."""
        value = np.array([float(number)])
        used = 0.0 if _holds(self.format, float(number)) else self.format.u * abs(number)
        return self.like(as_balls(value) if self.value.dtype == object else value, np.array([used]))

    def rounded(self, format: Format, times: int = 1) -> Bounded:  # noqa: A002
        """Round so many times to a format; a format that is finer than the present one rounds nothing."""
        error = self.error
        for _ in range(times):
            error = _after_rounding(self.value, error, format)
        return Bounded(self.value, error, self.format)

    def in_format(self, format: Format) -> Bounded:  # noqa: A002
        """Return the same numbers, to be computed with in another format."""
        return Bounded(self.value, self.error, format)

    def _round(self, value: Array, error: Array, times: float = 1.0) -> Bounded:
        return self.like(value, _after_rounding(value, error, self.format, times))

    def _of(self, other: Bounded | float) -> Bounded:
        return other if isinstance(other, Bounded) else self.constant(other)

    def __add__(self, other: Bounded | float) -> Bounded:
        other = self._of(other)
        return self._round(self.value + other.value, self.error + other.error)

    __radd__ = __add__

    def __sub__(self, other: Bounded | float) -> Bounded:
        other = self._of(other)
        return self._round(self.value - other.value, self.error + other.error)

    def __rsub__(self, other: float) -> Bounded:
        return self._of(other) - self

    def __neg__(self) -> Bounded:
        return self.like(-self.value, self.error)

    def __mul__(self, other: Bounded | float) -> Bounded:
        other = self._of(other)
        error = _cross(self.value, self.error, other.value, other.error)
        return self._round(self.value * other.value, error)

    __rmul__ = __mul__

    def __truediv__(self, other: Bounded | float) -> Bounded:
        """Divide; three roundings, since a kernel may multiply by the reciprocal."""
        other = self._of(other)
        value = self.value / other.value
        below = np.maximum(magnitude(other.value) - other.error, 0.0)
        error = (self.error + magnitude(value) * other.error) / below
        return self._round(value, np.where(self.error + other.error == 0, 0.0, error), 3)

    def __rtruediv__(self, other: float) -> Bounded:
        return self._of(other) / self

    def __getitem__(self, key: Any) -> Bounded:
        return self.like(self.value[key], self.error[key])

    def reshape(self, *shape: int) -> Bounded:
        """Return the numbers in another shape."""
        return self.like(self.value.reshape(*shape), self.error.reshape(*shape))

    def swap(self) -> Bounded:
        """Return the numbers with the last two axes exchanged."""
        return self.like(np.swapaxes(self.value, -1, -2), np.swapaxes(self.error, -1, -2))

    def exp(self, ulps: float = 4.0) -> Bounded:
        """Return e to these powers. ulps: error of the kernel's own function, in unit roundoffs."""
        value = _apply("exp", self.value)
        error = np.where(self.error == 0, 0.0, magnitude(value) * np.expm1(self.error))
        return self._round(value, error, ulps)

    def expm1(self) -> Bounded:
        """Return e to these powers, less 1."""
        value = _apply("expm1", self.value)
        error = np.where(self.error == 0, 0.0, (magnitude(value) + 1) * np.expm1(self.error))
        return self._round(value, error, 6)

    def log(self) -> Bounded:
        """Return the natural logarithms."""
        error = self.error / np.maximum(magnitude(self.value) - self.error, 0.0)
        return self._round(_apply("log", self.value), np.where(self.error == 0, 0.0, error), 4)

    def log1p(self) -> Bounded:
        """Return the natural logarithms of 1 + x."""
        error = self.error / np.maximum(1 + middle(self.value) - self.error, 0.0)
        return self._round(_apply("log1p", self.value), np.where(self.error == 0, 0.0, error), 4)

    def sqrt(self) -> Bounded:
        """Return the square roots; of a negative number within its error of 0, 0."""
        value = _apply("sqrt", self.value)
        by_slope = self.error / magnitude(value)
        error = np.where(self.error == 0, 0.0, np.fmin(by_slope, np.sqrt(self.error)))
        return self._round(value, error, 2)

    def rsqrt(self) -> Bounded:
        """Return 1 / sqrt(x)."""
        value = 1 / _apply("sqrt", self.value)
        error = 0.5 * self.error / np.maximum(magnitude(self.value) - self.error, 0.0) ** 1.5
        return self._round(value, np.where(self.error == 0, 0.0, error), 5)

    def tanh(self) -> Bounded:
        """Return the hyperbolic tangents."""
        return self._round(_apply("tanh", self.value), self.error, 8)

    def sigmoid(self) -> Bounded:
        """Return 1 / (1 + exp(-x)); its slope is at most 1/4."""
        value = 1 / (1 + _apply("exp", -self.value))
        # Relative to the value, too: exp(-x) turns an error e of x into a factor exp(e).
        error = np.fmin(0.25 * self.error, magnitude(value) * np.expm1(self.error))
        return self._round(value, error, 10)

    def sin(self) -> Bounded:
        """Return the sines."""
        return self._round(_apply("sin", self.value), self.error, 4)

    def cos(self) -> Bounded:
        """Return the cosines."""
        return self._round(_apply("cos", self.value), self.error, 4)

    def erf(self) -> Bounded:
        """Return the error functions; the kernels' own error is absolute, 8 unit roundoffs."""
        return self.like(_apply("erf", self.value), 1.1284 * self.error + 8 * self.format.u + self.format.tiny)

    def abs(self) -> Bounded:
        """Return the absolute values."""
        return self.like(abs(self.value), self.error)

    def square(self) -> Bounded:
        """Return x times x."""
        return self * self

    def power(self, exponent: float) -> Bounded:
        """Return x to a whole or half power."""
        if exponent in (1, 2):
            return self if exponent == 1 else self.square()
        if exponent == 0.5:
            return self.sqrt()
        if exponent == -0.5:
            return self.rsqrt()
        if exponent in (3, 4):
            squared = self.square()
            return squared * (self if exponent == 3 else squared)
        if exponent == -1:
            return 1.0 / self
        return apply(pow, self, self.constant(exponent))

    def sum(self, axis: int | tuple[int, ...] = -1, terms: Array | None = None) -> Bounded:
        """Add along axes, in any order. terms: number of terms other than zeros, where there are fewer."""
        # A sum of no balls is to be a ball, too.
        value = self.value.sum(axis=axis) + (arb(0) if self.value.dtype == object else 0.0)
        value = np.atleast_1d(np.asarray(value, dtype=self.value.dtype))
        axes = (axis,) if isinstance(axis, int) else axis
        count = terms if terms is not None else math.prod(self.shape[dim] for dim in axes)
        rounding = np.maximum(count - 1, 0)
        error = self.error.sum(axis=axis) + rounding * (self.format.u * self.size.sum(axis=axis) + self.format.tiny)
        return self.like(value, np.atleast_1d(error))

    def mean(self, axis: int | tuple[int, ...] = -1) -> Bounded:
        """Add along axes and divide by the number of terms."""
        axes = (axis,) if isinstance(axis, int) else axis
        return self.sum(axis) / float(math.prod(self.shape[dim] for dim in axes))

    def where(self, condition: Array, other: Bounded | float) -> Bounded:
        """Return these numbers where the condition holds, and others elsewhere."""
        other = self._of(other)
        return self.like(np.where(condition, self.value, other.value), np.where(condition, self.error, other.error))

    def or_form(self, other: Bounded) -> Bounded:
        """Return the same value with the larger bound, where kernels use one of two algebraic forms."""
        return self.like(self.value, np.maximum(self.error, other.error))

    def widened(self, by: Array) -> Bounded:
        """Return the same value with a term added to the bound."""
        return self.like(self.value, self.error + by)

    def __matmul__(self, other: Bounded) -> Bounded:
        """Return the matrix product, in any order of summation. Shapes (..., m, n) and (..., n, p)."""
        terms = self.shape[-1]
        left = magnitude(self.value)
        value = self.value @ other.value
        error = terms * (self.format.u * (self.size @ other.size) + self.format.tiny)
        if self.error.any():
            error = error + self.error @ other.size
        if other.error.any():
            error = error + left @ other.error
        return self.like(value, error)

    def share(self, got: Array) -> Array:
        """Return |got - value| / error: at most 1 for any right version. got: float64, as computed.

        Not a number where nothing can be said: the bound, or the true value, is not finite.
        """
        if self.value.dtype == object:
            distance = np.asarray(_distance(as_balls(got), self.value), dtype=np.float64).reshape(np.shape(got))
        else:
            distance = np.abs(got - self.value)
        allowed = self.error * _MARGIN
        centre = middle(self.value)
        with np.errstate(all="ignore"):
            share = np.where((distance == 0) & (allowed == 0), 0.0, distance / allowed)
            overflows = np.where(got > 0, centre, -centre) + self.error >= self.format.largest
            overflows &= np.isinf(got)
        is_same = (np.isinf(got) & (got == centre)) | (np.isnan(got) & np.isnan(centre)) | overflows
        # Where nothing is rounded, an infinite number or none is as certain as any.
        is_unknown = ~np.isfinite(allowed) | (~np.isfinite(centre) & bool(self.error.any()))
        share = np.where(np.isnan(share), np.inf, share)
        return np.where(is_same, 0.0, np.where(is_unknown, np.nan, share))


def apply(function: Callable[..., arb], *arguments: Bounded, ulps: float = 16.0) -> Bounded:
    """Return a function of FLINT of numbers, element by element.

    ulps: error of the kernel's own function, in unit roundoffs of each argument and of the value. Where the function
    has no finite value, nothing is known.
    """
    ctx.prec = BALL_BITS
    first = arguments[0]
    unit, tiny = first.format.u, first.format.tiny
    slack = [number.error + ulps * unit * magnitude(number.value) for number in arguments]

    def at(*pairs: Any) -> tuple[arb, float]:
        centres, radii = [arb(x) for x in pairs[::2]], [float(radius) for radius in pairs[1::2]]
        value = function(*centres)
        widened = function(*(x + arb(0, radius) if radius else x for x, radius in zip(centres, radii, strict=True)))
        spread = float((widened - value).abs_upper())
        return value, spread + ulps * unit * float(value.abs_upper()) + tiny

    flat = [array for number, radius in zip(arguments, slack, strict=True) for array in (number.value, radius)]
    value, error = np.frompyfunc(at, len(flat), 2)(*flat)
    error = np.asarray(error, dtype=np.float64)
    is_known = np.isfinite(middle(value)) & np.isfinite(error)
    return first.like(value if first.value.dtype == object else middle(value), np.where(is_known, error, np.inf))


def _holds(kind: Format, number: float) -> bool:
    """Return whether a format holds a number without rounding, as float64 and float32 do with most scalars."""
    if kind.u <= FORMATS[torch.float64].u or not math.isfinite(number):
        return True
    return kind.u == FORMATS[torch.float32].u and abs(number) <= kind.largest and float(np.float32(number)) == number


def _lower_distance(left: arb, right: arb) -> float:
    distance = (left - right).abs_lower()
    return float(distance)


_distance = np.frompyfunc(_lower_distance, 2, 1)


def _cross(left: Array, left_error: Array, right: Array, right_error: Array) -> Array:
    """Return |a| e_b + |b| e_a + e_a e_b; 0 where both are exact, infinite numbers included."""
    error = magnitude(left) * right_error + magnitude(right) * left_error + left_error * right_error
    return np.where((left_error == 0) & (right_error == 0), 0.0, error)


def _after_rounding(value: Array, error: Array, format: Format, times: float = 1.0) -> Array:  # noqa: A002
    if format.u == 0:
        return error
    size = magnitude(value) + error
    return np.where(np.isfinite(size), error + times * format.u * size + format.tiny, error)
