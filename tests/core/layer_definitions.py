"""Layers of torch by their definitions, as plain loops over balls: part of the truth of test_formulas.py."""

# ruff: noqa: A002, N803 - the names of the arguments are those of torch.

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from definitions import Array, Truth, balls, exp, log, sigmoid, tanh, total, zeros
from flint import arb

# Normalisation.


def normalised(
    x: Array, group_of: Truth, weight_of: Truth, weight: Any, bias: Any, eps: float, *, centred: bool = True
) -> list[Any]:
    """Return out, and the mean and the reciprocal deviation of each group."""
    groups: dict[Any, list[arb]] = {}
    for index in np.ndindex(x.shape):
        groups.setdefault(group_of(*index), []).append(x[index])
    means = {key: total(one) / len(one) if centred else arb(0) for key, one in groups.items()}
    squares = {key: total(v * v for v in one) / len(one) - means[key] ** 2 for key, one in groups.items()}
    scales = {key: 1 / (one + arb(eps)).sqrt() for key, one in squares.items()}
    found = zeros(x.shape)
    for index in np.ndindex(x.shape):
        key, at = group_of(*index), weight_of(*index)
        value = (x[index] - means[key]) * scales[key]
        found[index] = value * (1 if weight is None else weight[at]) + (0 if bias is None else bias[at])
    order = sorted(groups)
    return [found, balls([means[key] for key in order]), balls([scales[key] for key in order]), squares]


def layer_norm(
    input: Array, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, **_: Any
) -> Any:
    outer = input.ndim - len(normalized_shape)
    return normalised(input, lambda *i: i[:outer], lambda *i: i[outer:], weight, bias, eps)[:3]


def rms_norm(input: Array, normalized_shape: Any, weight: Any, eps: float | None) -> Any:
    eps = 2.0**-52 if eps is None else eps
    return normalised(input, lambda *i: i[:-1], lambda *i: i[-1:], weight, None, eps, centred=False)[:1]


def group_norm(input: Array, weight: Any, C: int, group: int, bias: Any = None, eps: float = 1e-5, **_: Any) -> Any:
    return normalised(input, lambda n, c, *_: (n, c // (C // group)), lambda n, c, *_: (c,), weight, bias, eps)[:3]


def batch_norm(input: Array, weight: Any, eps: float, bias: Any = None, momentum: float = 0.1, **a: Any) -> Any:
    if not a.get("training", a.get("train")):
        mean, var, found = a["running_mean"], a["running_var"], zeros(input.shape)
        for n, c, *rest in np.ndindex(input.shape):
            value = (input[n, c, *rest] - mean[c]) / (var[c] + arb(eps)).sqrt()
            found[n, c, *rest] = value * (1 if weight is None else weight[c]) + (0 if bias is None else bias[c])
        return {"0": found}
    out, means, scales, squares = normalised(input, lambda n, c, *_: (c,), lambda n, c, *_: (c,), weight, bias, eps)
    found = {"0": out, "1": means, "2": scales}
    if a.get("running_mean") is not None:
        count, share = input.size // input.shape[1], arb(momentum)
        unbiased = balls([squares[c,] * count / (count - 1) for c in range(input.shape[1])])
        found["running_mean"] = a["running_mean"] * (1 - share) + means * share
        found["running_var"] = a["running_var"] * (1 - share) + unbiased * share
    return found


def first_of(forward: Truth) -> Truth:
    """Return only the first result of a definition."""

    def truth(**a: Any) -> Array:
        found = forward(**a)
        return np.asarray(found["0"] if isinstance(found, dict) else found[0])

    return truth


# Attention.


def attention(
    query: Array, key: Array, value: Array, is_causal: bool = False, attn_mask: Any = None, scale: Any = None, **_: Any
) -> list[Array]:
    out, logs = zeros((*query.shape[:-1], value.shape[-1])), zeros(query.shape[:-1])
    factor = arb(scale) if scale is not None else 1 / arb(query.shape[-1]).sqrt()
    for b, h, i in np.ndindex(logs.shape):
        weights = {}
        for j in range(key.shape[-2]):
            added = (
                arb(0) if attn_mask is None else np.broadcast_to(attn_mask, (*logs.shape, key.shape[-2]))[b, h, i, j]
            )
            if added.is_finite() and not (is_causal and j > i):
                weights[j] = exp(factor * total(query[b, h, i] * key[b, h, j]) + added)
        logs[b, h, i] = log(total(weights.values()))
        for d in range(value.shape[-1]):
            out[b, h, i, d] = total(w * value[b, h, j, d] for j, w in weights.items()) / total(weights.values())
    return [out, logs]


# Windows.


def convolution(
    input: Array,
    weight: Array,
    bias: Any,
    groups: int,
    transposed: bool,
    out: Sequence[int],
    **a: Any,
) -> Array:
    """out: shape of the result."""
    found = zeros(out)
    small, large = (input.shape, out) if transposed else (out, input.shape)
    rows, columns = weight.shape[0] // groups, weight.shape[1]
    for n, c, *rest in np.ndindex(*small[:2], columns, *small[2:], *weight.shape[2:]):
        k, place, at = rest[0], rest[1 : len(small) - 1], rest[len(small) - 1 :]
        far = [
            p * s - pad + t * step
            for p, t, s, pad, step in zip(place, at, a["stride"], a["padding"], a["dilation"], strict=True)
        ]
        if all(0 <= one < limit for one, limit in zip(far, large[2:], strict=True)):
            wide = (n, c // rows * columns + k, *far)
            if transposed:
                found[wide] += input[n, c, *place] * weight[c, k, *at]
            else:
                found[n, c, *place] += input[wide] * weight[c, k, *at]
    for index in np.ndindex(found.shape):
        found[index] += 0 if bias is None else bias[index[1]]
    return found


def pooled(x: Array, out: Sequence[int], window: Truth, reduce: Truth) -> Array:
    """window: the range of places, inside or not, of an output along an axis."""
    found = zeros((*x.shape[:-2], *out))
    for *lead, i, j in np.ndindex(found.shape):
        places = list(itertools.product(window(i, 0), window(j, 1)))
        inside = [x[*lead, r, c] for r, c in places if 0 <= r < x.shape[-2] and 0 <= c < x.shape[-1]]
        found[*lead, i, j] = reduce(inside, places, x.shape[-2:])
    return found


def pool(
    self: Array, kernel_size: Any, stride: Any, padding: Any, out: Any, reduce: Truth, dilation: Any = (1, 1)
) -> Array:
    def window(i: int, axis: int) -> range:
        start = i * (stride or kernel_size)[axis] - padding[axis]
        return range(start, start + kernel_size[axis] * dilation[axis], dilation[axis])

    return pooled(self, out, window, reduce)


def max_pool(self: Array, out: Any, ceil_mode: Any = None, indices: Any = None, **a: Any) -> Array:
    return pool(self, out=out, reduce=lambda x, *_: max(x), **{k: v for k, v in a.items() if k != "grad_output"})


def average_pool(
    self: Array,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    out: Any,
    count_include_pad: bool,
    divisor_override: Any,
    **_: Any,
) -> Array:
    def mean(inside: list[arb], places: list[Any], limits: Any) -> arb:
        # Places beyond the padding do not count.
        padded = sum(all(-p <= at < n + p for at, n, p in zip(one, limits, padding, strict=True)) for one in places)
        return total(inside) / (divisor_override or (padded if count_include_pad else len(inside)))

    return pool(self, kernel_size, stride, padding, out, mean)


def adaptive_pool(self: Array, out: Any, **_: Any) -> Array:
    def window(i: int, axis: int) -> range:
        n, m = self.shape[axis - 2], out[axis]
        return range(math.floor(i * n / m), math.ceil((i + 1) * n / m))

    return pooled(self, out, window, lambda x, *_: total(x) / len(x))


def pool_in_space(self: Array, out: Any, window: Any, reduce: Any) -> Array:
    """Pool three axes. window: the range of an axis for a place in the result; places beyond the input are left out."""
    found = zeros((*self.shape[:-3], *out))
    for *lead, z, y, x in np.ndindex(found.shape):
        ranges = [[at for at in window(i, axis) if 0 <= at < self.shape[axis - 3]] for axis, i in enumerate((z, y, x))]
        places = [(*lead, a, b, c) for a in ranges[0] for b in ranges[1] for c in ranges[2]]
        found[*lead, z, y, x] = reduce([self[place] for place in places])
    return found


# Recurrent layers, and the steps of optimisers.


def lstm(input: Array, hx_: Array, cx_: Array, reverse: bool, hidden_size: int, **a: Any) -> list[Array]:
    """input: shape (times, sequences, width). The names of the weights begin with w, u, b and v."""
    w, u, *both = (a[name] for name in "wubv" if name in a)
    hidden, cell = hx_.reshape(-1, hidden_size).copy(), cx_.reshape(-1, hidden_size).copy()
    found = zeros((*input.shape[:2], hidden_size))
    for time in range(len(input))[:: -1 if reverse else 1]:
        for s in range(input.shape[1]):
            gates = [
                total(w[k] * input[time, s]) + total(u[k] * hidden[s]) + total(one[k] for one in both)
                for k in range(4 * hidden_size)
            ]
            i, f, g, o = (gates[k * hidden_size : (k + 1) * hidden_size] for k in range(4))
            for k in range(hidden_size):
                cell[s, k] = sigmoid(f[k]) * cell[s, k] + sigmoid(i[k]) * tanh(g[k])
                found[time, s, k] = sigmoid(o[k]) * tanh(cell[s, k])
            hidden[s] = found[time, s]
    return [found, hidden.reshape(hx_.shape), cell.reshape(cx_.shape)]


def adam(
    param: arb,
    grad: arb,
    m: arb,
    v: arb,
    largest: arb,
    step: int,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    weight_decay: float,
    eps: float,
    amsgrad: bool,
    maximize: bool,
    decoupled: bool,
) -> dict[str, arb]:
    """Kingma and Ba, algorithm 1; decoupled: Loshchilov and Hutter, algorithm 2."""
    b1, b2, rate, decay = arb(beta1), arb(beta2), arb(lr), arb(weight_decay)
    grad = (-grad if maximize else grad) + (0 if decoupled else decay * param)
    m, v = b1 * m + (1 - b1) * grad, b2 * v + (1 - b2) * grad**2
    found = {"exp_avgs": m, "exp_avg_sqs": v}
    if amsgrad:
        v = found["max_exp_avg_sqs"] = max(v, largest)
    found["self"] = param - (rate * decay * param if decoupled else 0)
    found["self"] -= rate * (m / (1 - b1**step)) / ((v / (1 - b2**step)).sqrt() + arb(eps))
    return found


def sgd(
    param: arb,
    grad: arb,
    buffer: arb,
    *,
    weight_decay: float,
    momentum: float,
    lr: float,
    dampening: float,
    nesterov: bool,
    maximize: bool,
    is_first_step: bool,
) -> dict[str, arb]:
    """The loop of the documentation of torch.optim.SGD."""
    grad = (-grad if maximize else grad) + arb(weight_decay) * param
    if not momentum:
        return {"self": param - arb(lr) * grad}
    buffer = grad if is_first_step else arb(momentum) * buffer + (1 - arb(dampening)) * grad
    grad = grad + arb(momentum) * buffer if nesterov else buffer
    return {"self": param - arb(lr) * grad, "momentum_buffer_list": buffer}
