"""Which results running runs use, so that nothing of them is taken away. Knows keys; knows nothing of results."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lntx.files import MAX_JSON_BYTES, open_regular

_NAME = re.compile(r"run-[0-9]+-[0-9a-f]{8}\.using")
_FIRST_LINE = b"lntx: results that a running run uses\n"

# The markers of this process, by the folder that they are in.
_OPEN: dict[Path, list[BinaryIO]] = {}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Mark a run as running; the operating system unlocks the marker when the process dies.

    folder: where markers are kept.
    """
    name = f"run-{os.getpid()}-{secrets.token_hex(4)}"
    marker = folder / f"{name}.using"
    place = folder.resolve()
    with (folder / f"{name}.beside").open("xb", buffering=0) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.write(_FIRST_LINE)
        # Only now is it seen: an unlocked marker belongs to a dead process.
        (folder / f"{name}.beside").replace(marker)
        _OPEN.setdefault(place, []).append(handle)
        try:
            yield
        finally:
            _OPEN[place].remove(handle)
            marker.unlink(missing_ok=True)


def note(folder: Path, key: str) -> None:
    """Say that this process's runs use a key."""
    for handle in _OPEN.get(folder.resolve(), ()):
        handle.write(f"{key}\n".encode())


def in_use(folder: Path, *, sweep: bool) -> set[str]:
    """Keys that running runs use. sweep: remove the markers of dead processes."""
    keys: set[str] = set()
    for marker in folder.glob("run-*.using"):
        if not _NAME.fullmatch(marker.name):
            continue
        with contextlib.suppress(FileNotFoundError), _opened(marker) as handle:
            if handle is None:
                continue
            content = handle.read(MAX_JSON_BYTES)
            if not content.startswith(_FIRST_LINE):
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                keys.update(content.decode("ascii", errors="replace").splitlines()[1:])
            else:
                if sweep:
                    marker.unlink(missing_ok=True)
    return keys


@contextlib.contextmanager
def _opened(marker: Path) -> Iterator[BinaryIO | None]:
    """A marker; none where it is no regular file. What cannot be read is an error: it may name what is in use."""
    try:
        stream = open_regular(marker)
    except OSError as error:
        if error.errno == errno.EINVAL:
            yield None
            return
        raise
    with stream:
        yield stream
