"""End the command on Ctrl-C and on SIGTERM, soon and with everything cleaned up."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

TERMINATED = 143

_AGAIN_S = 0.5


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within the block, SIGINT raises KeyboardInterrupt and SIGTERM raises SystemExit(143), until one gets through."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    # Again in a moment: compiled code below may clear an exception that was not its own, and was seen to.
    signal.signal(signal.SIGALRM, lambda _number, frame: _end(number, frame))
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(TERMINATED)
