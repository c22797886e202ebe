"""Digests of large files, remembered for as long as nothing about a file changes.

A file is the same while its inode, size, time of modification and time of change are. A rewrite of the same size with
its modification time put back still changes the time of change. Bit rot changes no time at all, so that files are read
again after a week. Knows no records.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from lntx.config.schema import Section
from lntx.files import read_json, sha256_of, state_of, write_json
from lntx.store.places import ResultPath, Sha256

LARGE_BYTES = 2**22
"""Smaller files are read at every look."""

_WEEK = 7 * 24 * 3600.0


class Seen(Section):
    """A file as it was when it was hashed."""

    state: list[int]
    """What `state_of` gave."""

    sha256: Sha256
    """Digest of its bytes."""

    read_at: float
    """Seconds since 1970."""


_MEMO: TypeAdapter[dict[ResultPath, Seen]] = TypeAdapter(dict[ResultPath, Seen])


class StatCache:
    """Digests that are known of the files under a root.

    memo: the file that remembers them; without it, or if it is damaged, files are read.
    """

    def __init__(self, root: Path, memo: Path) -> None:
        self._root = root
        self._path = memo

    def sha256(self, path: Path, *, remember: bool = True) -> str:
        """Digest of a file. remember: false writes nothing. Raises: OSError: it cannot be read."""
        state = state_of(path)
        if state[1] < LARGE_BYTES:
            return sha256_of(path)
        known = self._load().get(self._name(path))
        # A time to come is one from before the clock was set back: it says nothing.
        if known is not None and known.state == state and 0 <= time.time() - known.read_at <= _WEEK:
            return known.sha256
        sha256 = sha256_of(path)
        if remember:
            self.remember({path: (sha256, state)})
        return sha256

    def remember(self, digests: Mapping[Path, tuple[str, list[int]]]) -> None:
        """Take note of the digests of files, and of the state that they were in."""
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
        kept = {name: seen.model_dump() for name, seen in memo.items() if (self._root / name).exists()}
        # A root that cannot be written is still good to read.
        with contextlib.suppress(OSError):
            write_json(self._path, kept)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _load(self) -> dict[str, Seen]:
        try:
            return _MEMO.validate_python(read_json(self._path))
        except (OSError, ValueError):
            return {}
