"""Whether stored files are what they were, without reading large ones each time.

The digest of a large file is remembered for as long as nothing about the file changes: inode, size, time of
modification and time of change. A rewrite of the same size with its modification time put back still changes the time
of change. Bit rot changes no time at all, so that files are read again after a week. Knows no records.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lntx.hashing import sha256_of, state_of, sync

LARGE_BYTES = 2**22
"""Smaller files are read at every look."""

_WEEK = 7 * 24 * 3600.0


class Verified:
    """Digests that are known of the files under a root.

    memo: the file that remembers them; without it, or if it is damaged, files are read.
    """

    def __init__(self, root: Path, memo: Path) -> None:
        self._root = root
        self._path = memo

    def sha256(self, path: Path) -> str:
        """Digest of a file. Raises: OSError: it cannot be read."""
        state = state_of(path)
        if state[1] < LARGE_BYTES:
            return sha256_of(path)
        known = self._load().get(self._name(path))
        # A time to come is one from before the clock was set back: it says nothing.
        if isinstance(known, dict) and known.get("state") == state and 0 <= time.time() - known["read_at"] <= _WEEK:
            return str(known["sha256"])
        sha256 = sha256_of(path)
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
                self._name(path): {"state": state, "sha256": sha256, "read_at": now}
                for path, (sha256, state) in large.items()
            },
        }
        kept = {name: known for name, known in memo.items() if (self._root / name).exists()}
        # A root that cannot be written is still good to read.
        with contextlib.suppress(OSError):
            write_json(self._path, kept)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _load(self) -> dict[str, Any]:
        try:
            memo = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return memo if isinstance(memo, dict) else {}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: what it makes only its owner may read.
    beside = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with beside.open("x", encoding="utf-8") as handle:
            json.dump(value, handle, indent=1, allow_nan=False, ensure_ascii=False)
            handle.write("\n")
            handle.flush()
            os.fsync(handle.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)
