"""Files: read them, hash them, replace them in one step. Reads regular files only; knows no store."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

MAX_JSON_BYTES = 2**24
"""Largest JSON file that is read: parsed, one may take thirty times as much memory."""

MAX_MODEL_BYTES = 2**28
"""Largest file of a model, or of a sweep, that is read."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises: OSError: it is not there, may not be read, or is a folder, a pipe, a socket or a device.
    """
    # Looked at first: opening a device may do something.
    if stat.S_ISREG(path.stat().st_mode):
        stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return stream
        stream.close()
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: Path, *, most: int = MAX_JSON_BYTES) -> bytes:
    """The bytes of a regular file of at most so many. Raises: OSError: as `open_regular`, or it is larger."""
    with open_regular(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return content


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises: OSError: as `open_regular`. ValueError: it is not JSON, or larger or deeper than any of ours.
    """
    return parse_json(read_regular(path))


def parse_json(content: bytes | str) -> Any:
    """The value of JSON text. Raises: ValueError: it is not JSON, or nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    write_whole(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step: it has the old text or the new one, and other names of the old file keep that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: what it makes only its owner may read.
    beside = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with beside.open("x", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


def sha256_of(path: Path) -> str:
    """sha256 of a regular file's bytes, in hexadecimal. Raises: OSError: as `open_regular`."""
    with open_regular(path) as stream:
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
        """Nothing: the caller opened the stream, and closes it."""
        self.closed = True

    @property
    def sha256(self) -> str:
        """Digest of what was written, in hexadecimal."""
        return self._digest.hexdigest()
