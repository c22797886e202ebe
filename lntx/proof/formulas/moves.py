"""Operators that only move or fill numbers: every bit of the result is known, and every element is compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from lntx.proof.bounds.call import Call
from lntx.proof.bounds.numbers import Array

_WHOLE_NUMBERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(tensor: torch.Tensor) -> Array:
    """Return the bits of a tensor's numbers as whole numbers of the same shape and width; 128 bits as they are."""
    content = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    if content.element_size() not in _WHOLE_NUMBERS:
        return np.asarray(content.numpy())
    kind = _WHOLE_NUMBERS[content.element_size()]
    array: Array = (
        content.reshape(-1).view(kind) if content.dtype != torch.bool else content.reshape(-1).byte()
    ).numpy()
    return array.reshape(tuple(content.shape))


def _filled(call: Call, number: float | torch.Tensor) -> Array:
    filler = number if isinstance(number, torch.Tensor) else torch.tensor(number, dtype=call.out.dtype)
    return np.broadcast_to(bits(filler.to(call.out.dtype)), tuple(call.out.shape))


def _placed(call: Call, shape: Any, key: Any) -> Array:
    """Return zeros of a shape with the gradient at a key."""
    grad = bits(call["grad_output"])
    placed = np.zeros(tuple(shape), dtype=grad.dtype)
    placed[key] = grad
    return placed


def _slice(call: Call, size: int) -> tuple[slice, ...]:
    axis, dims = call.args.get("dim", 0), len(call["input_sizes"]) if "input_sizes" in call.args else call["self"].dim()
    axis %= dims
    start, end = call["start"], call["end"]
    return (*[slice(None)] * axis, slice(start, min(end if end is not None else size, size), call.args.get("step", 1)))


def _slice_backward(call: Call) -> Array:
    shape = call["input_sizes"]
    return _placed(call, shape, _slice(call, shape[call["dim"]]))


def _select_backward(call: Call) -> Array:
    shape = call["input_sizes"]
    return _placed(call, shape, (*[slice(None)] * (call["dim"] % len(shape)), call["index"]))


def _cat(call: Call) -> Array:
    tensors = [bits(tensor.to(call.out.dtype)) for tensor in call["tensors"] if tensor.shape != (0,)]
    return np.concatenate(tensors, axis=call.args.get("dim", 0))


def _index(call: Call) -> Array:
    inputs = bits(call["self"])
    key = tuple(slice(None) if index is None else _as_index(index) for index in call["indices"])
    return np.asarray(inputs[key])


def _as_index(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().numpy())


def _index_select(call: Call) -> Array:
    axis = call["dim"] if call["self"].dim() else 0
    return np.take(np.atleast_1d(bits(call["self"])), _as_index(call["index"]), axis=axis).reshape(call.out.shape)


def _seen_by(index: Array, inputs: Array, dim: int) -> Array:
    """Return the part of an array that an index may reach: in the other axes, the index may be smaller."""
    axis = dim % max(inputs.ndim, 1)
    return inputs[tuple(slice(None) if k == axis else slice(n) for k, n in enumerate(index.shape))]


def _gather(call: Call) -> Array:
    index, inputs = np.atleast_1d(_as_index(call["index"]), bits(call["self"]))
    return np.take_along_axis(_seen_by(index, inputs, call["dim"]), index, axis=call["dim"]).reshape(call.out.shape)


def _tri(keep: Callable[..., Array]) -> Callable[[Call], Array]:
    return lambda call: keep(bits(call["self"]), call.args.get("diagonal", 0))


def _pad(call: Call) -> Array:
    inputs, pad = bits(call["self"]), list(call["pad"])
    pairs = [(pad[2 * k], pad[2 * k + 1]) for k in range(len(pad) // 2)]
    widths = [(0, 0)] * (inputs.ndim - len(pairs)) + pairs[::-1]
    # A negative pad leaves values out.
    inside = [
        slice(max(-left, 0), size - max(-right, 0)) for size, (left, right) in zip(inputs.shape, widths, strict=True)
    ]
    inputs, widths = inputs[tuple(inside)], [(max(left, 0), max(right, 0)) for left, right in widths]
    number = bits(torch.tensor(call.args.get("value", 0), dtype=call.out.dtype))
    return np.pad(inputs, widths, constant_values=number)


def _scatter(call: Call) -> Array:
    if call["reduce"] is not None:
        raise NotImplementedError("a scatter that computes")
    content = np.atleast_1d(bits(call["self"])).copy()
    source = call["src"] if call["src"] is not None else call["value"]
    values = bits(source) if isinstance(source, torch.Tensor) else bits(torch.tensor(source, dtype=call.out.dtype))
    index = np.atleast_1d(_as_index(call["index"]))
    part = values[tuple(slice(n) for n in index.shape)] if values.ndim else values
    np.put_along_axis(_seen_by(index, content, call["dim"]), index, part, axis=call["dim"])
    return content.reshape(call.out.shape)


def _index_put(call: Call) -> Array:
    content = bits(call["self"]).copy()
    key = tuple(slice(None) if index is None else _as_index(index) for index in call["indices"])
    return _replaced(content, np.arange(content.size).reshape(content.shape)[key], bits(call["values"]))


def _put(call: Call) -> Array:
    content = bits(call["self"]).copy()
    return _replaced(
        content, np.arange(content.size)[_as_index(call["index"]).reshape(-1)], bits(call["source"]).reshape(-1)
    )


def _replaced(content: Array, places: Array, values: Array) -> Array:
    """Write numbers to flat places. Raises: NotImplementedError: which of several numbers stays is left open."""
    if len(np.unique(places)) < places.size:
        raise NotImplementedError("numbers that go to one place")
    content.reshape(-1)[places] = np.broadcast_to(values, places.shape)
    return content


def _masked_scatter(call: Call) -> Array:
    shape = tuple(call.out.shape)
    content, mask = (np.broadcast_to(numbers, shape) for numbers in (bits(call["self"]), _as_index(call["mask"])))
    content = content.copy()
    content[mask] = bits(call["source"]).reshape(-1)[: int(mask.sum())]
    return content


def _masked_select(call: Call) -> Array:
    numbers, mask = np.broadcast_arrays(bits(call["self"]), _as_index(call["mask"]))
    return np.asarray(numbers[mask])


def _masked_scatter_backward(call: Call) -> Array:
    picked = np.zeros(math.prod(call["sizes"]), dtype=bits(call["grad_output"]).dtype)
    numbers, mask = np.broadcast_arrays(bits(call["grad_output"]), _as_index(call["mask"]))
    picked[: int(mask.sum())] = numbers[mask]
    return picked.reshape(tuple(call["sizes"]))


def _diagonal(call: Call) -> Array:
    """Return zeros, or what was there, with other numbers on a diagonal."""
    is_gradient = "input_sizes" in call.args
    source = bits(call["grad_output" if is_gradient else "src"])
    content = np.zeros(tuple(call["input_sizes"]), dtype=source.dtype) if is_gradient else bits(call["self"]).copy()
    places = np.arange(content.size).reshape(content.shape)
    axes = call.args.get("dim1", 0), call.args.get("dim2", 1)
    return _replaced(content, np.diagonal(places, call.args.get("offset", 0), *axes), source)


def _as_strided_scatter(call: Call) -> Array:
    if not call["self"].is_contiguous() or call["self"].storage_offset():
        raise NotImplementedError("writing through strides of strides")
    content = bits(call["self"]).copy()
    places = np.asarray(call.args.get("storage_offset") or 0)
    for size, stride in zip(call["size"], call["stride"], strict=True):
        places = places[..., None] + np.arange(size) * stride
    return _replaced(content, places, bits(call["src"]))


def _repeated(call: Call) -> Array:
    repeats = _as_index(call["repeats"])
    return np.repeat(np.arange(len(repeats)), repeats)


def _nonzero(call: Call) -> Array:
    is_there = _as_index(call["self"] != 0)
    places = np.argwhere(is_there) if is_there.ndim else np.zeros((int(is_there), 0))
    return places.astype(np.int64)


MOVES: Mapping[str, Callable[[Call], Array]] = {
    "clone": lambda call: bits(call["self"]),
    "_unsafe_view": lambda call: bits(call["self"]).reshape(tuple(call.out.shape)),
    "_reshape_copy": lambda call: bits(call["self"]).reshape(tuple(call.out.shape)),
    "stack": lambda call: np.stack(
        [bits(one.to(call.out.dtype)) for one in call["tensors"]], axis=call.args.get("dim", 0)
    ),
    "cat": _cat,
    "embedding": lambda call: np.take(bits(call["weight"]), _as_index(call["indices"]), axis=0),
    "index_select": _index_select,
    "index": _index,
    "gather": _gather,
    "scatter": _scatter,
    "flip": lambda call: np.flip(bits(call["self"]), axis=tuple(call["dims"])),
    "roll": lambda call: np.roll(bits(call["self"]), tuple(call["shifts"]), axis=tuple(call["dims"]) or None),
    "repeat": lambda call: np.tile(bits(call["self"]), tuple(call["repeats"])),
    "constant_pad_nd": _pad,
    "tril": _tri(np.tril),
    "triu": _tri(np.triu),
    "slice_backward": _slice_backward,
    "select_backward": _select_backward,
    "zeros": lambda call: _filled(call, 0),
    "zeros_like": lambda call: _filled(call, 0),
    "new_zeros": lambda call: _filled(call, 0),
    "zero": lambda call: _filled(call, 0),
    "eye": lambda call: bits(torch.from_numpy(np.eye(*call.out.shape)).to(call.out.dtype)),
    "ones": lambda call: _filled(call, 1),
    "ones_like": lambda call: _filled(call, 1),
    "new_ones": lambda call: _filled(call, 1),
    "full": lambda call: _filled(call, call["fill_value"]),
    "full_like": lambda call: _filled(call, call["fill_value"]),
    "new_full": lambda call: _filled(call, call["fill_value"]),
    "scalar_tensor": lambda call: _filled(call, call["s"]),
    "index_put": _index_put,
    "put": _put,
    "take": lambda call: np.take(bits(call["self"]).reshape(-1), _as_index(call["index"])),
    "repeat_interleave": _repeated,
    "masked_scatter": _masked_scatter,
    "masked_scatter_backward": _masked_scatter_backward,
    "masked_select": _masked_select,
    "diagonal_backward": _diagonal,
    "diagonal_scatter": _diagonal,
    "nonzero": _nonzero,
    "as_strided_scatter": _as_strided_scatter,
    "fill": lambda call: _filled(call, call["value"]),
}
"""The expected bits of the first result."""


def is_move(name: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether a call only moves numbers: what adds to those that are there does more."""
    return name in MOVES and not arguments.get("accumulate")
