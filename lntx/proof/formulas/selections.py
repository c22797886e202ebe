"""Operators that choose among numbers: sorting, order statistics, and where the chosen stand. All is exact.

Source: the documentation of torch. Which of equal numbers is chosen is left open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from lntx.proof.bounds.call import Call
from lntx.proof.bounds.numbers import EXACT, FORMATS, Array, Bounded, middle
from lntx.proof.formulas.pointwise import Found

_MOST_PAIRS = 2**24


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


def bucket_of(call: Call) -> Found:
    """bucketize: how many boundaries lie below each number, or not above it."""
    picked = call.pick()
    numbers, boundaries = call.at("self", picked, call.out.shape), call.read(call["boundaries"])
    if numbers.error.any():
        raise NotImplementedError("a choice that rounding can decide")
    side: Literal["left", "right"] = "right" if call["right"] else "left"
    places = np.searchsorted(middle(boundaries.value), middle(numbers.value), side=side)
    yield "0", picked, Bounded.exactly(places.astype(np.float64), EXACT)


def unique_of(call: Call) -> Found:
    """_unique, _unique2, unique_consecutive: each number once, where it went, and how often."""
    if call["dim"] is not None:
        raise NotImplementedError("rows that are unique")
    numbers = middle(call.read(call["self"]).value).reshape(-1)
    if np.isnan(numbers).any():
        raise NotImplementedError("numbers that equal nothing")
    is_first = np.ones(len(numbers), dtype=bool)
    is_first[1:] = numbers[1:] != numbers[:-1]
    if call.name != "unique_consecutive":
        values, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    else:
        inverse = np.cumsum(is_first) - 1
        values, counts = numbers[is_first], np.bincount(inverse, minlength=0)
    if call["sorted"] is False and call.out.numel() == len(values):
        # In any order: that of the kernel.
        order = np.argsort(np.argsort(call.got("0", np.arange(len(values)))))
        values, counts, inverse = values[order], counts[order], np.argsort(order)[inverse]
    for slot, expected in enumerate((values, inverse, counts)[: len(call.outputs)]):
        count = call.result(str(slot)).numel()
        # The places and the counts are empty if they are not asked for.
        if count or not slot:
            # Where there are more or fewer, no number is the expected one.
            true = (
                expected.reshape(-1)
                if count == len(expected.reshape(-1))
                else np.full(count, -1.0 if slot else -np.inf)
            )
            yield str(slot), np.arange(count), Bounded.exactly(true.astype(np.float64), EXACT)


def mode_of(call: Call) -> Found:
    """mode: one of the numbers that are there most often, and where one of them stands."""
    inputs, dim = call["self"], call["dim"]
    numbers = np.moveaxis(middle(call.read(inputs).value).reshape(tuple(inputs.shape) or (1,)), dim, -1)
    if numbers.size * numbers.shape[-1] > _MOST_PAIRS:
        raise NotImplementedError(f"{numbers.size * numbers.shape[-1]:,} pairs of numbers")
    values, places = (call.got(slot, np.arange(call.out.numel())).reshape((*numbers.shape[:-1], 1)) for slot in "01")
    counts = (numbers[..., :, None] == numbers[..., None, :]).sum(axis=-1)
    is_one = np.where(numbers == values, counts, 0).max(axis=-1) == counts.max(axis=-1)
    named = np.take_along_axis(numbers, np.clip(places.astype(np.int64), 0, numbers.shape[-1] - 1), axis=-1)
    picked = np.arange(call.out.numel())
    largest = np.take_along_axis(numbers, counts.argmax(axis=-1)[..., None], axis=-1)
    true = np.where(is_one[..., None], values, largest)
    yield "0", picked, Bounded.exactly(true.reshape(-1), EXACT)
    yield "1", picked, Bounded.exactly(np.where(named == values, places, -1.0).reshape(-1), EXACT)


def parts_of(call: Call) -> Found:
    """frexp: mantissa and exponent."""
    numbers = call.read(call["self"])
    if numbers.error.any():
        raise NotImplementedError("a choice that rounding can decide")
    for slot, part in enumerate(np.frexp(middle(numbers.value))):
        yield str(slot), np.arange(call.out.numel()), Bounded.exactly(part.reshape(-1).astype(np.float64), EXACT)


def counts_of(call: Call) -> Found:
    """bincount: how often each whole number is there, or the sum of its weights."""
    if call["weights"] is not None:
        raise NotImplementedError("weights")
    counts = np.bincount(call["self"].cpu().numpy(), minlength=call["minlength"])
    true = counts if len(counts) == call.out.numel() else np.full(call.out.numel(), -1)
    yield "0", np.arange(call.out.numel()), Bounded.exactly(true.astype(np.float64), EXACT)


def histogram_of(call: Call) -> Found:
    """histc: how many numbers are in each of equal bins; those at an edge may be counted on either side."""
    read, bins = call.read(call["self"]), int(call["bins"])
    if read.error.any():
        raise NotImplementedError("a choice that rounding can decide")
    numbers, (low, high) = middle(read.value).reshape(-1), (float(call[name]) for name in ("min", "max"))
    if low == high:
        low, high = (numbers.min(), numbers.max()) if len(numbers) else (low, high)
        low, high = (low - 1, high + 1) if low == high else (low, high)
    places = (numbers[(numbers >= low) & (numbers <= high)] - low) / (high - low) * bins
    counts = np.bincount(np.clip(np.floor(places).astype(np.int64), 0, bins - 1), minlength=bins)
    edges = np.rint(places).astype(np.int64)
    size = max(abs(low), abs(high)) / (high - low) + 1
    at_edge = (np.abs(places - edges) <= 4 * FORMATS[call.dtype].u * bins * size) & (edges > 0) & (edges < bins)
    doubts = np.bincount(edges[at_edge], minlength=bins + 1)
    yield "0", np.arange(bins), Bounded(counts.astype(np.float64), 1.0 * (doubts[:-1] + doubts[1:]), EXACT)


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
