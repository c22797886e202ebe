"""Locks that the operating system frees when their holder dies. Lock files are never truncated and never removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True, create: bool = True) -> Iterator[bool]:
    """Hold a lock file. shared: others may hold it shared too. wait: for those who hold it otherwise.

    create: make the file where there is none; else a file that is not there counts as held.

    Yields: whether it is held; always true where it waits.
    """
    flags = os.O_RDONLY | (os.O_CREAT if create else 0)
    try:
        # Not through a link: what it points at is not ours to make.
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
