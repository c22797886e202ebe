"""Inputs on which kernels fail: `hard_inputs` draws them; `assert_proved` proves a kernel on them, for a test."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.utils._pytree as pytree

from lntx.base.errors import BadInput
from lntx.proof.bounds.numbers import FORMATS
from lntx.proof.kernels import Function, KernelProof, prove_kernel

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Draw = np.random.Generator
Shape = Sequence[int | str]

SIZES = (1, 2, 3, 17, 33, 64, 127)
"""What a named size of a shape is drawn from: one row, odd sizes, a power of two, one less."""

_LINES = 24


def _wide(draw: Draw, shape: tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    reach = min(6.0, np.log10(torch.finfo(dtype).max) / 3)
    numbers: np.ndarray = draw.normal(size=shape) * 10 ** draw.uniform(-reach, reach, shape)
    return numbers


def _large(draw: Draw, shape: tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    size = np.sqrt(torch.finfo(dtype).max) / 64
    numbers: np.ndarray = size * draw.uniform(0.5, 1, shape) * draw.choice([-1, 1], shape)
    return numbers


def _nonfinite(draw: Draw, shape: tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    numbers = draw.normal(size=shape)
    numbers[draw.random(shape) < 0.05] = draw.choice([np.inf, -np.inf, np.nan])
    return numbers


KINDS: Mapping[str, Callable[[Draw, tuple[int, ...], torch.dtype], np.ndarray]] = {
    "ordinary": lambda draw, shape, _dtype: draw.normal(size=shape),
    "cancelling": lambda draw, shape, _dtype: 64 + draw.normal(size=shape),
    "wide range": _wide,
    "large": _large,
    "tiny": lambda draw, shape, dtype: np.sqrt(torch.finfo(dtype).tiny) * draw.normal(size=shape),
    "subnormal": lambda draw, shape, dtype: torch.finfo(dtype).tiny * draw.normal(size=shape),
    "zeros": lambda _draw, shape, _dtype: np.zeros(shape),
    "ties": lambda draw, shape, _dtype: draw.integers(-1, 2, shape).astype(float),
    "one large": lambda draw, shape, _dtype: np.where(draw.random(shape) < 0.02, 100, 1) * draw.normal(size=shape),
    "not contiguous": lambda draw, shape, _dtype: draw.normal(size=shape),
    "not finite": _nonfinite,
}
"""Kinds of numbers."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Inputs of one kind, and how to draw them again."""

    kind: str
    """One of KINDS."""

    sizes: Mapping[str, int]
    """The named sizes of the shapes."""

    seed: int
    """Seed of the numbers."""

    arguments: tuple[Any, ...]
    """Shapes, and other arguments as they are."""

    dtype: torch.dtype
    """Format of the numbers."""

    requires_grad: bool
    """Whether the tensors require a gradient."""

    @property
    def inputs(self) -> tuple[Any, ...]:
        """The inputs, drawn anew, so that a kernel may write to them."""
        draw = np.random.default_rng(self.seed)
        return tuple(self._input(draw, argument) for argument in self.arguments)

    def _input(self, draw: Draw, argument: Any) -> Any:
        if callable(argument):
            return argument(draw, self.sizes)
        if not _is_shape(argument):
            return argument
        shape = tuple(self.sizes[size] if isinstance(size, str) else size for size in argument)
        numbers = torch.from_numpy(np.asarray(KINDS[self.kind](draw, shape, self.dtype))).to(self.dtype)
        if self.kind == "not contiguous" and numbers.dim():
            # Every second number of the memory.
            numbers = torch.stack([numbers, numbers], dim=-1)[..., 0]
        return numbers.requires_grad_(self.requires_grad)

    def smaller(self) -> Iterator[Case]:
        """Yield the same with one size smaller."""
        for name, size in self.sizes.items():
            for less in SIZES:
                if less < size:
                    yield dataclasses.replace(self, sizes={**self.sizes, name: less})

    def __str__(self) -> str:
        """The case as code."""
        named = ", ".join(f"{name!r}: {size}" for name, size in self.sizes.items())
        shapes = ", ".join(
            str(argument) if not callable(argument) else argument.__name__ for argument in self.arguments
        )
        return (
            f"Case(kind={self.kind!r}, sizes={{{named}}}, seed={self.seed}, arguments=({shapes},), dtype={self.dtype}, "
            f"requires_grad={self.requires_grad})"
        )


def _is_shape(argument: Any) -> bool:
    return isinstance(argument, tuple) and all(isinstance(size, (int, str)) for size in argument)


def hard_inputs(
    reference: Function,
    *arguments: Any,
    dtype: torch.dtype = torch.float32,
    requires_grad: bool = True,
    nonfinite: bool = False,
    empty: bool = False,
    seed: int | None = None,
) -> list[Case]:
    """Return cases on which kernels fail: of each kind of numbers, and of each size.

    reference: what the kernel means; a case on which it raises, gives numbers that are not finite, or has no finite
    bound is left out.
    arguments: in the order of its parameters: shapes, such as ("n", 64), whose named sizes are drawn from SIZES;
    functions of a generator of numpy and the named sizes, for labels or indexes; or values as they are. dtype: of the
    numbers. nonfinite: add infinities and NaN. empty: add named sizes of 0. seed: of all; a new one by default, which
    each case prints.

    Raises: BadInput: no argument is a shape; no case is left.
    """
    shapes = [argument for argument in arguments if _is_shape(argument)]
    if not shapes:
        raise BadInput("hard_inputs needs the shape of an input, such as ('n', 64)")
    if dtype not in FORMATS:
        raise BadInput(f"{dtype} has no bounds: {', '.join(map(str, FORMATS))} have")
    names = list(dict.fromkeys(size for shape in shapes for size in shape if isinstance(size, str)))
    first = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
    draw = np.random.default_rng(first)
    ordinary = [dict.fromkeys(names, size) for size in (*SIZES, *([0] if empty else []))] if names else []
    random_sizes = [{name: int(draw.choice(SIZES[2:])) for name in names} for _ in KINDS]
    kinds = [kind for kind in KINDS if nonfinite or kind != "not finite"]
    chosen = [*(("ordinary", sizes) for sizes in ordinary), *zip(kinds, random_sizes, strict=False)]
    cases = [
        Case(kind=kind, sizes=sizes, seed=first + k, arguments=arguments, dtype=dtype, requires_grad=requires_grad)
        for k, (kind, sizes) in enumerate(chosen)
    ]
    left = [case for case in cases if _is_defined(reference, case, nonfinite=nonfinite)]
    if not left:
        raise BadInput(f"the reference gives no finite numbers for any of {len(cases)} cases: give other shapes")
    return left


def strategy(
    reference: Function, *arguments: Any, dtype: torch.dtype = torch.float32, requires_grad: bool = True
) -> SearchStrategy[Case]:
    """Return the cases of `hard_inputs` as a strategy of hypothesis, which shrinks to ordinary numbers and small sizes.

    Needs hypothesis. Arguments are as there.
    """
    from hypothesis import strategies as st

    shapes = [argument for argument in arguments if _is_shape(argument)]
    names = dict.fromkeys(size for shape in shapes for size in shape if isinstance(size, str))
    return st.builds(
        Case,
        kind=st.sampled_from([kind for kind in KINDS if kind != "not finite"]),
        sizes=st.fixed_dictionaries({name: st.sampled_from(SIZES) for name in names}),
        seed=st.integers(0, 2**32 - 1),
        arguments=st.just(arguments),
        dtype=st.just(dtype),
        requires_grad=st.just(requires_grad),
    ).filter(lambda case: _is_defined(reference, case, nonfinite=False))


def _is_defined(reference: Function, case: Case, *, nonfinite: bool) -> bool:
    try:
        with torch.no_grad():
            results = pytree.tree_leaves(reference(*case.inputs))
        finite = all(bool(torch.isfinite(result).all()) for result in results if isinstance(result, torch.Tensor))
        if not finite and not (nonfinite and case.kind == "not finite"):
            return False
        return not prove_kernel(reference, reference, *case.inputs, seed=case.seed).unchecked
    except (RuntimeError, ValueError, IndexError):
        return False


def assert_proved(
    kernel: Function,
    reference: Function,
    inputs: Iterable[Any],
    *,
    accumulate: torch.dtype | None = None,
) -> None:
    """Assert that a kernel is right, in a test: `assert_proved(kernel, reference, hard_inputs(reference, ("n", 64)))`.

    inputs: cases of `hard_inputs`, or one tuple of inputs. A case that fails is made smaller while it fails.

    Raises: AssertionError: with the output, the element, and the case as code, in at most 24 lines.
    """
    entries = list(inputs)
    for entry in entries if all(isinstance(case, Case) for case in entries) else [entries]:
        proof = _proof(kernel, reference, entry, accumulate)
        if proof.passed:
            continue
        while isinstance(entry, Case):
            failing = ((case, _proof(kernel, reference, case, accumulate)) for case in entry.smaller())
            smaller = next(((case, result) for case, result in failing if result.wrong), None)
            if smaller is None:
                break
            entry, proof = smaller  # noqa: PLW2901 (the smallest case that fails is shown)
        name = getattr(kernel, "__name__", "the kernel")
        lines = [f"{name} is not proved: {proof.reason}", *str(proof).splitlines()[:-1]]
        if isinstance(entry, Case):
            lines.append(f"inputs = lntx.proof.hard_inputs.{entry}.inputs")
        raise AssertionError("\n".join(itertools.islice(lines, _LINES)))


def _proof(kernel: Function, reference: Function, entry: Any, accumulate: torch.dtype | None) -> KernelProof:
    inputs = entry.inputs if isinstance(entry, Case) else entry
    return prove_kernel(kernel, reference, *inputs, accumulate=accumulate, seed=getattr(entry, "seed", None))
