"""End the command on Ctrl-C and on SIGTERM, soon and with everything cleaned up."""

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

    After a block that one of them ended they are ignored: the process is about to end, with the code that says so.
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
        # An interrupt that leaves code of exec(), as torch's compilers use it, has Python kill itself by SIGINT at its
        # end, although it was caught: the next exec() takes that back.
        exec("")


def _end(number: int, frame: FrameType | None) -> None:
    # Again in a moment: compiled code below may clear an exception that was not its own, and was seen to.
    signal.signal(signal.SIGALRM, lambda _number, frame: _end(number, frame))
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(TERMINATED)
