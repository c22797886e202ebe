"""Operators that choose among numbers: sorting, order statistics, and where the chosen stand. All is exact.

Source: the documentation of torch. Which of equal numbers is chosen is left open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from lntx.proof.call import Call
from lntx.proof.formulas.pointwise import Found
from lntx.proof.numbers import EXACT, Array, Bounded, middle


def _sorted(numbers: Array, call: Call) -> Array:
    return np.flip(np.sort(numbers, axis=-1), axis=-1) if call["descending"] else np.sort(numbers, axis=-1)


def _top(numbers: Array, call: Call) -> Array:
    if not call["sorted"]:
        raise NotImplementedError("an order that is left open")
    ascending = np.sort(numbers, axis=-1)
    return np.flip(ascending, axis=-1)[..., : call["k"]] if call["largest"] else ascending[..., : call["k"]]


def _median(numbers: Array, call: Call) -> Array:
    counts = (~np.isnan(numbers)).sum(axis=-1, keepdims=True)
    if call.name == "median":
        # One that is no number comes first.
        counts = np.where(counts < numbers.shape[-1], 2 * numbers.shape[-1], counts)
    return np.take_along_axis(np.sort(numbers, axis=-1), np.clip((counts - 1) // 2, 0, numbers.shape[-1] - 1), axis=-1)


_VALUES: Mapping[str, Callable[[Array, Call], Array]] = {
    "sort": _sorted,
    "topk": _top,
    "kthvalue": lambda numbers, call: np.sort(numbers, axis=-1)[..., call["k"] - 1 : call["k"]],
    "median": _median,
    "nanmedian": _median,
    "cummax": lambda numbers, call: np.maximum.accumulate(numbers, axis=-1),
    "cummin": lambda numbers, call: np.minimum.accumulate(numbers, axis=-1),
    "argmax": lambda numbers, call: numbers.max(axis=-1, keepdims=True),
    "argmin": lambda numbers, call: numbers.min(axis=-1, keepdims=True),
}

SELECTIONS = frozenset(_VALUES)
"""Their names."""


def selection_of(call: Call) -> Found:
    """Yield the chosen numbers along an axis, and their places: any that hold the same numbers."""
    inputs, dim = call["self"], call["dim"]
    if dim is None and call.name in ("sort", "topk", "kthvalue", "cummax", "cummin"):
        dim = -1
    read = call.read(inputs)
    if read.error.any():
        raise NotImplementedError("a choice that rounding can decide")
    numbers = middle(read.value).reshape(tuple(inputs.shape) or (1,))
    numbers = numbers.reshape(-1) if dim is None else np.moveaxis(numbers, dim, -1)
    values = _VALUES[call.name](numbers, call)
    slots = ["0"] if call.name.startswith("arg") else ["0", "1"][: len(call.outputs)]
    for slot in slots:
        result = call.result(slot)
        picked = np.arange(result.numel())
        expected = values
        if slot == "1" or call.name.startswith("arg"):
            got = call.got(slot, picked).astype(np.int64).reshape(np.moveaxis(values, -1, dim or 0).shape)
            places = np.moveaxis(got, dim or 0, -1)
            found = np.take_along_axis(numbers, np.clip(places, 0, numbers.shape[-1] - 1), axis=-1)
            same = (found == values) | (np.isnan(found) & np.isnan(values))
            if call.name == "sort":
                same &= np.sort(places, axis=-1) == np.arange(places.shape[-1])
            expected = np.where(same, places, -1).astype(np.float64)
        flat = np.moveaxis(expected, -1, dim or 0).reshape(-1)
        yield slot, picked, Bounded.exactly(flat, EXACT)
