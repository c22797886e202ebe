"""`prove_kernel`: hold a kernel against a plain PyTorch function that says what it means, on numbers with bounds.

The function is traced to ATen and computed with the bound of each step, so that no tolerance is chosen: a kernel is
right if each element lies where some faithful evaluation in these formats could put it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from lntx.base.errors import BadInput
from lntx.base.text import align
from lntx.proof.bounds.call import Call, in_format_of
from lntx.proof.bounds.numbers import FORMATS, Bounded, middle
from lntx.proof.operators.decomposition import trace
from lntx.proof.operators.graph import evaluate
from lntx.proof.operators.rows import Phase, judge_numbers, share_text
from lntx.proof.result import Proof

if TYPE_CHECKING:
    import pandas as pd

Function = Callable[..., Any]

_MOST_NUMBERS = 2**24
# An error beyond this many times eager's is worth a word.
_WORSE = 2.0
# Fewer digits than this, and the bound tells little.
_FEW_DIGITS = 1.0
_FRESH = frozenset({"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"})


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output of a kernel, or one of its gradients, and how far it is from the truth."""

    phase: Phase
    """forward or backward."""

    name: str
    """Such as "result 0" or "gradient of input 1"."""

    dtype: str
    """Its format."""

    elements: int
    """Number of elements that were compared."""

    share: float
    """Largest |computed - true| / bound; over 1 is wrong."""

    eager: float
    """The same of torch's own kernels on the same inputs; NaN if they could not be compared."""

    digits: float
    """Digits that the bound leaves, in the median element: few where the inputs cancel."""

    @property
    def verdict(self) -> str:
        """right, worse than eager (within the bound, and over twice as far as torch's kernels), or wrong."""
        if not self.share <= 1:
            return "wrong"
        return "worse than eager" if self.share > _WORSE * self.eager else "right"


class KernelProof(Proof):
    """The result of `prove_kernel`. It has passed if every output and gradient was compared, and none is wrong."""

    def __init__(self, *, seed: int) -> None:
        super().__init__(seed=seed)
        self.outputs: list[Output] = []
        self.notes: list[str] = []

    @property
    def passed(self) -> bool:
        """Whether every output was compared, and none is wrong."""
        return bool(self.outputs) and not self.wrong and not self.unchecked

    @property
    def reason(self) -> str | None:
        """What is wrong first, or what could not be compared; None if the proof passed."""
        if self.wrong:
            return self.wrong[0].what
        if self.unchecked:
            return "; ".join(f"{entry.operator} could not be checked: {entry.why}" for entry in self.unchecked.values())
        return None if self.outputs else "the kernel returned no numbers"

    @property
    def rows(self) -> pd.DataFrame:
        """One row per output: phase, name, dtype, elements, share, eager, digits, verdict."""
        import pandas as pd

        return pd.DataFrame([vars(output) | {"verdict": output.verdict} for output in self.outputs])

    @property
    def _verdict(self) -> str:
        return (
            f"{'PASS' if self.passed else 'FAIL'}  {self.reason or f'{len(self.outputs)} outputs within their bounds'}"
        )

    def __str__(self) -> str:
        """The table, the notes, and the verdict."""
        head = ("phase", "output", "dtype", "elements", "share of bound", "eager's", "digits", "verdict")
        words = [
            (
                *(row.phase, row.name, row.dtype, f"{row.elements:,}", share_text(row.share)),
                *(share_text(row.eager), f"{row.digits:.1f}", row.verdict),
            )
            for row in self.outputs
        ]
        return "\n".join([*align([head, *words]), *(f"note: {note}" for note in self.notes), self._verdict])


def prove_kernel(
    kernel: Function,
    reference: Function,
    *inputs: Any,
    accumulate: torch.dtype | None = None,
    seed: int | None = None,
) -> KernelProof:
    """Hold the outputs of a kernel, and its gradients, against what a plain PyTorch function means.

    kernel, reference: both are called with the inputs and return a tensor, or tensors. The reference says in which
    format each step rounds, by what it computes in. inputs: tensors and other arguments; tensors that require a
    gradient are checked backward too. accumulate: a format that the kernel promises for all steps inside, such as
    torch.float32 for inputs of 16 bits; results are rounded once, to the format of the kernel's. seed: of the gradients
    that are sent backward; by default a new one.

    Raises: BadInput: the inputs or the outputs are no tensors, or too many numbers. NotImplementedError is not raised:
    what cannot be compared is in `unchecked`.
    """
    tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
    if not tensors:
        raise BadInput("a kernel is proved on tensors, and no input is one")
    if (count := sum(tensor.numel() for tensor in tensors)) > _MOST_NUMBERS:
        raise BadInput(
            f"the inputs have {count:,} numbers, at most {_MOST_NUMBERS:,} are compared: give smaller shapes"
        )
    proof = KernelProof(seed=int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed)
    generator = torch.Generator().manual_seed(proof.seed)
    eager = _Outcome.of(reference, inputs, None, generator)
    cotangents = eager.cotangents
    before = [_fresh(tensor) for tensor in tensors]
    outcome = _Outcome.of(kernel, inputs, cotangents, generator, fill=math.nan)
    if len(outcome.results) != len(eager.results):
        raise BadInput(f"the kernel returns {len(outcome.results)} tensors, the reference {len(eager.results)}")
    try:
        with np.errstate(all="ignore"):
            expected = _expected(reference, inputs, cotangents, eager, accumulate)
    except NotImplementedError as error:
        proof.miss("the reference", f"{error} is not covered")
        return proof
    except Exception as error:
        # A reference may read its values, or have shapes that no formula knows.
        proof.miss("the reference", f"it cannot be traced and bounded: {type(error).__name__}: {error}"[:300])
        return proof
    _compare(proof, outcome, eager, expected)
    again = _Outcome.of(kernel, inputs, cotangents, generator, fill=0.0)
    if len(again.all) != len(outcome.all) or not all(map(_same_bits, outcome.all, again.all)):
        other = KernelProof(seed=proof.seed)
        _compare(other, again, eager, expected)
        if proof.wrong and other.passed:
            message = "it is right only where fresh memory holds zeros: it reads what it never wrote"
            proof.blame("forward", "memory", "", message)
            proof.wrong.insert(0, proof.wrong.pop())
        elif not proof.wrong and other.wrong:
            proof.blame("forward", "kernel", "", f"the second call on the same inputs is wrong: {other.wrong[0].what}")
        else:
            proof.notes.append("two runs on the same inputs differ in their bits")
    changed = [k for k, (old, new) in enumerate(zip(before, outcome.inputs, strict=True)) if not _same_bits(old, new)]
    if changed:
        proof.notes.append(f"the kernel writes to its inputs {', '.join(map(str, changed))}")
    return proof


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """What a function returned, and its gradients."""

    inputs: list[torch.Tensor]
    results: list[torch.Tensor]
    gradients: dict[int, torch.Tensor]
    cotangents: dict[int, torch.Tensor]

    @property
    def all(self) -> list[torch.Tensor]:
        return [*self.results, *self.gradients.values()]

    @staticmethod
    def of(
        function: Function,
        inputs: Sequence[Any],
        cotangents: dict[int, torch.Tensor] | None,
        generator: torch.Generator,
        fill: float | None = None,
    ) -> _Outcome:
        """Call a function, and send gradients backward. cotangents: those, by result; None draws them.

        fill: what fresh memory holds.
        """
        fresh = [_fresh(value) if isinstance(value, torch.Tensor) else value for value in inputs]
        tensors = [value for value in fresh if isinstance(value, torch.Tensor)]
        differentiated = [k for k, tensor in enumerate(tensors) if tensor.requires_grad]
        with torch.enable_grad(), _Filled(fill):
            # A leaf that a kernel writes to would be refused.
            values = iter([tensor.view_as(tensor) if tensor.requires_grad else tensor for tensor in tensors])
            called = [next(values) if isinstance(value, torch.Tensor) else value for value in fresh]
            results = [value for value in pytree.tree_leaves(function(*called)) if isinstance(value, torch.Tensor)]
            if cotangents is None:
                cotangents = {
                    k: torch.randn(result.shape, generator=generator).to(result)
                    for k, result in enumerate(results)
                    if result.requires_grad and differentiated
                }
            sent = {
                k: value
                for k, value in cotangents.items()
                if k < len(results) and results[k].requires_grad and results[k].shape == value.shape
            }
            gradients: Sequence[torch.Tensor | None] = ()
            if sent:
                gradients = torch.autograd.grad(
                    [results[k] for k in sent],
                    [tensors[k] for k in differentiated],
                    [value.to(results[k]) for k, value in sent.items()],
                    allow_unused=True,
                )
        return _Outcome(
            inputs=tensors,
            results=[result.detach() for result in results],
            gradients={k: value for k, value in zip(differentiated, gradients, strict=bool(sent)) if value is not None},
            cotangents=cotangents,
        )


def _expected(
    reference: Function,
    inputs: Sequence[Any],
    cotangents: dict[int, torch.Tensor],
    eager: _Outcome,
    accumulate: torch.dtype | None,
) -> list[Bounded | None]:
    """Return the true values of the results, then of the gradients in the order of `eager`."""
    tensors = [value.detach().cpu().contiguous() for value in inputs if isinstance(value, torch.Tensor)]
    sent = [value.detach().cpu().contiguous() for value in cotangents.values()]

    def run(*values: torch.Tensor) -> list[Any]:
        values_in = [
            value if accumulate is None or not value.is_floating_point() else value.to(accumulate) for value in values
        ]
        leaves = [
            value.detach().requires_grad_() if k in eager.gradients else value
            for k, value in enumerate(values_in[: len(tensors)])
        ]
        source = iter(leaves)
        with torch.enable_grad():
            called = [next(source) if isinstance(value, torch.Tensor) else value for value in inputs]
            results = [value for value in pytree.tree_leaves(reference(*called)) if isinstance(value, torch.Tensor)]
            if not eager.gradients:
                return results
            gradients = torch.autograd.grad(
                [results[k] for k in cotangents],
                [leaves[k] for k in eager.gradients],
                [value.to(results[k].dtype) for k, value in zip(cotangents, values_in[len(tensors) :], strict=True)],
            )
        return [*(result.detach() for result in results), *gradients]

    return evaluate(trace(run, [*tensors, *sent]), [*tensors, *sent])


def _compare(proof: KernelProof, outcome: _Outcome, eager: _Outcome, expected: Sequence[Bounded | None]) -> None:
    names: list[tuple[Phase, str, torch.Tensor | None, torch.Tensor]] = [
        ("forward", f"result {k}", got, usual)
        for k, (got, usual) in enumerate(zip(outcome.results, eager.results, strict=True))
    ]
    if outcome.gradients or not eager.gradients:
        names += [
            ("backward", f"gradient of input {k}", outcome.gradients.get(k), usual)
            for k, usual in eager.gradients.items()
        ]
    else:
        proof.notes.append("the kernel has no gradients: only its results were checked")
    for k in outcome.gradients.keys() - eager.gradients.keys():
        if outcome.gradients[k].any():
            message = f"gradient of input {k} is not 0, and the reference does not depend on it"
            proof.blame("backward", f"gradient of input {k}", "", message)
    for (phase, name, got, usual), want in zip(names, expected, strict=False):
        if got is None:
            proof.blame(phase, name, "", f"{name} is missing: autograd found no path to it")
            continue
        dtype = str(got.dtype).removeprefix("torch.")
        if got.shape != usual.shape or want is None:
            message = f"{name} has the shape {tuple(got.shape)}, not {tuple(usual.shape)}"
            proof.blame(phase, name, dtype, message)
            continue
        if got.dtype != usual.dtype:
            proof.blame(phase, name, dtype, f"{name} is {dtype}, not {str(usual.dtype).removeprefix('torch.')}")
            continue
        _judge(proof, phase, name, got, usual, want)


def _judge(proof: KernelProof, phase: Phase, name: str, got: torch.Tensor, usual: torch.Tensor, want: Bounded) -> None:
    call, eager = Call(name, {}, [got.cpu()]), Call(name, {}, [usual.cpu()])
    flat, dtype = np.arange(got.numel()), str(got.dtype).removeprefix("torch.")
    eager_share = math.nan
    try:
        with np.errstate(all="ignore"):
            judged = judge_numbers(call, [("0", flat, want)])
            eager_share = judge_numbers(eager, [("0", flat, want)]).share
            digits = _digits(in_format_of(got, want, call))
    except NotImplementedError as error:
        proof.miss(name, str(error))
        return
    if judged.share > 1 and judged.place is not None:
        place = judged.place
        message = f"{name}[{', '.join(map(str, place.index))}] is {place.got!r}, the true value is {place.true!r}; "
        message += f"rounding allows {place.bound:.2g}, it is {abs(place.got - place.true):.2g} away"
        note = (
            f"torch's own kernel is {share_text(eager_share)} of the bound away too" if eager_share > 1 else place.note
        )
        proof.blame(phase, name, dtype, message + (f"; {note}" if note else ""), place)
    if judged.elements < got.numel():
        proof.notes.append(
            f"{name}: {got.numel() - judged.elements:,} of {got.numel():,} elements have no finite bound"
        )
    if digits < _FEW_DIGITS and got.dtype in FORMATS:
        proof.notes.append(
            f"{name}: the bound leaves {max(digits, 0.0):.1f} digits, since the inputs cancel or the steps are many: a "
            "wrong kernel may pass; try other inputs, or accumulate="
        )
    proof.outputs.append(
        Output(
            phase=phase,
            name=name,
            dtype=dtype,
            elements=judged.elements,
            share=judged.share,
            eager=eager_share,
            digits=digits,
        )
    )


def _digits(numbers: Bounded) -> float:
    """Return -log10 of the bound relative to the value, in the median element that is not 0; inf if it is exact."""
    value, error = np.abs(middle(numbers.value)), np.broadcast_to(numbers.error, np.shape(numbers.value))
    chosen = np.isfinite(value) & np.isfinite(error) & (value > 0)
    if not chosen.any() or not (relative := float(np.median(error[chosen] / value[chosen]))):
        return math.inf
    return -math.log10(relative)


class _Filled(TorchDispatchMode):
    """Fills fresh memory, which may hold anything: what reads it shows."""

    def __init__(self, fill: float | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fill = fill

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self._fill is not None and func._schema.name.removeprefix("aten::") in _FRESH and out.numel():
            if out.is_floating_point() or out.is_complex() or not math.isnan(self._fill):
                out.fill_(self._fill)
            elif out.dtype != torch.bool:
                out.fill_(torch.iinfo(out.dtype).max)
        return out


def _fresh(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy with the same strides, in memory of its own."""
    # A conjugate or a negative that is only marked would lose its mark.
    tensor = tensor.resolve_conj().resolve_neg()
    storage = tensor.detach().untyped_storage().clone()
    copy = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    copy.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())
    return copy.requires_grad_(tensor.requires_grad)


def _same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    bits = (tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (first, second))
    return torch.equal(*bits)
