"""Files by content, records by key: the one cache.

Publishes whole files or none, verifies every hit, and never gives out what failed. Knows nothing of what a stage
computes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
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
_HALF_WRITTEN_SECONDS = 600.0

_RECORD_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{64}\.json")
_RESULT_NAME = re.compile(r".+-[0-9a-f]{16}\.[a-z0-9]+")

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
        self.locks = self.artifacts / ".locks"
        self.verified = Verified(self.root, self.artifacts / ".verified.json")
        try:
            # The nearest thing that is there has to be a folder.
            nearest = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
            usable = nearest.is_dir()
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
        with (self.locks / f"{key}.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def lock_if_free(self, key: str) -> Iterator[bool]:
        """Hold a key if nobody else does; false where somebody does."""
        with (self.locks / f"{key}.lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    @contextlib.contextmanager
    def no_publishing(self) -> Iterator[None]:
        """Let no result be published meanwhile; waits for those that are."""
        with (self.locks / "publishing.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def staging(self, stage: Stage, key: str) -> Iterator[Path]:
        """A folder to compute into, beside where the files will go; whoever holds the key has it.

        It is gone at the end, and also after an error that is final. What is in its folder RESUME outlives an
        interruption.
        """
        folder = self.folder(stage) / f".staging-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            if left.name != RESUME:
                self.remove(left)
        (folder / RESUME).mkdir(exist_ok=True)
        try:
            yield folder
        except LntxError:
            self.remove(folder)
            raise
        except BaseException:
            # Interrupted, or out of disk: what was done so far is worth keeping, if there is anything.
            if not any((folder / RESUME).iterdir()):
                self.remove(folder)
            raise
        self.remove(folder)

    def sweep(self, *, older_than_s: float = _ABANDONED_SECONDS) -> list[Path]:
        """Remove what killed runs left behind and none has gone on with: folders to compute into, files half written.

        Returns: what was removed.
        """
        removed = []
        oldest = time.time() - older_than_s
        for stage in STAGES:
            for folder in self.folder(stage).glob(".staging-*"):
                with self.lock_if_free(folder.name.removeprefix(".staging-")) as free:
                    if free and _newest(folder) < oldest * 1e9:
                        self.remove(folder)
                        removed.append(folder)
        # Half-written JSON lives for milliseconds.
        for beside in self.artifacts.glob("**/.*.json-*-*"):
            if _modified(beside) < (time.time() - _HALF_WRITTEN_SECONDS) * 1e9:
                self.remove(beside)
                removed.append(beside)
        return removed

    def remove(self, path: Path) -> None:
        """Remove a file or a folder for good."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

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
        staged = {
            path: (digests or {}).get(path.name) or sha256_of(path) for path in folder.iterdir() if path.is_file()
        }
        for path in staged:
            sync(path)
        files = []
        known: dict[Path, tuple[str, list[int]]] = {}
        target = self.folder(identity.stage)
        with (self.locks / "publishing.lock").open("w") as handle:
            # Many may publish at once, but not while files that no record needs are removed.
            fcntl.flock(handle, fcntl.LOCK_SH)
            for path, sha256 in sorted(staged.items()):
                size = path.stat().st_size
                place = target / f"{path.stem}-{sha256[:16]}{path.suffix}"
                path.replace(place)
                known[place] = sha256, state_of(place)
                stored = place.relative_to(self.root).as_posix()
                files.append(StoredFile(name=path.name, path=stored, sha256=sha256, size=size))
            sync(target)
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
        self.verified.remember(known)
        return record

    def quarantine(self, record: Record, reason: str) -> None:
        """Keep a record, and never use it again."""
        self._write_record(record.model_copy(update={"quarantine": reason}))

    def find(self, identity: Identity) -> Finding:
        """Look a key up, and verify what is there."""
        path = self.record_path(identity)
        try:
            record = read_record(path)
        except FileNotFoundError:
            return Finding(state="missing", record=None, reason="never computed")
        except Unreadable as error:
            return Finding(state="damaged", record=None, reason=f"record {path.name} is damaged: {error}")
        if record.key != identity.key or record.identity != identity:
            return Finding(state="damaged", record=None, reason=f"record {path.name} is that of another result")
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

    def records(self, stage: Stage, *, own: str | None = None, key: str | None = None) -> Iterator[Record]:
        """The readable records of a stage, latest first.

        own: digest of all but the inputs; only records that have it. key: the only one.
        """
        pattern = f"{'*' if own is None else own[:16]}-{key or '*'}.json"
        for path in sorted(self.record_paths(stage, pattern), key=_modified, reverse=True):
            with contextlib.suppress(FileNotFoundError, Unreadable):
                record = read_record(path)
                if own is None or record.identity.own == own:
                    yield record

    def record_paths(self, stage: Stage, pattern: str = "*.json") -> list[Path]:
        """The records of a stage, readable or not; files that are none of ours are left out."""
        paths = (self.artifacts / "records" / stage).glob(pattern)
        return sorted(path for path in paths if _RECORD_NAME.fullmatch(path.name))

    def result_files(self, stage: Stage) -> list[Path]:
        """The files of a stage's results, whether or not a record needs them."""
        return sorted(path for path in self.folder(stage).glob("*") if _RESULT_NAME.fullmatch(path.name))

    def set_aside(self, path: Path) -> None:
        """Move a damaged file out of the way, and keep it in `artifacts/.damaged/`."""
        damaged = self.artifacts / ".damaged"
        damaged.mkdir(exist_ok=True)
        name = path.relative_to(self.root).as_posix().replace("/", "-")
        with contextlib.suppress(FileNotFoundError):
            path.replace(damaged / name)

    def write_json(self, path: Path, value: Mapping[str, Any]) -> None:
        """Replace a JSON file in one step."""
        write_json(path, value)

    def folder(self, stage: Stage) -> Path:
        """Where the files of a stage's results are."""
        return self.root / "data" if stage == "generate" else self.artifacts / stage

    def record_path(self, identity: Identity) -> Path:
        """Where the record of a key is."""
        # What is alike but for its inputs is found by name: a long history costs no reading.
        return self.artifacts / "records" / identity.stage / f"{identity.own[:16]}-{identity.key}.json"

    def _write_record(self, record: Record) -> None:
        self.write_json(self.record_path(record.identity), dump_record(record))

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


def _newest(folder: Path) -> int:
    return max(_modified(path) for path in (folder, folder / RESUME))


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
