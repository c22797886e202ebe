"""What running runs use, so that nothing of it is taken away under them. Knows keys; knows nothing of results."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

# The markers of this process, by the folder that they are in.
_OPEN: dict[Path, list[TextIO]] = {}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Mark a run as running; the operating system takes the mark away when the process dies.

    folder: where marks are kept.
    """
    name = f"run-{os.getpid()}-{secrets.token_hex(4)}"
    mark = folder / f"{name}.using"
    place = folder.resolve()
    with (folder / f"{name}.beside").open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        # Only now is it seen: a mark that nobody holds is one of the dead.
        (folder / f"{name}.beside").replace(mark)
        _OPEN.setdefault(place, []).append(handle)
        try:
            yield
        finally:
            _OPEN[place].remove(handle)
            mark.unlink(missing_ok=True)


def note(folder: Path, key: str) -> None:
    """Say that this process's runs use a key."""
    for handle in _OPEN.get(folder.resolve(), ()):
        handle.write(f"{key}\n")
        handle.flush()


def in_use(folder: Path) -> set[str]:
    """Keys that running runs use; marks of the dead are swept."""
    keys: set[str] = set()
    for mark in folder.glob("run-*.using"):
        with contextlib.suppress(FileNotFoundError), mark.open(encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                keys.update(handle.read().split())
            else:
                mark.unlink(missing_ok=True)
    return keys
