"""What a suite plants to show that its judgement can fail."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something wrong to plant, to show that it is caught."""

    name: str
    """Its name."""

    what: str
    """What goes wrong, as a clause; it may speak of a size."""

    blame: str
    """What must be blamed: a part of the stack; or an operator, the memory, or "step", that of any optimiser."""

    limit: str | None = None
    """Size or case in which it cannot be detected; None if it always can."""

    sizes: tuple[float, ...] = ()
    """Sizes to try, from large to small; none for a fault without a size."""

    @property
    def sentence(self) -> str:
        """What goes wrong, with the size that is planted."""
        return f"{self.what} (size {self.sizes[0]:g})" if self.sizes else self.what

    def is_blamed(self, culprit: str | None) -> bool:
        """Return whether the right thing is blamed."""
        return culprit is not None and (culprit.endswith(".step") if self.blame == "step" else culprit == self.blame)


@contextlib.contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace an attribute for the duration of a block. make: maps the original to its replacement."""
    original, is_inherited = getattr(owner, name), name not in vars(owner)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        if is_inherited:
            # Left behind, it would hide later changes of the class that it comes from.
            delattr(owner, name)
        else:
            setattr(owner, name, original)
