"""Report the progress of a long stage to a listener; results do not depend on it.

Without a listener, a report costs only the read of one variable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Listener = Callable[[int, int, str], None]
"""Takes the number of finished units, their total, and what they are."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextlib.contextmanager
def on_progress(listener: Listener) -> Iterator[None]:
    """Report progress in this block to a listener, and to the one around it. It is called often and must be fast."""
    outer = _listener.get()

    def both(count: int, total: int, what: str) -> None:
        listener(count, total, what)
        if outer is not None:
            outer(count, total, what)

    token = _listener.set(both)
    try:
        yield
    finally:
        _listener.reset(token)


def report_progress(count: int, total: int, what: str) -> None:
    """Report that `count` of `total` units are finished, such as rows of a pass or epochs of the maximum."""
    listener = _listener.get()
    if listener is not None:
        listener(count, total, what)
