"""Leases: which results active runs use, so that these results are not removed. Knows keys, not results."""

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

from lntx.base.files import MAX_JSON_BYTES, open_regular

_NAME = re.compile(r"run-[0-9]+-[0-9a-f]{8}\.using")
_FLOW = re.compile(r"flow-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.using")
_FIRST_LINE = b"lntx: results that a running run uses\n"

# The open markers of this process, by folder.
_OPEN: dict[Path, list[BinaryIO]] = {}


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Mark a run as active; the operating system unlocks the marker when the process ends.

    folder: the folder of the markers.
    """
    place = folder.resolve()
    with _marked(folder, f"run-{os.getpid()}-{secrets.token_hex(4)}") as handle:
        _OPEN.setdefault(place, []).append(handle)
        try:
            yield
        finally:
            _OPEN[place].remove(handle)


@contextlib.contextmanager
def _marked(folder: Path, name: str) -> Iterator[BinaryIO]:
    marker = folder / f"{name}.using"
    beside = folder / f"{name}-{secrets.token_hex(4)}.beside"
    with beside.open("xb", buffering=0) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.write(_FIRST_LINE)
        # Published only after locking: an unlocked marker counts as one of a dead process.
        beside.replace(marker)
        try:
            yield handle
        finally:
            marker.unlink(missing_ok=True)


@contextlib.contextmanager
def flow_running(folder: Path, flow_run_id: str) -> Iterator[None]:
    """Mark a flow run as active: as `running` does, under the id that its server knows."""
    with _marked(folder, f"flow-{flow_run_id}"):
        yield


def killed_flows(folder: Path) -> Iterator[str]:
    """Yield the ids of flow runs whose process ended without ending them."""
    for marker in folder.glob("flow-*.using"):
        match = _FLOW.fullmatch(marker.name)
        with contextlib.suppress(FileNotFoundError), _opened(marker) as handle:
            if match is None or handle is None or handle.read(len(_FIRST_LINE)) != _FIRST_LINE:
                continue
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                yield match[1]


def forget_flow(folder: Path, flow_run_id: str) -> None:
    """Remove the marker of a killed flow run."""
    (folder / f"flow-{flow_run_id}.using").unlink(missing_ok=True)


def note(folder: Path, key: str) -> None:
    """Record that the runs of this process use a key."""
    for handle in _OPEN.get(folder.resolve(), ()):
        handle.write(f"{key}\n".encode())


def in_use(folder: Path, *, sweep: bool) -> set[str]:
    """Return the keys that active runs use. sweep: remove the markers of dead processes."""
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
    """Open a marker; yield None if it is no regular file. An unreadable marker is an error: it may list used keys."""
    try:
        stream = open_regular(marker)
    except OSError as error:
        if error.errno == errno.EINVAL:
            yield None
            return
        raise
    with stream:
        yield stream
