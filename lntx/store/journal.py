"""The journal of the files that lntx wrote under a root. It alone decides whether a file is ours: names prove nothing.

`artifacts/.journal.jsonl` has one line per file, written before the file appears, with the digest if it is final.
A truncated line is skipped; a file that is not in the journal is never touched.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from lntx.base.files import open_regular, write_whole
from lntx.config.schema import Section
from lntx.store.places import OwnPath, Sha256

_MOST_LINE_BYTES = 1000


class Entry(Section):
    """A file that lntx wrote or was about to write."""

    path: OwnPath
    """Path of the file, relative to the root."""

    sha256: Sha256 | None
    """Digest of its bytes; None if the file itself shows whether it is complete."""


class Journal:
    """The journal, stored in one file. The caller locks the store: shared to add, exclusively to replace."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, entries: Mapping[str, str | None], *, durable: bool = True) -> None:
        """Add paths with their digests. durable: wait until the lines are on the disk."""
        # The line break is written first: it ends an incomplete line of a killed process.
        lines = "".join(f"\n{_line(path, sha256)}" for path, sha256 in entries.items())
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            content = lines.encode()
            if os.write(descriptor, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                os.fsync(descriptor)
        except OSError as error:
            error.filename = str(self._path)
            raise
        finally:
            os.close(descriptor)

    def known(self) -> dict[str, set[str | None]]:
        """Return every digest that each path ever had. Raises: OSError: the journal cannot be read."""
        digests: dict[str, set[str | None]] = {}
        try:
            stream = open_regular(self._path)
        except FileNotFoundError:
            return digests
        with stream:
            while line := stream.readline(_MOST_LINE_BYTES):
                try:
                    entry = Entry.model_validate_json(line)
                except ValidationError:
                    continue
                digests.setdefault(entry.path, set()).add(entry.sha256)
        return digests

    def replace(self, entries: Iterable[tuple[str, str | None]]) -> None:
        """Replace all entries by these."""
        write_whole(self._path, "".join(f"\n{_line(path, sha256)}" for path, sha256 in entries))


def _line(path: str, sha256: str | None) -> str:
    return json.dumps({"path": path, "sha256": sha256})
