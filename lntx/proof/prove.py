"""`prove`: check what torch computes in a block of code, operator by operator, while it runs."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from lntx.base.errors import BadInput
from lntx.proof.bounds.call import Call
from lntx.proof.bounds.numbers import Array, Bounded
from lntx.proof.bounds.schema import (
    calls_of,
    has_bytes,
    kept_apart,
    multiply_adds,
    named,
    plain_name,
    tensors_of,
    written,
)
from lntx.proof.chain import Chain
from lntx.proof.operators.decomposition import NoFormula, expected_results
from lntx.proof.operators.rows import Phase, judge, judge_numbers
from lntx.proof.operators.views import wrong_view
from lntx.proof.result import Proof
from lntx.proof.steps import Before, kept_by, lost
from lntx.proof.watch import Watch

_RANDOM = frozenset(
    [
        "bernoulli",
        "cauchy",
        "exponential",
        "geometric",
        "log_normal",
        "multinomial",
        "normal",
        "rand",
        "rand_like",
        "randint",
        "randint_like",
        "randn",
        "randn_like",
        "random",
        "randperm",
        "uniform",
    ]
)
_WITHOUT_VALUES = frozenset(
    [
        "empty",
        "empty_like",
        "empty_strided",
        "empty_permuted",
        "new_empty",
        "new_empty_strided",
        "_linalg_check_errors",
        "_local_scalar_dense",
        "is_same_size",
        "set",
        "resize",
        "lift",
        "lift_fresh",
        "detach",
        "alias",
        "record_stream",
        "is_pinned",
        "_pin_memory",
        "_has_compatible_shallow_copy_type",
        "equal",
        "is_nonzero",
        "transpose",
        "t",
        "squeeze",
        "unsqueeze",
        "swapaxes",
        "as_strided",
        "unsafe_split",
        "unsafe_split_with_sizes",
        "unsafe_chunk",
        "sym_size",
        "sym_stride",
        "sym_numel",
    ]
)
_OF_SEVERAL_PROCESSES = ("c10d", "_c10d_functional", "fsdp")

Expected = Mapping[str, Mapping[str, frozenset[Any]]]
"""Values that scalar arguments may have, by operator and argument."""


class prove(TorchDispatchMode):  # noqa: N801
    """Check what torch computes in a block: `with prove() as proof:`.

    Each operator of forward, backward and optimiser is compared with its formula, within the bound of rounding errors;
    each step of an optimiser as a whole; and the bits between operators. Other threads of the program are not seen, and
    compiled code runs uncompiled in the block.

    sample: number of elements of a large result to check, at least 2; of a small one all are. seed: of their choice; by
    default a new one, which the proof prints. expected: see Expected. references: by operator of another library, such
    as "mylib::rms_norm", the plain PyTorch function that says what it means, with the same arguments.

    For a whole training: `prover = prove(every=100, model=model)`, and `with prover.step() as proof:` around each step;
    see `step`. every: how many steps there are to one that is checked. model: whose parameters and buffers are watched
    between steps.
    """

    def __init__(
        self,
        *,
        sample: int = 16,
        seed: int | None = None,
        expected: Expected | None = None,
        references: Mapping[str, Callable[..., Any]] | None = None,
        every: int = 1,
        model: torch.nn.Module | None = None,
    ) -> None:
        if every < 1:
            raise BadInput(f"every is 1 or more, got {every}")
        super().__init__()  # type: ignore[no-untyped-call]
        self._every, self._num_steps = every, 0
        self._watch = Watch(() if model is None else (model,))
        self._references = references or {}
        self.proof = Proof(sample=sample, seed=seed)
        self._expected = expected or {}
        self._chain = Chain()
        self._draw = np.random.default_rng(self.proof.seed)
        # The backward pass of a GPU runs in a thread of its own.
        self._lock = threading.RLock()
        self._steps: dict[int, Before] = {}
        self._held: dict[int, Any] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> Proof:
        """Begin to check.

        Raises: BadInput: this object is in use.
        """
        if self._hooks:
            raise BadInput("this proof is running: make another one with lntx.prove()")
        # torch imports it in the first step of an optimiser, and computes meanwhile.
        importlib.import_module("torch._dynamo")
        self._hooks = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        self.proof.whereabouts.begin()
        self._resize = torch.UntypedStorage.resize_
        torch.UntypedStorage.resize_ = self._forget_resized  # type: ignore[assignment, method-assign]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self.proof

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self.proof.whereabouts.end()

    @contextlib.contextmanager
    def step(self) -> Iterator[Proof]:
        """Check a step of a training: the first one and every `every`-th after it as in a block of its own.

        Before each step the parameters and buffers of the model, and what the optimisers of the checked steps hold,
        must have the bits that they had after the step before, unless an operator of torch wrote to them meanwhile.

        Raises: BadInput: this object is in use.
        """
        with _disable_current_modes():
            for name in self._watch.changed():
                message = f"{name} changed between steps {self._num_steps} and {self._num_steps + 1}"
                self.proof.blame("forward", "memory", "", f"{message}, and no operator of torch wrote to it")
        if self._num_steps % self._every == 0:
            # What lies between two steps is watched otherwise.
            self._chain = Chain()
            self._held = self._held if self._every == 1 else {}
            with self:
                yield self.proof
        else:
            yield self.proof
        self._num_steps += 1
        with _disable_current_modes():
            self._watch.note()

    @property
    def _forget_resized(self) -> Callable[[torch.UntypedStorage, int], Any]:
        """What resizes a storage in the block: its bytes are then no operator's."""

        def resize(storage: torch.UntypedStorage, size: int) -> Any:
            self._chain.drop(storage)
            return self._resize(storage, size)

        return resize

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, and compare it with its formula."""
        with self._lock:
            return self._checked(func, args, kwargs or {})

    def _checked(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        namespace, name = func._schema.name.split("::")
        if namespace in _OF_SEVERAL_PROCESSES:
            return self._not_followed(func, args, kwargs, f"{namespace}.{name}")
        if func.is_view or namespace == "profiler":
            out = func(*args, **kwargs)
            with _disable_current_modes():
                fault = wrong_view(func, args, kwargs, out) if func.is_view and namespace == "aten" else None
            if fault is not None:
                self.proof.blame(self._phase(), plain_name(name), "", f"{plain_name(name)} {fault}")
            return out
        self.proof.calls += 1
        phase = self._phase()
        plain = plain_name(name) if namespace == "aten" else f"{namespace}.{name}"
        arguments = named(func, args, kwargs)
        writes = written(func, plain, arguments)
        reader = f"{plain} ({phase}, call {self.proof.calls})"
        if phase == "forward":
            self.proof.whereabouts.note()
        # Other modes are to see what the program does, not what is done to check it.
        with _disable_current_modes():
            self._read(phase, arguments, reader)
            before = kept_apart(arguments, writes)
        out = func(*args, **kwargs)
        with _disable_current_modes():
            outputs = list(out) if isinstance(out, tuple | list) else [out]
            after = {argument: arguments[argument] for argument in writes}
            for storage in _storages([*outputs, *after.values()]):
                if plain.startswith(("empty", "new_empty")):
                    # What fills it may be no operator: numpy, C++, another process.
                    self._chain.drop(storage)
                else:
                    self._chain.wrote(storage, reader)
            self._compare_scalars(phase, plain, arguments)
            products = multiply_adds(func, args, kwargs, out, arguments)
            if namespace != "aten":
                self._hold_against(phase, func._schema.name, plain, before, outputs)
            elif plain not in _WITHOUT_VALUES:
                for call in calls_of(plain, before, outputs, after, self.proof.sample, self._draw):
                    self._judge(phase, call, products)
        return out

    def _read(self, phase: Phase, arguments: dict[str, Any], reader: str) -> None:
        for storage in _storages(arguments.values()):
            change = self._chain.read(storage, reader)
            if change is not None:
                self.proof.changed(phase, change)

    def _judge(self, phase: Phase, call: Call, products: int) -> None:
        if call.name in _RANDOM:
            self.proof.miss(call.name, "its values are random", products)
            return
        try:
            judged = judge(call)
        except NoFormula as error:
            self.proof.miss(call.name, str(error), products)
        except NotImplementedError as error:
            self.proof.miss(call.name, f"{error} is not covered", products)
        except Exception as error:
            # A formula that fails must not end the training that it looks at.
            self.proof.miss(call.name, f"its formula failed: {type(error).__name__}: {error}", products)
        else:
            self.proof.add(phase, call.name, str(call.dtype).removeprefix("torch."), judged, products)

    def _hold_against(
        self, phase: Phase, name: str, plain: str, arguments: dict[str, Any], outputs: Sequence[Any]
    ) -> None:
        """Compare an operator of another library with what it is said to mean."""
        if name not in self._references:
            self.proof.miss(plain, "it is not an operator of torch: give what it means, references={name: function}")
            return
        try:
            for slot, expected in enumerate(expected_results(self._references[name], [*arguments.values()])):
                if expected is not None:
                    call = Call(plain, {}, list(outputs))
                    judged = judge_numbers(call, [(str(slot), np.arange(outputs[slot].numel()), expected)])
                    self.proof.add(phase, plain, str(call.dtype).removeprefix("torch."), judged)
        except NotImplementedError as error:
            self.proof.miss(plain, f"{error} is not covered")
        except Exception as error:
            self.proof.miss(plain, f"its reference failed: {type(error).__name__}: {error}")

    def _compare_scalars(self, phase: Phase, operator: str, arguments: dict[str, Any]) -> None:
        for name, allowed in self._expected.get(operator, {}).items():
            if arguments.get(name) not in allowed:
                allowed_text = " or ".join(str(scalar) for scalar in sorted(allowed, key=str))
                call = f"{operator} (call {self.proof.calls})"
                message = f"{call} was called with {name} {arguments.get(name)}, not {allowed_text}"
                self.proof.blame(phase, operator, "", message)

    def _not_followed(self, func: Any, args: Any, kwargs: dict[str, Any], name: str) -> Any:
        """Run an operator of several processes; what it writes is there at a time of its own."""
        self.proof.miss(name, "its values come from other processes")
        out = func(*args, **kwargs)
        for storage in _storages([*named(func, args, kwargs).values(), out]):
            self._chain.drop(storage)
        return out

    def _phase(self) -> Phase:
        if torch._C._current_autograd_node() is not None:
            return "backward"
        # After a step that failed, only what computes without gradients could still be its part.
        return "optimizer" if self._steps and not torch.is_grad_enabled() else "forward"

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        with _disable_current_modes():
            arguments = (*args[1:], *kwargs.values())
            try:
                before = Before(optimizer, arguments, sample=self.proof.sample, draw=self._draw)
            except Exception as error:
                self.proof.miss(_step_name(optimizer), f"its formula failed: {type(error).__name__}: {error}")
                return
        self._steps[id(optimizer)] = before
        self._watch.add(optimizer)
        loss = lost(self._held.get(id(optimizer), {}), before.held)
        if loss is not None:
            name = _step_name(optimizer)
            self.proof.blame("optimizer", name, "", f"{name}: {loss}")

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        before = self._steps.pop(id(optimizer), None)
        if before is None:
            return
        name = _step_name(optimizer)
        if before.why_not is not None:
            self.proof.miss(name, before.why_not)
            return
        with _disable_current_modes(), np.errstate(all="ignore"):
            self._held[id(optimizer)] = kept_by(optimizer)
            try:
                for call, slot, picked, expected in before.after():
                    self._judge_step(name, call, slot, picked, expected)
            except Exception as error:
                # A formula that fails must not end the training that it looks at.
                self.proof.miss(name, f"its formula failed: {type(error).__name__}: {error}")

    def _judge_step(self, name: str, call: Call, slot: str, picked: Array, expected: Bounded) -> None:
        try:
            judged = judge_numbers(call, [(slot, picked, expected)])
        except NotImplementedError as error:
            self.proof.miss(name, str(error))
        else:
            dtype = str(call.result(slot).dtype).removeprefix("torch.")
            self.proof.add("optimizer", name, dtype, judged, parameter=call.out)


def _step_name(optimizer: torch.optim.Optimizer) -> str:
    return f"{type(optimizer).__name__}.step"


def _storages(values: Any) -> list[torch.UntypedStorage]:
    storages = {
        tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors_of(values) if has_bytes(tensor)
    }
    return list(storages.values())
