"""LSTM layers that torch runs as one operator, and their gradient through time.

i, f, g, o = sigmoid, sigmoid, tanh, sigmoid of W x + b + U h; the new c = f c + i g and h = o tanh(c) (Hochreiter and
Schmidhuber, Long short-term memory, 1997, in the form of torch.nn.LSTM). The sequences of a batch do not mix, so those
that hold the elements to check are computed whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lntx.proof.bounds.call import Call
from lntx.proof.bounds.numbers import FORMATS, Array, Bounded
from lntx.proof.formulas.pointwise import Found

_LSTM = 2


@dataclass(frozen=True)
class _Step:
    """One step of some sequences, arrays of shape (sequences, hidden)."""

    i: Bounded
    f: Bounded
    g: Bounded
    o: Bounded
    before: Bounded
    cell: Bounded
    hidden_before: Bounded


def _refuse_others(call: Call) -> None:
    if call["mode"] != _LSTM or call["batch_sizes"]:
        raise NotImplementedError("a recurrent layer of another kind, or packed")


def _forward(call: Call, names: tuple[str, ...], chosen: torch.Tensor) -> tuple[list[_Step], list[Bounded]]:
    """Return the steps in the order of time that they were made in, and the hidden states after them."""
    inputs = call["input"]
    weights = [call.read(call[name]).swap() for name in names[:2]]
    # Torch adds the two biases, in the format of the layer, before it calls the kernel.
    bias = _stored(call, call.read(call[names[2]]) + call.read(call[names[3]])) if call["has_biases"] else None
    hidden = call.read(call["hx_"].reshape(-1, call["hidden_size"]), chosen)
    cell = call.read(call["cx_" if "cx_" in call.args else "cx_tmp"].reshape(-1, call["hidden_size"]), chosen)
    order = range(inputs.shape[0])[:: -1 if call["reverse"] else 1]
    steps, states = [], []
    for time in order:
        x = call.read(inputs, (time, chosen))
        gates = (x @ weights[0]) + (hidden @ weights[1])
        if bias is not None:
            gates = gates + bias
        size = call["hidden_size"]
        i, f, g, o = (gates[:, k * size : (k + 1) * size] for k in range(4))
        i, f, g, o = (_stored(call, gate) for gate in (i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()))
        before, cell = cell, _stored(call, f * cell + i * g)
        steps.append(_Step(i, f, g, o, before, cell, hidden))
        hidden = _stored(call, o * cell.tanh())
        states.append(hidden)
    return steps, states


def _stored(call: Call, numbers: Bounded) -> Bounded:
    """Round to the format of the layer: between steps the kernel keeps numbers in it."""
    kind = FORMATS[call["input"].dtype]
    return numbers.rounded(kind) if kind.u > call.inner.u else numbers


def lstm(call: Call) -> Found:
    """mkldnn_rnn_layer: the hidden states, and the last hidden and cell state."""
    _refuse_others(call)
    batch = call["hx_"].reshape(-1, call["hidden_size"]).shape[0]
    chosen = _sequences(call, batch)
    steps, states = _forward(call, ("weight0", "weight1", "weight2", "weight3"), chosen)
    whole = _stack(states if not call["reverse"] else states[::-1])
    yield from _of_sequences(call, "0", whole, chosen)
    for slot, last in (("1", states[-1]), ("2", steps[-1].cell)):
        yield from _of_sequences(call, slot, last.reshape(1, *last.shape), chosen)


def _sequences(call: Call, batch: int) -> torch.Tensor:
    """Return the sequences to compute: both ends and some between; all for a gradient of weights."""
    if call.focus is not None or batch <= 4:
        return torch.arange(batch)
    return torch.tensor(sorted({0, batch - 1, *np.random.default_rng(batch).integers(0, batch, 2).tolist()}))


def _of_sequences(call: Call, slot: str, value: Bounded, chosen: torch.Tensor) -> Found:
    """Yield all elements of some sequences. value: shape (times, sequences, width)."""
    result = call.result(slot)
    grid = np.arange(result.numel()).reshape(value.shape[0], -1, value.shape[-1])[:, chosen.numpy()]
    flat, numbers = grid.reshape(-1), value.reshape(-1)
    if call.focus is not None:
        keep = flat == call.focus[1] if call.focus[0] == slot else np.arange(len(flat)) < 1
        flat, numbers = flat[keep], numbers[keep]
    yield slot, flat, numbers


def _stack(parts: list[Bounded]) -> Bounded:
    return parts[0].like(np.stack([part.value for part in parts]), np.stack([part.error for part in parts]))


def lstm_gradient(call: Call) -> Found:
    """mkldnn_rnn_layer_backward: of the input, the four weights, and the first hidden and cell state."""
    _refuse_others(call)
    size = call["hidden_size"]
    batch = call["hx_"].reshape(-1, size).shape[0]
    chosen = torch.arange(batch)
    steps, _ = _forward(call, ("weight1", "weight2", "weight3", "weight4"), chosen)
    source = call["input"]
    order = list(range(source.shape[0]))[:: -1 if call["reverse"] else 1]
    from_hidden, from_cell = _given(call, "grad_hy", steps[0].i), _given(call, "grad_cy", steps[0].i)
    weight_x, weight_h = call.read(call["weight1"]), call.read(call["weight2"])
    slopes: list[Bounded] = []
    for time, step in zip(order[::-1], steps[::-1], strict=True):
        grad = from_hidden
        if call["grad_output"] is not None:
            grad = grad + call.read(call["grad_output"], time)
        curve = step.cell.tanh()
        cell = from_cell + grad * step.o * (1.0 - curve * curve)
        parts = (
            cell * step.g * step.i * (1.0 - step.i),
            cell * step.before * step.f * (1.0 - step.f),
            cell * step.i * (1.0 - step.g * step.g),
            grad * curve * step.o * (1.0 - step.o),
        )
        slope = parts[0].like(
            np.concatenate([part.value for part in parts], axis=-1),
            np.concatenate([part.error for part in parts], axis=-1),
        )
        slope = _stored(call, slope)
        slopes.append(slope)
        from_cell = cell * step.f
        from_hidden = slope @ weight_h
    slopes = slopes[::-1]
    in_time = slopes if not call["reverse"] else slopes[::-1]
    yield from _of_sequences(call, "0", _stack([part @ weight_x for part in in_time]), chosen)
    # Shapes (gates, times sequences) and (times sequences, width).
    every = _stack(slopes).reshape(-1, 4 * size).swap()
    inputs = call.read(source, list(order)).reshape(len(order) * batch, -1)
    hiddens = _stack([step.hidden_before for step in steps]).reshape(-1, size)
    for slot, value in (("1", every @ inputs), ("2", every @ hiddens), ("3", every.sum()), ("4", every.sum())):
        if call.outputs[int(slot)] is not None and call.result(slot).numel():
            picked = call.pick(slot)
            yield slot, picked, value.reshape(-1)[picked]
    for slot, value in (("5", from_hidden), ("6", from_cell)):
        yield from _of_sequences(call, slot, value.reshape(1, *value.shape), chosen)


def _given(call: Call, name: str, like: Bounded) -> Bounded:
    grad: Any = call[name]
    zeros: Array = np.zeros(like.shape)
    return call.read(torch.from_numpy(zeros) if grad is None else grad.reshape(like.shape))
