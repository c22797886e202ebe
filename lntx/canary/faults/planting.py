"""Plant a fault: replace a function of a library or of lntx for the duration of a block."""

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
from lntx.proof.faults import replaced
from lntx.stages import Blame, Stage


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way in which a software stack can be wrong."""

    name: str
    """Its name."""

    what: str
    """What goes wrong, as a clause."""

    blame: Blame
    """The part that must be blamed."""

    limit: str | None = None
    """Size or case in which it cannot be detected; None if it always can."""

    planted: Callable[[Case], AbstractContextManager[None]]
    """Returns a context manager that plants it."""


@contextlib.contextmanager
def once_stored(stage: Stage, tamper: Callable[[dict[str, Path]], None]) -> Iterator[None]:
    """Tamper with the files of a stage as soon as they are stored. tamper: called with their paths by name."""
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
    """Return value with one bit flipped: 0 is the last of the mantissa, 52 the last of the exponent, 63 the sign."""
    return float((np.array([value]).view(np.uint64) ^ np.uint64(1 << bit)).view(np.float64)[0])


def flip_first(tensor: torch.Tensor, bit: int) -> None:
    """Flip a bit of a tensor's first number in place. bit: as in float64; float32 uses the bit of equal weight."""
    place = bit if tensor.dtype == torch.float64 else max(bit - 29, 0)
    kind = torch.int64 if tensor.dtype == torch.float64 else torch.int32
    with torch.no_grad():
        tensor.view(-1)[:1].view(kind).bitwise_xor_(torch.tensor([1 << place], dtype=kind, device=tensor.device))
