"""Convolutions and pools: sums over a window, and their gradients. Source: Dumoulin and Visin, A guide to convolution
arithmetic for deep learning, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from lntx.proof.bounds.call import Call, unravel
from lntx.proof.bounds.numbers import Array, Bounded, middle
from lntx.proof.formulas.pointwise import Found


def _full(values: Sequence[int], dims: int) -> list[int]:
    return list(values) * dims if len(values) == 1 else list(values)


class _Window:
    """Which inputs an output of a convolution sees, in each spatial axis."""

    def __init__(self, call: Call, weight: torch.Tensor) -> None:
        self.sizes = list(weight.shape[2:])
        dims = len(self.sizes)
        self.stride = _full(call["stride"], dims)
        self.padding = _full(call["padding"], dims)
        self.dilation = _full(call["dilation"], dims)

    def inputs(
        self, outputs: Sequence[Array], kernel: Sequence[Array], limits: Sequence[int]
    ) -> tuple[list[Array], Array]:
        """Return the inputs' places for outputs and places in the kernel that broadcast, and which exist."""
        places = [
            out * stride - pad + at * step
            for out, at, stride, pad, step in zip(
                outputs, kernel, self.stride, self.padding, self.dilation, strict=True
            )
        ]
        return _within(places, limits)

    def outputs(
        self, inputs: Sequence[Array], kernel: Sequence[Array], limits: Sequence[int]
    ) -> tuple[list[Array], Array]:
        """Return the outputs' places for inputs and places in the kernel that broadcast, and which exist."""
        shifted = [
            place + pad - at * step
            for place, at, pad, step in zip(inputs, kernel, self.padding, self.dilation, strict=True)
        ]
        fits = np.logical_and.reduce([shift % stride == 0 for shift, stride in zip(shifted, self.stride, strict=True)])
        places, inside = _within([shift // stride for shift, stride in zip(shifted, self.stride, strict=True)], limits)
        return places, inside & fits


def _within(places: list[Array], limits: Sequence[int]) -> tuple[list[Array], Array]:
    inside = np.logical_and.reduce(
        [(place >= 0) & (place < limit) for place, limit in zip(places, limits, strict=True)]
    )
    return [np.clip(place, 0, limit - 1) for place, limit in zip(places, limits, strict=True)], inside


def _grid(*sizes: int) -> list[Array]:
    """Return the coordinates of every place of a box, each of shape (1, n)."""
    return [axis.reshape(1, -1) for axis in np.meshgrid(*(np.arange(size) for size in sizes), indexing="ij")]


def _columns(*arrays: Array) -> list[Array]:
    return [array.reshape(-1, 1) for array in arrays]


def _read(call: Call, tensor: torch.Tensor, *key: Array) -> Bounded:
    return call.read(
        tensor, tuple(torch.from_numpy(np.ascontiguousarray(index)) for index in np.broadcast_arrays(*key))
    )


def _is_transposed(call: Call) -> bool:
    return bool(call["transposed"])


def _gathered(call: Call, picked: Array, shape: Sequence[int], inputs: torch.Tensor, weight: torch.Tensor) -> Bounded:
    """Return the sums of a convolution at some outputs: over the input channels of the group and the window."""
    window = _Window(call, weight)
    sample, channel, *place = _columns(*(index.numpy() for index in unravel(picked, shape)))
    per_group = weight.shape[1]
    group = channel // (weight.shape[0] // call["groups"])
    inner, *kernel = _grid(per_group, *window.sizes)
    places, inside = window.inputs(place, kernel, inputs.shape[2:])
    products = _read(call, inputs, sample, group * per_group + inner, *places) * _read(
        call, weight, channel, inner, *kernel
    )
    return products.where(inside, 0.0).sum(terms=inside.sum(axis=-1))


def _scattered(call: Call, picked: Array, shape: Sequence[int], grad: torch.Tensor, weight: torch.Tensor) -> Bounded:
    """Return what the outputs give back to some inputs: the gradient of a convolution, or a transposed one."""
    window = _Window(call, weight)
    sample, channel, *place = _columns(*(index.numpy() for index in unravel(picked, shape)))
    per_group_in, per_group_out = weight.shape[1], weight.shape[0] // call["groups"]
    group = channel // per_group_in
    inner, *kernel = _grid(per_group_out, *window.sizes)
    places, inside = window.outputs(place, kernel, grad.shape[2:])
    products = _read(call, grad, sample, group * per_group_out + inner, *places) * _read(
        call, weight, group * per_group_out + inner, channel % per_group_in, *kernel
    )
    return products.where(inside, 0.0).sum(terms=inside.sum(axis=-1))


def _terms(weight: torch.Tensor) -> int:
    return math.prod(weight.shape[1:])


def convolution(call: Call) -> Found:
    """convolution: one, two or three axes, with groups, strides, padding, dilation, and transposed."""
    weight = call["weight"]
    picked = call.pick(terms=_terms(weight))
    work = _scattered if _is_transposed(call) else _gathered
    value = work(call, picked, call.out.shape, call["input"], weight)
    if call["bias"] is not None:
        bias = call.read(call["bias"], unravel(picked, call.out.shape)[1])
        value = (value + bias).widened(_terms(weight) * value.format.u * bias.size)
    yield "0", picked, value


def convolution_gradient(call: Call) -> Found:
    """convolution_backward: of the input, the weight and the bias."""
    grad, inputs, weight = call["grad_output"], call["input"], call["weight"]
    if call["output_mask"][0]:
        picked = call.pick("0", terms=weight.shape[0] * math.prod(weight.shape[2:]))
        work = _gathered if _is_transposed(call) else _scattered
        yield "0", picked, work(call, picked, inputs.shape, grad, weight)
    if call["output_mask"][1]:
        # A transposed convolution is a convolution with input and output exchanged.
        source, target = (grad, inputs) if _is_transposed(call) else (inputs, grad)
        window = _Window(call, weight)
        picked = call.pick("1", terms=grad.shape[0] * math.prod(target.shape[2:]))
        out, inner, *kernel = _columns(*(index.numpy() for index in unravel(picked, weight.shape)))
        sample, *place = _grid(target.shape[0], *target.shape[2:])
        group = out // (weight.shape[0] // call["groups"])
        places, inside = window.inputs(place, kernel, source.shape[2:])
        products = _read(call, target, sample, out, *place) * _read(
            call, source, sample, group * weight.shape[1] + inner, *places
        )
        yield "1", picked, products.where(inside, 0.0).sum(terms=inside.sum(axis=-1))
    if call["output_mask"][2]:
        picked = call.pick("2", terms=grad.numel() // grad.shape[1])
        yield "2", picked, call.read(grad.transpose(0, 1).reshape(grad.shape[1], -1), torch.from_numpy(picked)).sum()


class _Pool(_Window):
    """The window of a pool."""

    def __init__(self, call: Call, dims: int = 2) -> None:
        self.sizes = _full(call["kernel_size"], dims)
        self.stride = _full(call["stride"], dims) if call["stride"] else list(self.sizes)
        self.padding = _full(call.args.get("padding") or [0], dims)
        self.dilation = _full(call.args.get("dilation") or [1], dims)


class _Adaptive:
    """The window of an adaptive pool: from floor(i n / m) to ceil((i + 1) n / m)."""

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        self.sizes = [-(-n // m) + 1 for n, m in zip(inputs, outputs, strict=True)]
        self._outputs = outputs

    def inputs(
        self, outputs: Sequence[Array], kernel: Sequence[Array], limits: Sequence[int]
    ) -> tuple[list[Array], Array]:
        """Return what `_Window.inputs` does."""
        shares = [*zip(outputs, limits, self._outputs, strict=True)]
        places = [at * n // m + offset for (at, n, m), offset in zip(shares, kernel, strict=True)]
        ends = [place < -(-(at + 1) * n // m) for (at, n, m), place in zip(shares, places, strict=True)]
        places, inside = _within(places, limits)
        return places, inside & np.logical_and.reduce(ends)


def _dims(call: Call) -> int:
    return 3 if "3d" in call.name else 2


def max_pool(call: Call) -> Found:
    """max_pool2d_with_indices, adaptive_max_pool2d and for three axes: exact, and the input at each returned index is
    that maximum.
    """
    inputs, dims = call["self"], _dims(call)
    is_adaptive = call.name.startswith("adaptive")
    window = _Adaptive(inputs.shape[-dims:], call.out.shape[-dims:]) if is_adaptive else _Pool(call, dims)
    picked = call.pick(terms=math.prod(window.sizes))
    positions = [position.numpy() for position in unravel(picked, call.out.shape)]
    lead, place = positions[:-dims], positions[-dims:]
    places, inside = window.inputs(_columns(*place), _grid(*window.sizes), inputs.shape[-dims:])
    value = middle(_read(call, inputs, *_columns(*lead), *places).value)
    yield "0", picked, Bounded.exactly(np.where(inside, value, -np.inf).max(axis=-1), call.inner)
    index = call.outputs[1][unravel(picked, call.out.shape)]
    flat = inputs.reshape(*inputs.shape[:-dims], -1)
    named = call.read(flat, (*(torch.from_numpy(position) for position in lead), index))
    yield "0", picked, Bounded.exactly(middle(named.value), call.inner)


def max_pool_gradient(call: Call) -> Found:
    """max_pool2d_with_indices_backward: each input gets the gradients of the outputs that took it."""
    inputs, grad, indices = call["self"], call["grad_output"], call["indices"]
    window = _Pool(call)
    picked = call.pick(terms=math.prod(window.sizes))
    *lead, row, column = (index.numpy() for index in unravel(picked, inputs.shape))
    places, inside = window.outputs(_columns(row, column), _grid(*window.sizes), grad.shape[-2:])
    key = np.broadcast_arrays(*_columns(*lead), *places)
    took = indices.cpu().numpy()[tuple(key)] == (row * inputs.shape[-1] + column)[:, None]
    hits = took & inside
    yield "0", picked, _read(call, grad, *key).where(hits, 0.0).sum(terms=hits.sum(axis=-1))


def _divisor(call: Call, window: _Pool, place: Sequence[Array], shape: Sequence[int]) -> Array:
    """Return the number of inputs that an average is divided by."""
    if call["divisor_override"]:
        return np.full(place[0].shape, float(call["divisor_override"]))
    value = np.ones(place[0].shape)
    for at, size, stride, pad, limit in zip(place, window.sizes, window.stride, window.padding, shape, strict=True):
        start = at * stride - pad
        end = np.minimum(start + size, limit + pad)
        if not call.args.get("count_include_pad", True):
            start, end = np.maximum(start, 0), np.minimum(end, limit)
        value = value * (end - start)
    return value


def average_pool(call: Call) -> Found:
    """avg_pool2d, avg_pool3d: the mean over the window."""
    inputs, dims = call["self"], _dims(call)
    window = _Pool(call, dims)
    picked = call.pick(terms=math.prod(window.sizes))
    positions = [index.numpy() for index in unravel(picked, call.out.shape)]
    lead, place = positions[:-dims], positions[-dims:]
    places, inside = window.inputs(_columns(*place), _grid(*window.sizes), inputs.shape[-dims:])
    total = _read(call, inputs, *_columns(*lead), *places).where(inside, 0.0).sum()
    yield "0", picked, total / _exact(call, _divisor(call, window, place, inputs.shape[-dims:]))


def average_pool_gradient(call: Call) -> Found:
    """avg_pool2d_backward, avg_pool3d_backward: each input gets its share of the outputs that saw it."""
    inputs, grad, dims = call["self"], call["grad_output"], _dims(call)
    window = _Pool(call, dims)
    picked = call.pick(terms=math.prod(window.sizes))
    positions = [index.numpy() for index in unravel(picked, inputs.shape)]
    lead, place = positions[:-dims], positions[-dims:]
    places, inside = window.outputs(_columns(*place), _grid(*window.sizes), grad.shape[-dims:])
    shares = _exact(call, _divisor(call, window, np.broadcast_arrays(*places), inputs.shape[-dims:]))
    value = _read(call, grad, *_columns(*lead), *places) / shares
    yield "0", picked, value.where(inside, 0.0).sum(terms=inside.sum(axis=-1))


def adaptive_average_pool(call: Call) -> Found:
    """_adaptive_avg_pool2d, _adaptive_avg_pool3d: the mean over the window."""
    inputs, dims = call["self"], _dims(call)
    window = _Adaptive(inputs.shape[-dims:], call.out.shape[-dims:])
    picked = call.pick(terms=math.prod(window.sizes))
    positions = [index.numpy() for index in unravel(picked, call.out.shape)]
    lead, place = positions[:-dims], positions[-dims:]
    places, inside = window.inputs(_columns(*place), _grid(*window.sizes), inputs.shape[-dims:])
    count = inside.sum(axis=-1)
    total = _read(call, inputs, *_columns(*lead), *places).where(inside, 0.0).sum(terms=count)
    yield "0", picked, total / _exact(call, count)


def adaptive_average_pool_gradient(call: Call) -> Found:
    """_adaptive_avg_pool2d_backward, _adaptive_avg_pool3d_backward: each input gets its share of the outputs that saw
    it.
    """
    inputs, grad, dims = call["self"], call["grad_output"], _dims(call)
    picked = call.pick(terms=math.prod(grad.shape[-dims:]))
    positions = [index.numpy() for index in unravel(picked, inputs.shape)]
    lead, place = positions[:-dims], positions[-dims:]
    places = _grid(*grad.shape[-dims:])
    inside = np.ones((len(picked), places[0].shape[1]), dtype=bool)
    count = np.ones(places[0].shape)
    for at, out, n, m in zip(place, places, inputs.shape[-dims:], grad.shape[-dims:], strict=True):
        start, end = out * n // m, -((-(out + 1) * n) // m)
        inside &= (at[:, None] >= start) & (at[:, None] < end)
        count = count * (end - start)
    value = _read(call, grad, *_columns(*lead), *places) / _exact(call, count)
    yield "0", picked, value.where(inside, 0.0).sum(terms=inside.sum(axis=-1))


def _exact(call: Call, numbers: Array) -> Bounded:
    return call.read(torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.float64)))
