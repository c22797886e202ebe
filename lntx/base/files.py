"""Read, hash and atomically replace files. Reads regular files only; knows no store."""

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
"""Size limit of a JSON file; parsing may take thirty times as much memory."""

_NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "lustre", "ceph")

MAX_MODEL_BYTES = 2**28
"""Size limit of a model file or a sweep file."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises: OSError: it does not exist, may not be read, or is a folder, a pipe, a socket or a device.
    """
    # Check before opening: opening a device may have side effects.
    if stat.S_ISREG(path.stat().st_mode):
        stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return stream
        stream.close()
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: Path, *, most: int = MAX_JSON_BYTES) -> bytes:
    """Return the bytes of a regular file of at most `most` bytes. Raises: OSError: as `open_regular`, or too large."""
    with open_regular(path) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return content


def read_json(path: Path) -> Any:
    """Return the value in a JSON file.

    Raises: OSError: as `open_regular`, or too large. ValueError: it is not JSON, or nested too deeply.
    """
    return parse_json(read_regular(path))


def parse_json(content: bytes | str) -> Any:
    """Return the value of JSON text. Raises: ValueError: it is not JSON, or nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Atomically replace a JSON file."""
    write_whole(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_whole(path: Path, content: str | bytes) -> None:
    """Atomically replace a file: it has either the old or the new content. Other hard links keep the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: only the owner may read its files.
    beside = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with beside.open("xb") as handle:
            handle.write(content.encode() if isinstance(content, str) else content)
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a regular file, in hexadecimal. Raises: OSError: as `open_regular`."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def state_of(path: Path) -> list[int]:
    """Return the state of a file: inode, size, modification time and change time (both in nanoseconds).

    `touch` can reset the modification time; only setting the clock back can reset the change time.
    """
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def network_disk(folder: Path) -> str | None:
    """Return the kind of the network file system that holds a folder, whose locks may not be seen by other machines."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    here = folder.resolve()
    around = [(len(place), kind) for _, place, kind, *_ in mounts if here.is_relative_to(place)]
    kind = max(around, default=(0, ""))[1]
    return kind if kind in _NETWORK_DISKS else None


def sync(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class HashingWriter:
    """A sequential binary output stream that hashes everything written to it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._written = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Write and hash bytes; return their number."""
        self._stream.write(data)
        self._digest.update(data)
        size = memoryview(data).nbytes
        self._written += size
        return size

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self._written

    def flush(self) -> None:
        """Flush the underlying stream."""
        self._stream.flush()

    def close(self) -> None:
        """Mark as closed. The underlying stream stays open: its owner closes it."""
        self.closed = True

    @property
    def sha256(self) -> str:
        """Digest of the written bytes, in hexadecimal."""
        return self._digest.hexdigest()
