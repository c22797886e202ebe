"""The bits between steps: parameters, buffers and the state of optimisers are at a step as the last one left them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from lntx.proof.bounds.schema import has_bytes
from lntx.proof.chain import digest


class _Bits(NamedTuple):
    digest: int
    version: int


class Watch:
    """Digests of what a training keeps. modules: whose parameters and buffers it keeps, by their names."""

    def __init__(self, modules: Iterable[nn.Module] = ()) -> None:
        self._modules = tuple(modules)
        self._optimizers: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        self._known: dict[str, tuple[weakref.ref[torch.Tensor], _Bits]] = {}

    def add(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the parameters and the state of an optimiser, too."""
        self._optimizers.add(optimizer)

    def changed(self) -> list[str]:
        """Return the names of tensors whose bits changed since `note`, while no operator of torch wrote to them."""
        changed = []
        for name, (reference, bits) in self._known.items():
            tensor = reference()
            if tensor is not None and tensor._version == bits.version and _bits(tensor) != bits:
                changed.append(name)
        return changed

    def note(self) -> None:
        """Note the bits of all tensors."""
        self._known = {name: (weakref.ref(tensor), _bits(tensor)) for name, tensor in self._tensors()}

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        names: dict[int, str] = {}
        for module in self._modules:
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                names[id(tensor)] = name
                yield name, tensor
        for optimizer in self._optimizers:
            parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
            for k, parameter in enumerate(parameters):
                name = names.get(id(parameter), f"parameter {k} of {type(optimizer).__name__}")
                if id(parameter) not in names:
                    yield name, parameter
                for key, value in optimizer.state.get(parameter, {}).items():
                    if isinstance(value, torch.Tensor) and has_bytes(value):
                        yield f"{key} of {name}", value


def _bits(tensor: torch.Tensor) -> _Bits:
    return _Bits(digest(tensor.untyped_storage()), tensor._version)
