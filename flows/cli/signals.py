"""End the command on Ctrl-C and on SIGTERM, quickly and after a complete cleanup."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

TERMINATED = 143

_AGAIN_S = 0.5
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within the block, SIGINT raises KeyboardInterrupt and SIGTERM raises SystemExit(143), until one gets through.

    If one of them ended the block, both are ignored afterwards: the process is about to exit with the matching code.
    """
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)
    ended = False
    try:
        yield
    except BaseException as error:
        ended = isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and error.code == TERMINATED)
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ended else handler)
        # If an interrupt leaves code run by exec(), as in torch's compilers, Python kills itself by SIGINT at its
        # exit, although the interrupt was caught: the next exec() resets that.
        exec("")


def _end(number: int, frame: FrameType | None) -> None:
    # Raise it again shortly: compiled code below was seen to clear an exception that is not its own.
    signal.signal(signal.SIGALRM, lambda _number, frame: _end(number, frame))
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(TERMINATED)
