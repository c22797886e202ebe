"""Digests of files: of those that are there, and of those that are being written. Knows no store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO


def sha256_of(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def state_of(path: Path) -> list[int]:
    """What changes when a file does: inode, size, and the times of modification and of change, in nanoseconds.

    `touch` puts back the time of modification; nothing but setting the clock back puts back that of change.
    """
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class HashingWriter:
    """A binary stream to write to from start to end, which hashes what goes through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._written = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Write and hash bytes."""
        self._stream.write(data)
        self._digest.update(data)
        size = memoryview(data).nbytes
        self._written += size
        return size

    def tell(self) -> int:
        """Bytes written."""
        return self._written

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        self._stream.flush()

    def close(self) -> None:
        """Nothing: whoever opened the stream closes it."""
        self.closed = True

    @property
    def sha256(self) -> str:
        """Digest of what was written, in hexadecimal."""
        return self._digest.hexdigest()
