"""File locks. The operating system releases them when the holder ends. Lock files are never truncated or removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True, create: bool = True) -> Iterator[bool]:
    """Lock a file for the duration of the block.

    shared: take a shared lock instead of an exclusive one. wait: wait until the lock is free.
    create: create a missing file; if false, a missing file counts as locked.

    Yields: whether the lock is held; always true if wait is true.
    """
    flags = os.O_RDONLY | (os.O_CREAT if create else 0)
    try:
        # Do not follow links: the target of a link is not ours to create.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        if create:
            raise
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
