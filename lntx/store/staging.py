"""Staging folders next to the results: marked as ours, resumed after a kill, removed at the end.

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

from lntx.base.errors import LntxError
from lntx.base.files import read_regular
from lntx.store.locks import locked

ABANDONED_S = 7 * 24 * 3600.0
"""Age in seconds after which a staging folder that no run has resumed counts as abandoned."""

RESUME = ".resume"
"""Subfolder of the files from which an interrupted computation can resume."""

# This file contains the key: it proves that the folder is ours.
_MARK = ".key"
_KEY_DIGITS = 64

# The files that stages write. All other files belong to the user.
_WORK_NAME = re.compile(
    r"dataset(-[0-9]{5})?\.(parquet|json)|model\.[a-z0-9]+|history\.parquet|(fit|evaluation|card)\.json"
    r"|checkpoint(\.partial)?"
)


@contextlib.contextmanager
def computing(parent: Path, key: str) -> Iterator[Path]:
    """Create a staging folder below a folder of results; the caller holds the lock of the key.

    The folder is removed at the end, and also after a permanent error. The files in `RESUME` next to it survive an
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
        # Interrupted, or the disk is full: a later run can use what is in `RESUME`, if anything.
        _remove_files(work)
        if not any(resume.iterdir()):
            _remove(staging)
        raise
    _remove(staging)


def remove_abandoned(parents: Iterable[Path], locks: Path, *, older_than_s: float) -> list[Path]:
    """Remove staging folders of killed runs that no run has resumed. locks: the folder of the lock files.

    Returns: the removed folders.
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
    """Return the staging folder of a key, marked as ours; keep a foreign file of that name and use another name."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        staging = parent / (f".staging-{key}" if number == 1 else f".staging-{key}-{number}")
        if _has_mark(staging, key):
            return staging
        try:
            staging.mkdir()
        except FileExistsError:
            continue
        try:
            (staging / _MARK).write_text(key, encoding="ascii")
        except BaseException:
            # On a full disk: without its mark, the folder would never be ours to remove.
            (staging / _MARK).unlink(missing_ok=True)
            staging.rmdir()
            raise
        return staging
    raise AssertionError


def _remove(staging: Path) -> bool:
    """Remove the files of stages from a staging folder, and the folder itself if nothing else is in it.

    Returns: whether the folder was removed.
    """
    for folder in (staging / RESUME, *staging.glob("work-*")):
        _remove_files(folder)
    if [path.name for path in staging.glob("*")] == [_MARK]:
        (staging / _MARK).unlink()
        staging.rmdir()
    return not staging.exists()


def _remove_files(folder: Path) -> None:
    """Remove the files of stages from a folder, and the folder itself if it is then empty."""
    if not is_folder(folder):
        return
    for path in folder.iterdir():
        if _WORK_NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _has_mark(folder: Path, key: str) -> bool:
    """Return whether a staging folder is ours."""
    try:
        return (
            is_folder(folder)
            and len(key) == _KEY_DIGITS
            and read_regular(folder / _MARK, most=_KEY_DIGITS) == key.encode()
        )
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder and not a link to one."""
    return path.is_dir() and not path.is_symlink()


def modified(path: Path) -> int:
    """Return the modification time of a file, in nanoseconds since 1970; 0 if there is no such file."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
