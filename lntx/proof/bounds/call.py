"""One call of an operator: its exact inputs and outputs, and the elements of them that are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lntx.proof.bounds.numbers import EXACT, FORMATS, IN_FLOATS, Array, Bounded, Format, as_balls, middle

_MOST_BALLS, _WHOLE_IN_BALLS = 1 << 14, 256

WHOLE = 1 << 14
"""Number of terms up to which every element of an output is checked."""


class Call:
    """A call, with the values that its formula needs.

    name: of the operator, without namespace, overload and the underscore of in-place forms. args: by the names of its
    schema, those that it writes as they were before. outputs: what it returned, or wrote. sample: number of elements
    of a large output to check. seed: of their choice.
    """

    def __init__(
        self,
        name: str,
        args: Mapping[str, Any],
        outputs: Sequence[Any],
        *,
        after: Mapping[str, Any] | None = None,
        sample: int = 16,
        seed: int = 0,
    ) -> None:
        self.name = name
        self.args = dict(args)
        self.after = dict(after or {})
        self.outputs = list(outputs)
        self.sample = sample
        self.own_format = False
        self.as_balls = False
        self.is_small = False
        self.focus: tuple[str, int] | None = None
        self.places: Array | None = None
        self.is_sampled = False
        self.is_in_graph = False
        self.seed = seed
        self._draw = np.random.default_rng(seed)

    def again(
        self,
        *,
        as_balls: bool = False,
        own_format: bool = False,
        focus: tuple[str, int] | None = None,
        places: Array | None = None,
    ) -> Call:
        """Return the same call, to be checked otherwise: in balls, in its own format, at one element of a slot, or at
        some elements of the first output.
        """
        call = Call(self.name, self.args, self.outputs, after=self.after, sample=self.sample, seed=self.seed)
        call.as_balls, call.own_format, call.focus, call.places = as_balls, own_format, focus, places
        return call

    def in_floats(self) -> Call:
        """Return the same call in float64 arithmetic, with the elements that are checked in balls."""
        call = self.again(own_format=self.own_format, focus=self.focus, places=self.places)
        call.is_small = True
        return call

    def __getitem__(self, name: str) -> Any:
        return self.args.get(name)

    @property
    def out(self) -> torch.Tensor:
        """The first output."""
        values = self.outputs[0]
        assert isinstance(values, torch.Tensor)
        return values

    def result(self, slot: str) -> torch.Tensor:
        """Return an output by its number, or a written argument by its name."""
        values = self.outputs[int(slot)] if slot.isdigit() else self.after[slot]
        assert isinstance(values, torch.Tensor)
        return values

    @property
    def dtype(self) -> torch.dtype:
        """The format of the result: that of the first floating output, else of the first floating argument."""
        for tensor in (*self.outputs, *self.after.values(), *self.args.values()):
            if isinstance(tensor, torch.Tensor) and tensor.dtype in FORMATS:
                return tensor.dtype
        return self.out.dtype if self.outputs and isinstance(self.out, torch.Tensor) else torch.int64

    @property
    def inner(self) -> Format:
        """The format of the arithmetic inside: float32 for the formats of 16 bits, but for a few operators."""
        dtype = self.dtype
        if dtype not in FORMATS:
            return EXACT
        if self.own_format or dtype == torch.float64:
            return (IN_FLOATS if self.is_in_graph else FORMATS)[dtype]
        return FORMATS[torch.float32]

    def pick(self, slot: str = "0", *, terms: int = 1) -> Array:
        """Return the flat indexes of the elements of an output to check: all, or a sample and both ends.

        terms: number of terms of the sum that an element is.
        """
        count = self.result(slot).numel()
        if self.focus is not None and self.focus[0] == slot:
            return np.array([self.focus[1]])
        if self.places is not None and slot == "0":
            return self.places
        if self.focus is not None:
            return np.arange(min(count, 1))
        is_small = self.as_balls or self.is_small
        whole = WHOLE if not is_small else _WHOLE_IN_BALLS
        if self.is_in_graph or count * terms <= whole or (count <= self.sample and not is_small):
            return np.arange(count)
        self.is_sampled = True
        most = max(_MOST_BALLS // terms, 2) if is_small else self.sample
        inner = self._draw.integers(0, count, max(min(self.sample, most) - 2, 0))
        return np.unique(np.concatenate([inner, [0, count - 1]]))

    def read(self, tensor: torch.Tensor, key: Any = ..., *, format: Format | None = None) -> Bounded:  # noqa: A002
        """Return elements of an input as exact numbers. key: an index of the tensor."""
        values = tensor.detach()[key]
        if values.is_complex() and not self.is_in_graph:
            raise NotImplementedError("a complex number")
        if values.is_complex():
            # Values and their bounds, as `graph` packs them.
            whole = np.atleast_1d(values.numpy())
            return Bounded(whole.real, whole.imag, format or self.inner)
        if values.dtype in FORMATS:
            values = values.to(torch.float64)
        elif values.is_floating_point():
            raise NotImplementedError(f"the format {str(values.dtype).removeprefix('torch.')}")
        array = np.atleast_1d(values.cpu().numpy())
        if array.dtype == np.int64 and ((array > 2**53) | (array < -(2**53))).any():
            raise NotImplementedError("whole numbers of more than 53 bits")
        array = array.astype(np.float64) if array.dtype != np.float64 else array
        return Bounded.exactly(as_balls(array) if self.as_balls else array, format or self.inner)

    def at(self, name: str, flat: Array, shape: Sequence[int]) -> Bounded:
        """Return an argument, broadcast to a shape, at flat indexes of that shape; a scalar as it is."""
        argument = self.args[name]
        if not isinstance(argument, torch.Tensor):
            zero = Bounded.exactly(as_balls(np.zeros(1)) if self.as_balls else np.zeros(1), self.inner)
            return zero.constant(float(argument))
        values = self.read(argument.detach().expand(tuple(shape)), unravel(flat, shape))
        kind = FORMATS.get(self.dtype)
        if not argument.dim() and kind is not None and argument.dtype in FORMATS and FORMATS[argument.dtype].u < kind.u:
            # A tensor without axes is rounded to the format of the result first, as a scalar is.
            values = values.rounded(kind)
        return values

    def got(self, slot: str, flat: Array) -> Array:
        """Return computed elements, float64."""
        result = self.result(slot).detach()
        return result[unravel(flat, result.shape)].to(torch.float64).cpu().numpy().reshape(-1)


def unravel(flat: Array, shape: Sequence[int]) -> tuple[Any, ...]:
    """Return one index per axis for flat indexes of a shape; of a shape without axes, the index that adds one."""
    if not len(shape):
        return (None,)
    return tuple(torch.from_numpy(np.ascontiguousarray(tensor)) for tensor in np.unravel_index(flat, tuple(shape)))


def in_format_of(result: torch.Tensor, expected: Bounded, call: Call) -> Bounded:
    """Return what must stand in a result: rounded to its format, where that is coarser than the arithmetic inside."""
    if result.dtype not in FORMATS:
        return _whole(result.dtype, expected)
    kind = FORMATS[result.dtype]
    inner = call.inner
    if kind.u > max(inner.u, expected.format.u):
        return expected.rounded(kind).in_format(kind)
    return expected.in_format(kind)


def _whole(dtype: torch.dtype, expected: Bounded) -> Bounded:
    """Return whole numbers as a format of n bits holds them: modulo 2^n; truth values are 0 and 1.

    What is too large for float64, or for a conversion from fractions, has no known value.
    """
    value = middle(expected.value)
    if dtype == torch.bool:
        return expected.like((value != 0).astype(np.float64), expected.error).in_format(EXACT)
    if expected.format.u == 0:
        # An average of whole numbers, or a limit that is a fraction.
        value = np.trunc(value)
    limits = torch.iinfo(dtype)
    outside = (value < limits.min) | (value > limits.max)
    if outside.any():
        is_known = np.isfinite(value) & (np.abs(value) < 2.0**53) & (expected.format.u == 0)
        wrapped = np.mod(np.where(is_known, value, 0.0) - limits.min, 2.0**limits.bits) + limits.min
        value = np.where(outside, np.where(is_known, wrapped, np.nan), value)
        return expected.like(value, np.where(outside & ~is_known, np.inf, expected.error)).in_format(EXACT)
    return expected.like(value, expected.error).in_format(EXACT)
