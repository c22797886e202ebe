"""Report the progress of a long stage to a listener; results do not depend on it.

Without a listener, a report costs only the read of one variable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Listener = Callable[[float, str], None]
"""Takes the finished fraction, from 0 to 1, and a description of the work."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Report progress in this block to a listener. It is called often and must be fast."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(done: int, total: int, what: str) -> None:
    """Report that `done` of `total` units are finished: rows of a pass, or epochs of the maximum."""
    listener = _listener.get()
    if listener is not None:
        listener(done / total, f"{what}: {done:,} of {total:,}")
