"""Files by content, records by key: the one cache.

Publishes whole files or none, verifies every hit, and never gives out what failed. Knows nothing of what a stage
computes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lntx.errors import BadInput, LntxError
from lntx.hashing import sha256_of, state_of, sync
from lntx.identity import Identity
from lntx.records import Record, StoredFile, Unreadable, dump_record, read_record
from lntx.selection import STAGES, Stage
from lntx.verified import Verified, write_json

# Folders of work that no run has gone on with for so long are of no more use.
_ABANDONED_SECONDS = 7 * 24 * 3600.0

RESUME = ".resume"
"""Folder, within one to compute into, of what an interrupted computation left to go on from."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the store has under a key."""

    state: Literal["fresh", "missing", "damaged", "quarantined"]
    """Only a fresh record may be used."""

    record: Record | None
    """The record, unless it is missing or itself damaged."""

    reason: str | None
    """Why it may not be used."""


class Store:
    """The artifacts under one root.

    root: the folder that holds `data/` and `artifacts/`.

    Raises: BadInput: the root is a file.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.artifacts = self.root / "artifacts"
        self.verified = Verified(self.root, self.artifacts / ".verified.json")
        try:
            usable = self.root.is_dir() or not self.root.exists()
        except OSError as error:
            raise BadInput(f"the root {str(self.root)[:80]} cannot be used: {error.strerror}") from None
        if not usable:
            raise BadInput(f"the root {self.root} is not a folder: choose another --root")

    def prepare(self) -> None:
        """Create the folders.

        Raises: BadInput: the root cannot be written.
        """
        folders = (self.root / "data", *(self.artifacts / name for name in ("records", "runs", ".locks")))
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    pass
        except OSError as error:
            raise BadInput(f"cannot write to {error.filename or self.root}: {error.strerror}: choose --root") from None

    def path(self, file: StoredFile) -> Path:
        """Where a stored file is."""
        return self.root / file.path

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold a key: others who want it wait; the operating system frees it when the holder dies."""
        with (self.artifacts / ".locks" / f"{key}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def staging(self, stage: Stage, key: str) -> Iterator[Path]:
        """A folder to compute into, beside where the files will go; whoever holds the key has it.

        It is gone at the end, and also after an error that is final. What is in its folder RESUME outlives an
        interruption.
        """
        folder = self._folder(stage) / f".staging-{key[:32]}"
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            if left.name != RESUME:
                _remove(left)
        (folder / RESUME).mkdir(exist_ok=True)
        try:
            yield folder
        except LntxError:
            _remove(folder)
            raise
        except BaseException:
            # Interrupted, or out of disk: what was done so far is worth keeping, if there is anything.
            if not any((folder / RESUME).iterdir()):
                _remove(folder)
            raise
        _remove(folder)

    def sweep(self, *, older_than_s: float = _ABANDONED_SECONDS) -> list[Path]:
        """Remove what killed runs left behind and none has gone on with: folders to compute into, files half written.

        Returns: what was removed.
        """
        removed = []
        oldest = time.time() - older_than_s
        folders = {stage: self._folder(stage) for stage in STAGES}
        for stage, parent in folders.items():
            for folder in parent.glob(".staging-*"):
                with self._unless_held(folder.name) as free:
                    if free and _modified(folder) < oldest * 1e9:
                        _remove(folder)
                        removed.append(folder)
            for record in (self.artifacts / "records" / stage).glob(".*.json-*"):
                if _modified(record) < oldest * 1e9:
                    record.unlink(missing_ok=True)
                    removed.append(record)
        return removed

    @contextlib.contextmanager
    def _unless_held(self, name: str) -> Iterator[bool]:
        """Hold the lock of a staging folder's key for a moment; false where somebody else does."""
        prefix = name.removeprefix(".staging-")
        locks = list((self.artifacts / ".locks").glob(f"{prefix}*.lock"))
        with contextlib.ExitStack() as stack:
            for lock in locks:
                handle = stack.enter_context(lock.open("w"))
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield False
                    return
            yield True

    def publish(
        self,
        identity: Identity,
        folder: Path,
        *,
        seconds: float,
        environment: Mapping[str, Any],
        digests: Mapping[str, str] | None = None,
        quarantine: str | None = None,
    ) -> Record:
        """Move the files of a staging folder to their places, and then record them.

        Each file appears whole or not at all; the record appears after its files. digests: those that were taken
        while files were written, by name. quarantine: why the result is never to be used, if it is not.
        """
        files = []
        known: dict[Path, tuple[str, list[int]]] = {}
        target = self._folder(identity.stage)
        for staged in sorted(path for path in folder.iterdir() if path.is_file()):
            sha256 = (digests or {}).get(staged.name) or sha256_of(staged)
            size = staged.stat().st_size
            place = target / f"{staged.stem}-{sha256[:16]}{staged.suffix}"
            sync(staged)
            staged.replace(place)
            known[place] = sha256, state_of(place)
            files.append(StoredFile(name=staged.name, path=str(place.relative_to(self.root)), sha256=sha256, size=size))
        sync(target)
        self.verified.remember(known)
        record = Record(
            key=identity.key,
            identity=identity,
            files=tuple(files),
            created_at=time.time(),
            seconds=seconds,
            environment=dict(environment),
            quarantine=quarantine,
        )
        self._write_record(record)
        return record

    def quarantine(self, record: Record, reason: str) -> None:
        """Keep a record, and never use it again."""
        self._write_record(record.model_copy(update={"quarantine": reason}))

    def find(self, identity: Identity) -> Finding:
        """Look a key up, and verify what is there."""
        path = self._record_path(identity)
        try:
            record = read_record(path)
        except FileNotFoundError:
            return Finding(state="missing", record=None, reason="never computed")
        except Unreadable as error:
            return Finding(state="damaged", record=None, reason=f"record {path.name} is damaged: {error}")
        return self.check(record)

    def check(self, record: Record) -> Finding:
        """Verify a record's files."""
        if record.quarantine is not None:
            return Finding(state="quarantined", record=record, reason=f"not used again: {record.quarantine}")
        for file in record.files:
            problem = self._problem(file)
            if problem is not None:
                return Finding(state="damaged", record=record, reason=problem)
        return Finding(state="fresh", record=record, reason=None)

    def records(self, stage: Stage, *, own: str | None = None) -> Iterator[Record]:
        """The readable records of a stage, latest first.

        own: digest of all but the inputs; only records that have it.
        """
        pattern = "*.json" if own is None else f"{own[:16]}-*.json"
        paths = (self.artifacts / "records" / stage).glob(pattern)
        for path in sorted(paths, key=_modified, reverse=True):
            with contextlib.suppress(FileNotFoundError, Unreadable):
                record = read_record(path)
                if own is None or record.identity.own == own:
                    yield record

    def set_aside(self, identity: Identity) -> None:
        """Move a damaged record out of the way, and keep it."""
        path = self._record_path(identity)
        damaged = self.artifacts / ".damaged"
        damaged.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            path.replace(damaged / f"{identity.stage}-{path.name}")

    def write_json(self, path: Path, value: Mapping[str, Any]) -> None:
        """Replace a JSON file in one step."""
        write_json(path, value)

    def _folder(self, stage: Stage) -> Path:
        return self.root / "data" if stage == "generate" else self.artifacts / stage

    def _record_path(self, identity: Identity) -> Path:
        # What is alike but for its inputs is found by name: a long history costs no reading.
        return self.artifacts / "records" / identity.stage / f"{identity.own[:16]}-{identity.key}.json"

    def _write_record(self, record: Record) -> None:
        self.write_json(self._record_path(record.identity), dump_record(record))

    def _problem(self, file: StoredFile) -> str | None:
        path = self.path(file)
        try:
            size = path.stat().st_size
            if size != file.size:
                return f"{file.path} has {size} bytes in place of {file.size}"
            sha256 = self.verified.sha256(path)
        except FileNotFoundError:
            return f"{file.path} is gone"
        except OSError as error:
            return f"{file.path} cannot be read: {error.strerror}"
        return None if sha256 == file.sha256 else f"{file.path} was altered"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
