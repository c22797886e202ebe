"""How a fault is planted: a library's function, or one of ours, is replaced for a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lntx.canary.cases import Case
from lntx.stages import Blame, Stage


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way in which a stack may be wrong."""

    name: str
    """What it is called."""

    what: str
    """What goes wrong, as a clause."""

    blame: Blame
    """The part that is to blame."""

    limit: str | None = None
    """Below what it cannot be seen; none if it always can."""

    planted: Callable[[Case], AbstractContextManager[None]]
    """Plants it for the duration of a block."""


@contextlib.contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace an attribute for the duration of a block. make: the original to what stands in for it."""
    original = getattr(owner, name)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextlib.contextmanager
def once_stored(stage: Stage, tamper: Callable[[dict[str, Path]], None]) -> Iterator[None]:
    """Tamper with the files of a stage as soon as they are stored. tamper: is given them by name."""
    from lntx.store.store import Store

    def make(publish: Callable[..., Any]) -> Callable[..., Any]:
        def tampering(self: Store, identity: Any, *args: Any, **options: Any) -> Any:
            record = publish(self, identity, *args, **options)
            if identity.stage == stage:
                tamper({file.name: self.path(file) for file in record.files})
            return record

        return tampering

    with replaced(Store, "publish", make):
        yield


def flipped(value: float, bit: int) -> float:
    """A float64 with one bit flipped; 0 is the last of the mantissa, 52 the last of the exponent, 63 the sign."""
    return float((np.array([value]).view(np.uint64) ^ np.uint64(1 << bit)).view(np.float64)[0])


def flip_first(tensor: torch.Tensor, bit: int) -> None:
    """Flip a bit of the first number of a tensor, in place: of a float32, the bit that weighs as much."""
    place = bit if tensor.dtype == torch.float64 else max(bit - 29, 0)
    kind = torch.int64 if tensor.dtype == torch.float64 else torch.int32
    with torch.no_grad():
        tensor.view(-1)[:1].view(kind).bitwise_xor_(torch.tensor([1 << place], dtype=kind, device=tensor.device))
