"""Cached digests of large files, valid as long as the state of the file does not change.

A file counts as unchanged if its inode, size, modification time and change time are the same. A rewrite of the same
size with the modification time reset still changes the change time. Bit rot changes no time, so files are read again
after a week. Knows no records.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from lntx.base.files import read_json, sha256_of, state_of, write_json
from lntx.config.schema import Section
from lntx.store.places import ResultPath, Sha256

LARGE_BYTES = 2**22
"""Smaller files are read at every check."""

_WEEK = 7 * 24 * 3600.0


class Seen(Section):
    """The state and digest of a file at the time it was hashed."""

    state: list[int]
    """State of the file, as `state_of` returns it."""

    sha256: Sha256
    """Digest of its bytes."""

    read_at: float
    """Time of hashing, in seconds since 1970."""


_MEMO: TypeAdapter[dict[ResultPath, Seen]] = TypeAdapter(dict[ResultPath, Seen])


class StatCache:
    """The known digests of the files under a root.

    memo: the file that stores them; if it is missing or damaged, files are read.
    """

    def __init__(self, root: Path, memo: Path) -> None:
        self._root = root
        self._path = memo

    def sha256(self, path: Path, *, remember: bool = True) -> str:
        """Return the digest of a file. remember: store it in the cache. Raises: OSError: the file cannot be read."""
        state = state_of(path)
        if state[1] < LARGE_BYTES:
            return sha256_of(path)
        known = self._load().get(self._name(path))
        # A time in the future means that the clock was set back: the age is unknown.
        if known is not None and known.state == state and 0 <= time.time() - known.read_at <= _WEEK:
            return known.sha256
        sha256 = sha256_of(path)
        if remember:
            self.remember({path: (sha256, state)})
        return sha256

    def remember(self, digests: Mapping[Path, tuple[str, list[int]]]) -> None:
        """Store the digests of files together with the states at which they were taken."""
        large = {path: known for path, known in digests.items() if known[1][1] >= LARGE_BYTES}
        if not large:
            return
        now = time.time()
        memo = {
            **self._load(),
            **{
                self._name(path): Seen(state=state, sha256=sha256, read_at=now)
                for path, (sha256, state) in large.items()
            },
        }
        entries = {name: seen.model_dump() for name, seen in memo.items() if (self._root / name).exists()}
        # A read-only root can still be used for reading.
        with contextlib.suppress(OSError):
            write_json(self._path, entries)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _load(self) -> dict[str, Seen]:
        try:
            return _MEMO.validate_python(read_json(self._path))
        except (OSError, ValueError):
            return {}
