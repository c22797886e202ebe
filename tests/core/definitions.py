"""Operators of torch by their definitions, as plain loops over balls of 300 bits; gradients are finite differences.

The truth of test_formulas.py. Knows nothing of lntx.proof and of torch's kernels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flint import arb

Array = np.ndarray[Any, Any]
Truth = Callable[..., Any]


def balls(nested: Any) -> Array:
    array = np.array(nested, dtype=object)
    found = np.empty(array.shape, dtype=object)
    for index in np.ndindex(array.shape):
        found[index] = arb(array[index])
    return found


def zeros(shape: Sequence[int]) -> Array:
    return balls(np.zeros(shape))


def total(values: Any) -> arb:
    return sum(values, arb(0))


def product_of(values: Any) -> arb:
    return math.prod(values, start=arb(1))


# One number from numbers.


def each(function: Callable[..., Any], *names: str) -> Truth:
    """Return a definition for whole arrays from one for numbers."""

    def truth(**a: Any) -> Array:
        given = [arb(a[name]) if isinstance(a[name], int | float) else a[name] for name in names]
        return np.asarray(np.frompyfunc(function, len(names), 1)(*given), dtype=object)

    return truth


def truncated(x: arb) -> arb:
    return x.floor() if x > 0 else x.ceil()


def exp(x: arb) -> arb:
    """The series, at x / 256."""
    term, found = arb(1), arb(1)
    for k in range(1, 60):
        term *= x / 256 / k
        found += term
    return found**256


def series(x: arb, coefficient: Callable[[int], arb], start: int) -> arb:
    """Return the sum of (-1)^k coefficient(k) x^(2 k + start)."""
    return total((-1) ** k * coefficient(k) * x ** (2 * k + start) for k in range(90))


def sin(x: arb) -> arb:
    return series(x, lambda k: 1 / arb(math.factorial(2 * k + 1)), 1)


def cos(x: arb) -> arb:
    return series(x, lambda k: 1 / arb(math.factorial(2 * k)), 0)


def erf(x: arb) -> arb:
    return series(x, lambda k: 2 / arb.pi().sqrt() / math.factorial(k) / (2 * k + 1), 1)


def log(x: arb) -> arb:
    return 2 * ((x - 1) / (x + 1)).atanh()


def tanh(x: arb) -> arb:
    return 1 - 2 / (exp(2 * x) + 1)


def sigmoid(x: arb) -> arb:
    return exp(x) / (exp(x) + 1)


def gelu(x: arb) -> arb:
    return x * (1 + erf(x / arb(2).sqrt())) / 2


def gelu_tanh(x: arb) -> arb:
    return x / 2 * (1 + tanh((2 / arb.pi()).sqrt() * (x + arb(0.044715) * x**3)))


def leaky(x: arb, below: arb) -> arb:
    return x if x > 0 else x * below


def elu(x: arb, alpha: arb, scale: arb, inner: arb) -> arb:
    return scale * (x if x > 0 else alpha * (exp(x * inner) - 1))


def softplus(x: arb, beta: arb, threshold: arb) -> arb:
    return x if x * beta > threshold else log(1 + exp(beta * x)) / beta


def clamp(x: arb, low: arb | None, high: arb | None) -> arb:
    x = low if low is not None and x < low else x
    return high if high is not None and x > high else x


def squared(away: arb, _: float) -> arb:
    return away**2


def huber(away: arb, delta: float) -> arb:
    return away**2 / 2 if abs(away) < delta else arb(delta) * (abs(away) - arb(delta) / 2)


def smooth_l1(away: arb, beta: float) -> arb:
    return away**2 / 2 / arb(beta) if abs(away) < beta else abs(away) - arb(beta) / 2


def reduced(losses: Array, reduction: int) -> Array:
    if reduction == 0:
        return losses
    return balls(total(losses.flat) / (losses.size if reduction == 1 else 1))


def distance(function: Callable[[arb, float], arb], delta: str = "") -> Truth:
    def truth(self: Array, target: Array, reduction: int = 1, **a: Any) -> Array:
        return reduced(
            np.asarray(np.frompyfunc(lambda x: function(x, a.get(delta, 1)), 1, 1)(self - target)), reduction
        )

    return truth


def cross_entropy(self: Array, target: Array, reduction: int, **_: Any) -> Array:
    losses = [-t * log(sigmoid(x)) - (1 - t) * log(1 - sigmoid(x)) for x, t in zip(self.flat, target.flat, strict=True)]
    return reduced(balls(losses).reshape(self.shape), reduction)


# Gradients.


def gradient(forward: Truth, *of: str, grad: str = "grad_output", start: Truth | None = None) -> Truth:
    """Return the derivatives of sum(grad forward(...)) by some arguments, by central differences.

    start: makes the first argument out of the others, where the operator has the result of forward instead.
    """
    step = arb(2) ** -80

    def truth(**a: Any) -> list[Any]:
        if start is not None:
            a[of[0]] = start(**a)

        def loss(name: str, index: tuple[int, ...], by: arb) -> arb:
            moved = a[name].copy()
            moved[index] += by
            out = forward(**{**a, name: moved})
            outs, grads = ([out], [a[grad]]) if isinstance(out, np.ndarray) else (out, a[grad])
            return total(
                x * y for o, g in zip(outs, grads, strict=True) for x, y in zip(np.ravel(o), np.ravel(g), strict=True)
            )

        found = []
        for name in of:
            slopes = None if a[name] is None else zeros(a[name].shape)
            for index in np.ndindex(() if slopes is None else slopes.shape):
                if slopes is not None:
                    slopes[index] = (loss(name, index, step) - loss(name, index, -step)) / (2 * step)
            found.append(slopes)
        return found

    return truth


# Sums along axes, and products.


def along(function: Callable[..., Any]) -> Truth:
    def truth(self: Array, dim: Any = None, **a: Any) -> Any:
        dims = [dim] if isinstance(dim, int) else dim or range(self.ndim)
        dims = [one % self.ndim for one in dims]
        groups: dict[Any, list[arb]] = {}
        for index in np.ndindex(self.shape):
            groups.setdefault(tuple(i for k, i in enumerate(index) if k not in dims), []).append(self[index])
        found = [function(group, **a) for group in groups.values()]
        several = isinstance(found[0], tuple)
        return [balls(one) for one in zip(*found, strict=True)] if several else balls(found)

    return truth


def variance(x: list[arb], correction: int = 1, **_: Any) -> arb:
    """Half the mean of the squared differences of all pairs."""
    return total((a - b) ** 2 for a in x for b in x) / (2 * len(x) * (len(x) - correction))


def slices(function: Callable[[list[arb]], list[arb]], name: str = "self") -> Truth:
    """Return a definition that maps each slice along dim."""

    def truth(dim: int, **a: Any) -> Array:
        moved = np.moveaxis(a[name], dim, -1)
        found = zeros(moved.shape)
        for index in np.ndindex(moved.shape[:-1]):
            found[index] = function(list(moved[index]))
        return np.moveaxis(found, -1, dim)

    return truth


def softmax(x: list[arb]) -> list[arb]:
    return [1 / total(exp(b - a) for b in x if b.is_finite()) if a.is_finite() else arb(0) for a in x]


def product(self: Array, mat2: Array) -> Array:
    left, right = self, mat2
    found = zeros((*left.shape[:-1], right.shape[-1]))
    for *batch, i, j in np.ndindex(found.shape):
        found[*batch, i, j] = total(left[*batch, i, k] * right[*batch, k, j] for k in range(left.shape[-1]))
    return found


def embedding_rows(weight: Array, indices: Array, padding_idx: int, **_: Any) -> Array:
    """The rows of the tokens; of the padding, a row that depends on nothing."""
    found = zeros((*indices.shape, weight.shape[1]))
    for index in np.ndindex(indices.shape):
        if indices[index] != padding_idx:
            found[index] = weight[indices[index]]
    return found


def put(self: Array, indices: list[Any], values: Array, mask: Array | None = None, **_: Any) -> Array:
    """Add values at indexes of the last axes; None in front stands for the whole first axis."""
    found, wholes = self.copy(), [range(n) for n, one in zip(self.shape, indices, strict=False) if one is None]
    named = np.broadcast_arrays(*(one for one in indices if one is not None))
    for place in np.ndindex(named[0].shape):
        if mask is None or mask[place]:
            for before in itertools.product(*wholes):
                at = (*before, *(int(one[place]) for one in named))
                rest = np.broadcast_to(values, (*(len(one) for one in wholes), *named[0].shape, *self.shape[len(at) :]))
                found[at] = found[at] + rest[*before, *place]
    return found


def index_add(self: Array, dim: int, index: Array, source: Array, alpha: float = 1, **_: Any) -> Array:
    found = self.copy()
    for place in np.ndindex(source.shape):
        at = list(place)
        at[dim] = index[place[dim]]
        found[tuple(at)] += source[place] * arb(alpha)
    return found


def scattered(self: Array, dim: int, index: Array, src: Any, add: bool) -> Array:
    found = self.copy()
    for place in np.ndindex(index.shape):
        at = list(place)
        at[dim] = index[place]
        value = src[place] if isinstance(src, np.ndarray) else src
        found[tuple(at)] = found[tuple(at)] + value if add else value
    return found


# Losses of classes.


def likelihood(self: Array, target: Array, weight: Any, reduction: int, ignore_index: int, **_: Any) -> list[Array]:
    at = [(*p[:1], int(target[p]), *p[1:]) for p in np.ndindex(target.shape)]
    counts = [target[p] != ignore_index for p in np.ndindex(target.shape)]
    shares = [
        arb(int(c)) * (weight[int(t)] if c and weight is not None else 1)
        for t, c in zip(target.flat, counts, strict=True)
    ]
    losses = [-self[place] * share if c else arb(0) for place, share, c in zip(at, shares, counts, strict=True)]
    if reduction == 0:
        return [balls(losses).reshape(target.shape)]
    return [balls(total(losses) / (total(shares) if reduction == 1 else 1)), balls(total(shares))]
