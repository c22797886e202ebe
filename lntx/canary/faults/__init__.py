"""Faults to plant where they would really occur, each with the part that causes it.

They test the canary itself: it cannot be trusted for a fault that it misses or blames on the wrong part.
"""

from __future__ import annotations

from collections.abc import Mapping

from lntx.canary.faults.exported import EXPORTED
from lntx.canary.faults.planting import Fault
from lntx.canary.faults.rows import ROWS
from lntx.canary.faults.solved import SOLVED
from lntx.canary.faults.trained import TRAINED
from lntx.config.loading import unknown
from lntx.errors import BadInput

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in (*ROWS, *SOLVED, *TRAINED, *EXPORTED)}
"""All faults by name, in the order of the stages."""

__all__ = ["FAULTS", "Fault", "find_fault"]


def find_fault(name: str) -> Fault:
    """Return the fault of that name.

    Raises: BadInput: there is no such fault.
    """
    if name not in FAULTS:
        raise BadInput(f"{unknown('fault', name, FAULTS)} (--inject list names all)")
    return FAULTS[name]
