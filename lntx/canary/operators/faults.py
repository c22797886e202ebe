"""Faults to plant in a training step: kernels that are wrong, bits that flip, programs that use a wrong formula.

They test the proof itself. Most change what one operator returns, as a wrong kernel would; each is planted in one
network and format, and names what must be blamed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from lntx.canary.operators.nets import Net, build, prove_net
from lntx.canary.suite.fault import Fault, replaced
from lntx.proof.bounds.schema import has_bytes, named, plain_name, tensors_of
from lntx.proof.result import Proof

Change = Callable[[Any, dict[str, Any], Any, float], Any]
"""Gets an operator, its arguments by name, what it returned and a size; returns what it shall return."""


@dataclass(frozen=True, kw_only=True)
class ProofFault(Fault):
    """One way in which a training step can be wrong."""

    net: str
    """Network that it is planted in."""

    mode: str = "float32"
    """Formats of that network."""

    optimizer: type[torch.optim.Optimizer] | None = None
    """Kind of optimiser that it needs; None for any."""

    planted: Callable[[Net, float], AbstractContextManager[Any]]
    """Returns a context manager that plants it in a network, with a size."""


SIZES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
ULPS = (65536.0, 4096.0, 1024.0, 256.0, 64.0, 16.0, 8.0, 4.0, 2.0, 1.0)
LAYER_NORM, RMS_NORM, CONVOLUTIONS, LSTM, GRU = (
    "decoder, layer norm",
    "decoder, RMS norm",
    "convolutions",
    "LSTM",
    "GRU",
)
ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"


class _Altered(TorchDispatchMode):
    """Changes what an operator returns."""

    def __init__(self, operator: str, change: Change, size: float, *, call: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operator, self._change, self._size, self._call = operator, change, size, call
        self._seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if plain_name(func._schema.name.split("::")[1]) != self._operator:
            return out
        self._seen += 1
        if self._call is not None and self._seen != self._call:
            return out
        return self._change(func, named(func, args, kwargs or {}), out, self._size)


def with_arguments(**changed: Callable[[dict[str, Any], float], Any]) -> Change:
    """Call the operator again with other arguments."""

    def change(func: Any, arguments: dict[str, Any], out: Any, size: float) -> Any:
        changed_arguments = {**arguments, **{name: make(arguments, size) for name, make in changed.items()}}
        names = [argument.name for argument in func._schema.arguments if not argument.kwarg_only]
        others = {
            argument.name: changed_arguments[argument.name]
            for argument in func._schema.arguments
            if argument.kwarg_only and argument.name in changed_arguments
        }
        return func(*[changed_arguments[name] for name in names if name in changed_arguments], **others)

    return change


def with_result(make: Callable[[dict[str, Any], Any, float], Any]) -> Change:
    """Change the only output. make: gets the arguments by name, the output and the size."""
    return lambda func, arguments, out, size: make(arguments, out, size)


def _last_off(out: torch.Tensor, size: float) -> torch.Tensor:
    """Move the last element by so many units in the last place."""
    changed = out.clone()
    last = changed.reshape(-1)[-1:]
    eps = torch.finfo(out.dtype).eps
    changed.view(-1)[-1:] = last + last.abs() * eps * size
    return changed


def _coarse(tensor: torch.Tensor, bits: int) -> torch.Tensor:
    words = tensor.contiguous().view(torch.int32)
    drop = 23 - bits
    return ((words + (1 << (drop - 1))) & ~((1 << drop) - 1)).view(torch.float32)


def scaled_scores(arguments: dict[str, Any], size: float) -> float:
    """Return the scale of attention's scores, off by a factor 1 + size."""
    return float(arguments.get("scale") or 1 / math.sqrt(arguments["query"].shape[-1])) * (1 + size)


def _in_place(operator_call: int) -> Callable[[Net, float], AbstractContextManager[Any]]:
    """Flip a bit of what a product returned, before the next operator reads it."""

    def planted(net: Net, size: float) -> AbstractContextManager[Any]:
        return _Flip(operator_call, int(size))

    return planted


class _Flip(TorchDispatchMode):
    """Flips one bit of an output while an operator runs that neither reads nor writes it."""

    def __init__(self, call: int, bit: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left, self._bit = call, bit
        self._target: torch.Tensor | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = plain_name(func._schema.name.split("::")[1])
        if self._target is not None and not func.is_view and not self._is_used(args, kwargs or {}):
            flip_bit(self._target, self._bit)
            self._target = None
        if name in ("addmm", "mm"):
            self._left -= 1
            if self._left == 0:
                self._target = out
        return out

    def _is_used(self, args: Any, kwargs: dict[str, Any]) -> bool:
        assert self._target is not None
        place = self._target.untyped_storage()._cdata
        tensors = tensors_of([*args, *kwargs.values()])
        return any(has_bytes(tensor) and tensor.untyped_storage()._cdata == place for tensor in tensors)


def flip_bit(tensor: torch.Tensor, bit: int) -> None:
    """Flip a bit of a tensor's storage, where torch does not see it."""
    words = tensor.detach().untyped_storage()
    whole = torch.empty(0, dtype=torch.uint8).set_(words)
    whole[bit // 8] ^= 1 << (bit % 8)


def with_settings(**changed: Callable[[Any, float], Any]) -> Callable[[Net, float], AbstractContextManager[Any]]:
    """Change settings of the optimiser from the start, and let it use them."""

    @contextlib.contextmanager
    def planted(net: Net, size: float) -> Iterator[None]:
        for group in net.optimizer.param_groups:
            for name, make in changed.items():
                group[name] = make(group[name], size)
        yield

    return planted


def _smoothed(net: Net, size: float) -> AbstractContextManager[Any]:
    def make(original: Any) -> Any:
        def loss(scores: Any, targets: Any, *, label_smoothing: float) -> Any:
            return original(scores, targets, label_smoothing=label_smoothing + size)

        return loss

    return replaced(functional, "cross_entropy", make)


@contextlib.contextmanager
def _gradient_scaled(net: Net, size: float) -> Iterator[None]:
    handle = next(iter(net.module.parameters())).register_hook(lambda grad: grad * (1 + size))
    try:
        yield
    finally:
        handle.remove()


def _dropout_left_out(net: Net, size: float) -> AbstractContextManager[Any]:
    return replaced(functional, "dropout", lambda original: lambda tensor, *args, **options: tensor)


def wrong_kernel(
    name: str, what: str, blame: str, net: str, change: Change, *, call: int | None = None, **options: Any
) -> ProofFault:
    """Return a fault of what an operator returns. call: number of the only wrong call, from 1; None for all."""

    def planted(net: Net, size: float) -> AbstractContextManager[Any]:
        return _Altered(blame, change, size, call=call)

    return ProofFault(name=name, what=what, blame=blame, net=net, planted=planted, **options)


_FAULTS = (
    wrong_kernel(
        "attention-scale",
        "the scale of the scores is off by a factor 1 + size",
        ATTENTION,
        LAYER_NORM,
        with_arguments(scale=scaled_scores),
        sizes=SIZES,
    ),
    wrong_kernel(
        "layer-norm-eps",
        "the kernel adds eps times 1 - size",
        "native_layer_norm",
        LAYER_NORM,
        with_arguments(eps=lambda arguments, size: arguments["eps"] * (1 - size)),
        sizes=SIZES,
    ),
    wrong_kernel(
        "product-element",
        "the last element is off by so many units in the last place",
        "addmm",
        LAYER_NORM,
        with_result(lambda arguments, out, size: _last_off(out, size)),
        sizes=ULPS,
    ),
    wrong_kernel(
        "product-tf32",
        "inputs are rounded to TF32",
        "mm",
        LAYER_NORM,
        with_arguments(
            self=lambda arguments, size: _coarse(arguments["self"], 10),
            mat2=lambda arguments, size: _coarse(arguments["mat2"], 10),
        ),
    ),
    ProofFault(
        name="memory-activation",
        what="a bit of a stored activation flips between two operators",
        blame="memory",
        net=LAYER_NORM,
        sizes=(30.0, 23.0, 10.0, 1.0, 0.0),
        planted=_in_place(2),
    ),
    ProofFault(
        name="betas",
        what="the optimiser uses another beta2",
        blame="settings",
        net=LAYER_NORM,
        sizes=SIZES,
        optimizer=torch.optim.AdamW,
        planted=with_settings(betas=lambda value, size: (value[0], value[1] * (1 - size))),
    ),
    ProofFault(
        name="learning-rate",
        what="the optimiser uses another learning rate",
        blame="schedule",
        net=LAYER_NORM,
        sizes=(*SIZES, 1e-9, 1e-11),
        planted=with_settings(lr=lambda value, size: value * (1 + size)),
    ),
    ProofFault(
        name="label-smoothing",
        what="the program smooths labels by so much more",
        blame="loss",
        net=LAYER_NORM,
        sizes=SIZES,
        planted=_smoothed,
    ),
    ProofFault(
        name="gradient-scaled",
        what="a hook scales the gradient of a weight",
        blame="gradient",
        net=LAYER_NORM,
        sizes=(1.0, *SIZES),
        planted=_gradient_scaled,
    ),
    ProofFault(
        name="dropout-left-out",
        what="nothing is dropped",
        blame="bernoulli",
        net=LAYER_NORM,
        planted=_dropout_left_out,
    ),
)

PROOF_FAULTS: Mapping[str, ProofFault] = {fault.name: fault for fault in _FAULTS}
"""The faults that a user can plant, by name."""


def prove_with(fault: ProofFault, *, seed: int, size: float | None = None) -> Proof:
    """Plant a fault in its network, take some steps and check them. size: of the fault; its largest by default."""
    net = _net_for(fault, seed)
    used = size if size is not None else (*fault.sizes, 0.0)[0]
    with fault.planted(net, used):
        return prove_net(net, seed=seed)


def _net_for(fault: ProofFault, seed: int) -> Net:
    """Return the first network after a seed with the optimiser that a fault needs."""
    while True:
        net = build(fault.net, fault.mode, seed)
        if fault.optimizer is None or type(net.optimizer) is fault.optimizer:
            return net
        seed += 1
