"""Folders to compute into, beside where results go: marked as ours, gone on with after a kill, removed in the end.

Knows neither records nor what a stage computes.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from lntx.errors import LntxError
from lntx.files import read_regular
from lntx.store.locks import locked

ABANDONED_S = 7 * 24 * 3600.0
"""A folder that no run has gone on with for so long, in seconds, is of no more use."""

RESUME = ".resume"
"""Folder, beside the one to compute into, of what an interrupted computation left to go on from."""

# A file with the key: the folder is ours.
_MARK = ".key"
_KEY_DIGITS = 64

# What stages leave. Anything else is somebody's own.
_WORK_NAME = re.compile(
    r"dataset(-[0-9]{5})?\.(parquet|json)|model\.[a-z0-9]+|history\.parquet|(fit|evaluation|card)\.json"
    r"|checkpoint(\.partial)?"
)


@contextlib.contextmanager
def computing(parent: Path, key: str) -> Iterator[Path]:
    """A new folder to compute into, below a folder of results; the holder of the key owns it.

    It is removed at the end, and also after an error that is final. What is in `RESUME` beside it outlives an
    interruption.
    """
    staging = _own(parent, key)
    resume = staging / RESUME
    resume.mkdir(exist_ok=True)
    for left in staging.glob("work-*"):
        _remove_files(left)
    work = Path(tempfile.mkdtemp(prefix="work-", dir=staging))
    try:
        yield work
    except LntxError:
        _remove(staging)
        raise
    except BaseException:
        # Interrupted, or out of disk: what was done so far is worth keeping, if there is anything.
        _remove_files(work)
        if not any(resume.iterdir()):
            _remove(staging)
        raise
    _remove(staging)


def remove_abandoned(parents: Iterable[Path], locks: Path, *, older_than_s: float) -> list[Path]:
    """Remove the folders that killed runs left and none has gone on with. locks: where keys are locked.

    Returns: what was removed.
    """
    oldest = (time.time() - older_than_s) * 1e9
    removed = []
    for folder in [path for parent in parents for path in parent.glob(".staging-*")]:
        key = folder.name.split("-")[1]
        if max(modified(folder), modified(folder / RESUME)) < oldest and _has_mark(folder, key):
            with locked(locks / f"{key}.lock", wait=False) as free:
                if free and _remove(folder):
                    removed.append(folder)
    return removed


def _own(parent: Path, key: str) -> Path:
    """The folder of a key, marked as ours; a folder or link of somebody else's under its name stays, and another is
    taken.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        staging = parent / (f".staging-{key}" if number == 1 else f".staging-{key}-{number}")
        if _has_mark(staging, key):
            return staging
        try:
            staging.mkdir()
        except FileExistsError:
            continue
        (staging / _MARK).write_text(key, encoding="ascii")
        return staging
    raise AssertionError


def _remove(staging: Path) -> bool:
    """Remove what stages left in a folder to compute into, and the folder if nothing else is in it.

    Returns: whether it is gone.
    """
    for folder in (staging / RESUME, *staging.glob("work-*")):
        _remove_files(folder)
    if [path.name for path in staging.glob("*")] == [_MARK]:
        (staging / _MARK).unlink()
        staging.rmdir()
    return not staging.exists()


def _remove_files(folder: Path) -> None:
    """Remove a folder's files that stages make, and the folder if it is empty then."""
    if not is_folder(folder):
        return
    for path in folder.iterdir():
        if _WORK_NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _has_mark(folder: Path, key: str) -> bool:
    """Whether a folder to compute into is ours."""
    try:
        return (
            is_folder(folder)
            and len(key) == _KEY_DIGITS
            and read_regular(folder / _MARK, most=_KEY_DIGITS) == key.encode()
        )
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def modified(path: Path) -> int:
    """When a file was modified, in nanoseconds since 1970; 0 where it is gone."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
