"""Show the progress of long work on stderr: what is done, the rate, and the time that is left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from lntx.base.progress import on_progress

_AFTER_S = 2.0
_EVERY_S = 0.2


@contextlib.contextmanager
def progress_shown() -> Iterator[None]:
    """Within the block, show progress of work that takes longer than two seconds, in a terminal on one line that
    changes. Elsewhere show nothing.
    """
    with on_progress(_meter.hear) if sys.stderr.isatty() else contextlib.nullcontext():
        yield


def clear_progress() -> None:
    """Remove the line of progress from a terminal, before something else is printed."""
    _meter.clear()


class _Meter:
    """The line of progress."""

    def __init__(self) -> None:
        self._next: float | None = None
        self._work: tuple[int, str] | None = None
        self._start = (0.0, 0)
        self._is_on_screen = False

    def hear(self, count: int, total: int, what: str) -> None:
        now = time.monotonic()
        if self._next is None:
            self._next = now + _AFTER_S
        if self._work != (total, what) or count < self._start[1]:
            self._work, self._start = (total, what), (now, count)
        if now < self._next:
            return
        self._next = now + _EVERY_S
        line = f"{what}: {count:,} of {total:,}"
        seconds, units = now - self._start[0], count - self._start[1]
        if units and seconds:
            rate = units / seconds
            line += f", {rate:,.0f}/s, " if rate >= 10 else f", {rate:.2g}/s, "
            line += f"{_duration((total - count) / rate)} left"
        self._is_on_screen = True
        _print(f"\x1b[2K{line}\r")

    def clear(self) -> None:
        if self._is_on_screen:
            self._is_on_screen = False
            _print("\x1b[2K")


def _print(text: str) -> None:
    # Work must not fail because its progress cannot be shown.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


_meter = _Meter()
