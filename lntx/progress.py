"""How far a long stage has come, told to a listener; it changes no result.

Where nobody listens it costs a look at one variable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Listener = Callable[[float, str], None]
"""Takes the part that is done, from 0 to 1, and what it is a part of, in words."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Have a listener told in this block. It is called often, and must be quick."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(done: int, total: int, what: str) -> None:
    """Say that so many of so many are done: rows of a pass, epochs of at most so many."""
    listener = _listener.get()
    if listener is not None:
        listener(done / total, f"{what}: {done:,} of {total:,}")
