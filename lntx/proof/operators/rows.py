"""The judgement of a call, and the table of all calls: operator, format and phase."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from lntx.proof.bounds.call import Call, in_format_of
from lntx.proof.bounds.numbers import FORMATS, Array, Bounded, as_balls, middle
from lntx.proof.bounds.schema import tensors_of
from lntx.proof.formulas import FORMULAS, MOVES, OWN_FORMAT, bits, is_move
from lntx.proof.formulas.certificates import CERTIFICATES, MAY_BE_INFINITE, OF_COMPLEX, Residual
from lntx.proof.operators.decomposition import by_decomposition
from lntx.proof.operators.whole import suspects

Phase = Literal["forward", "backward", "optimizer"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """One element of a result."""

    slot: str
    """Number of the output, or name of the argument that was written."""

    index: tuple[int, ...]
    """Index of the element."""

    got: float
    """The computed value."""

    true: float
    """The true value."""

    bound: float
    """Largest distance between them that rounding allows."""

    note: str = ""
    """What the value looks like."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The comparison of one call with its formula."""

    elements: int
    """Number of elements that were compared."""

    share: float
    """Largest |computed - true| / bound; over 1 is wrong."""

    strict: float
    """The same with sums in float32, where the kernel adds in its own format of 16 bits; else equal to share."""

    place: Place | None
    """Where the share is largest; None if nothing was compared."""


def judge(call: Call) -> Judged:
    """Compare a call with its formula. What is wrong in float64 arithmetic is computed again in balls.

    Raises: NotImplementedError: the formula does not cover these arguments.
    """
    tensors = tensors_of((*call.args.values(), *call.outputs))
    if any(tensor.layout != torch.strided or tensor.is_nested for tensor in tensors):
        raise NotImplementedError("a sparse or nested tensor")
    if call.outputs and not any(tensor.numel() for tensor in tensors_of((*call.outputs, *call.after.values()))):
        return Judged(elements=0, share=0.0, strict=0.0, place=None)
    if is_move(call.name, call.args):
        return _compare_bits(call)
    certificates = OF_COMPLEX if any(tensor.is_complex() for tensor in tensors) else {}
    if call.name in CERTIFICATES or call.name in certificates:
        return _certified(call, {**CERTIFICATES, **certificates}[call.name](call))
    has_formula = call.name in FORMULAS
    if call.dtype == torch.float64 and has_formula:
        call = call.again(as_balls=True)
    judgement = _compare(call)
    strict = judgement.share
    if judgement.share <= 1 and call.is_sampled and len(places := suspects(call)):
        sampled, call = judgement.elements, call.again(as_balls=call.as_balls, places=places)
        judgement = _compare(call)
        judgement = dataclasses.replace(judgement, elements=judgement.elements + sampled)
        strict = max(strict, judgement.share)
    if judgement.share > 1 and call.name in OWN_FORMAT and call.dtype in (torch.bfloat16, torch.float16):
        call = call.again(own_format=True, places=call.places)
        judgement = _compare(call)
    if judgement.share > 1 and judgement.place is not None and not call.as_balls and has_formula:
        judgement = _in_balls(call, judgement)
    return dataclasses.replace(judgement, strict=max(strict, judgement.share))


def _in_balls(call: Call, judgement: Judged) -> Judged:
    """Compute the worst element again; the number of elements stays that of the first comparison."""
    place = judgement.place
    assert place is not None
    shape = tuple(call.result(place.slot).shape)
    flat = int(np.ravel_multi_index(place.index, shape)) if shape else 0
    again = _compare(call.again(as_balls=True, own_format=call.own_format, focus=(place.slot, flat)))
    if again.share <= 1:
        return dataclasses.replace(again, elements=judgement.elements)
    assert again.place is not None
    noted = dataclasses.replace(again.place, note=_looks_like(call, again.place))
    return dataclasses.replace(again, elements=judgement.elements, place=noted)


def _compare(call: Call) -> Judged:
    # Infinite numbers are part of many models: masks, for one.
    with np.errstate(all="ignore"):
        numbers = FORMULAS.get(call.name, by_decomposition)(call)
        return judge_numbers(call, _with_poles(call, numbers) if call.as_balls else numbers)


def _certified(call: Call, residuals: Iterable[Residual]) -> Judged:
    """Compare what must be 0 with what rounding explains. The place is one of it, not one of the result."""
    elements, worst, place = 0, 0.0, _infinite(call)
    if place is not None:
        return Judged(elements=call.result(place.slot).numel(), share=np.inf, strict=np.inf, place=place)
    with np.errstate(all="ignore"):
        for slot, what, residual, bound in residuals:
            sizes = np.abs(residual)
            shares = np.where(sizes == 0, 0.0, sizes / bound)
            is_known = np.isfinite(sizes) & np.isfinite(bound)
            elements += int(is_known.sum())
            shares = np.where(is_known, shares, 0.0)
            if shares.size and (place is None or shares.max() > worst):
                index = np.unravel_index(int(shares.argmax()), shares.shape)
                worst = float(shares[index])
                place = Place(
                    slot=slot,
                    index=tuple(int(k) for k in index),
                    got=float(sizes[index]),
                    true=0.0,
                    bound=float(bound[index]),
                    note=f"not of the result itself, but of {what}",
                )
    if not elements and place is not None:
        raise NotImplementedError(f"{call.name} of numbers that are not finite")
    return Judged(elements=elements, share=worst, strict=worst, place=place)


def _infinite(call: Call) -> Place | None:
    """Return the first number of a result that is not finite, where it must be: no residual would show it."""
    reports_failure = call.name.endswith("_ex") and bool(call.outputs[-1].any())
    if call.name in MAY_BE_INFINITE or reports_failure:
        return None
    largest = [tensor.abs().max() / torch.finfo(tensor.dtype).max ** 0.25 for tensor in _fractions(call.args.values())]
    # One that is no number is not smaller either.
    if not all(bool(size < 1) for size in largest):
        return None
    for slot, result in enumerate(call.outputs):
        for tensor in _fractions([result]):
            if not torch.isfinite(tensor).all():
                index = tuple(int(k) for k in torch.nonzero(~torch.isfinite(tensor))[0])
                note = "not of the result itself, but of what is no finite number in it"
                return Place(slot=str(slot), index=index, got=np.inf, true=0.0, bound=0.0, note=note)
    return None


def _fractions(values: Iterable[Any]) -> list[torch.Tensor]:
    return [
        tensor
        for tensor in tensors_of(values)
        if tensor.numel() and (tensor.is_floating_point() or tensor.is_complex())
    ]


def _with_poles(call: Call, numbers: Iterable[tuple[str, Array, Bounded]]) -> Iterator[tuple[str, Array, Bounded]]:
    """Take the value at a pole, such as 1/0, from IEEE arithmetic: a ball there is no number, and has no zero with a
    sign.
    """
    by_slot: dict[str, Bounded] | None = None
    for slot, flat, expected in numbers:
        at_pole = ~np.isfinite(middle(expected.value))
        if at_pole.any():
            if by_slot is None:
                by_slot = {name: values for name, _, values in FORMULAS[call.name](call.in_floats())}
            other = by_slot[slot]
            value = np.where(at_pole, as_balls(other.value), expected.value)
            yield slot, flat, expected.like(value, np.where(at_pole, other.error, expected.error))
        else:
            yield slot, flat, expected


def judge_numbers(call: Call, numbers: Iterable[tuple[str, Array, Bounded]]) -> Judged:
    """Compare the results of a call with what must be there. numbers: slots, flat indexes, and true values.

    Raises: NotImplementedError: nothing has a finite bound.
    """
    elements, worst, place = 0, 0.0, None
    for slot, flat, expected in numbers:
        result = call.result(slot)
        if result.is_complex() or (result.is_floating_point() and result.dtype not in FORMATS):
            raise NotImplementedError(f"the format {str(result.dtype).removeprefix('torch.')}")
        target_value = in_format_of(result, expected, call)
        got = call.got(slot, flat)
        shares = np.broadcast_to(target_value.share(got), got.shape)
        is_known = ~np.isnan(shares)
        elements += int(is_known.sum())
        shares = np.where(is_known, shares, 0.0)
        if len(shares) and (place is None or shares.max() > worst):
            k = int(shares.argmax())
            worst = float(shares[k])
            place = _place(slot, int(flat[k]), tuple(result.shape), got[k], target_value, k)
    if not elements and place is not None:
        raise NotImplementedError("a result without a finite bound")
    return Judged(elements=elements, share=worst, strict=worst, place=place)


def _place(slot: str, flat: int, shape: tuple[int, ...], got: float, numbers: Bounded, k: int) -> Place:
    true, bound = (
        np.broadcast_to(value, (max(k + 1, np.size(value)),)) for value in (middle(numbers.value), numbers.error)
    )
    index = tuple(int(value) for value in np.unravel_index(flat, shape)) if shape else ()
    note = "" if np.isfinite(got) or not np.isfinite(true[k]) else "a number inside the operator may be too large"
    return Place(slot=slot, index=index, got=float(got), true=float(true[k]), bound=float(bound[k]), note=note)


def _compare_bits(call: Call) -> Judged:
    expected, got = MOVES[call.name](call), bits(call.out)
    if expected.shape != got.shape:
        expected = np.broadcast_to(expected, got.shape)
    # Of numbers of 128 bits, all that are no number are the same.
    is_same = (expected == got) | (np.isnan(expected) & np.isnan(got))
    wrong = np.flatnonzero(~is_same.reshape(-1))
    if not len(wrong):
        return Judged(elements=got.size, share=0.0, strict=0.0, place=None)
    first = int(wrong[0])
    as_number = torch.from_numpy(np.ascontiguousarray(expected).reshape(-1)[first : first + 1].copy())
    as_number = as_number.bool() if call.out.dtype == torch.bool else as_number.view(call.out.dtype)
    index = tuple(int(amount) for amount in np.unravel_index(first, got.shape)) if got.shape else ()
    got_number, true = call.out.detach().reshape(-1)[first], as_number[0]
    if call.out.is_complex():
        # That of the two parts which differs.
        part = torch.real if got_number.real != true.real else torch.imag
        got_number, true = part(got_number.resolve_conj()), part(true)
    place = Place(slot="0", index=index, got=float(got_number), true=float(true), bound=0.0)
    return Judged(elements=got.size, share=float("inf"), strict=float("inf"), place=place)


# What the inputs of a product in float32 may have been rounded to: bits that are kept of the 23.
_COARSE = {"TF32": 10, "bfloat16": 7}
_PRODUCTS = {
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
    "baddbmm": ("batch1", "batch2"),
}


def _looks_like(call: Call, place: Place) -> str:
    """Return a note if a product in float32 is right for inputs that were rounded to fewer bits."""
    if call.name not in _PRODUCTS or call.dtype != torch.float32:
        return ""
    for name, num_bits in _COARSE.items():
        rounded = Call(call.name, dict(call.args), call.outputs, after=call.after, sample=call.sample)
        for argument in _PRODUCTS[call.name]:
            rounded.args[argument] = _with_bits(call.args[argument], num_bits)
        shape = tuple(call.out.shape)
        rounded.focus = ("0", int(np.ravel_multi_index(place.index, shape)) if shape else 0)
        if _compare(rounded).share <= 1:
            return f"right for inputs that are rounded to {name}"
    return ""


def _with_bits(tensor: torch.Tensor, num_bits: int) -> torch.Tensor:
    """Return float32 numbers rounded to so many bits after the point, half to even."""
    numbers = tensor.detach().cpu().to(torch.float64).numpy()
    fraction, exponent = np.frexp(numbers)
    return torch.from_numpy(
        np.ldexp(np.rint(np.ldexp(fraction, num_bits + 1)), exponent - num_bits - 1).astype(np.float32)
    )


@dataclass(kw_only=True)
class Row:
    """All calls of an operator in one format and phase."""

    phase: Phase
    operator: str
    dtype: str
    calls: int = 0
    elements: int = 0
    shares: list[float] = field(default_factory=list)
    strict: float = 0.0

    @property
    def largest(self) -> float:
        """Largest share of the bound."""
        return max(self.shares, default=0.0)

    @property
    def median(self) -> float:
        """Median over the calls of their largest share."""
        return statistics.median(self.shares) if self.shares else 0.0

    def add(self, judged: Judged) -> None:
        """Take in one call."""
        self.calls += 1
        self.elements += judged.elements
        self.shares.append(judged.share)
        self.strict = max(self.strict, judged.strict)


@dataclass(kw_only=True)
class Unchecked:
    """Calls of one operator that could not be checked."""

    operator: str
    why: str
    calls: int = 0


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Return rows by phase, then by the number of elements."""
    phases = ("forward", "backward", "optimizer")
    return sorted(rows, key=lambda row: (phases.index(row.phase), -row.calls, row.operator, row.dtype))


def share_text(share: float) -> str:
    """Return a share as a word for a table."""
    if share == 0:
        return "0"
    return f"{share:.2g}" if 1e-3 <= share < 1e4 else f"{share:.0e}"
