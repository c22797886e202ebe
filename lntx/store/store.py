"""The cache: files stored by content, records stored by key.

Publishes files atomically, verifies every cache hit, and never returns a result that failed. Removes and moves only
files that the journal or a record proves to be ours. Does not know what a stage computes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lntx.base.errors import BadInput
from lntx.base.files import sha256_of, state_of, sync
from lntx.base.stages import STAGES, Stage
from lntx.base.text import for_message
from lntx.store.journal import Journal
from lntx.store.key import Identity
from lntx.store.locks import locked
from lntx.store.places import folder_of, is_record_name, result_path
from lntx.store.record import Record, StoredFile, read_record, record_name
from lntx.store.sealed import DamagedFile, write_sealed
from lntx.store.staging import ABANDONED_S, computing, is_folder, modified, remove_abandoned
from lntx.store.stat_cache import StatCache


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The outcome of a lookup by key."""

    state: Literal["fresh", "missing", "damaged", "quarantined"]
    """Only a fresh record may be used."""

    record: Record | None
    """The record; None if it is missing or itself damaged."""

    reason: str | None
    """Why it may not be used; None if it is fresh."""


class Store:
    """The artifacts under one root.

    root: the folder that holds `data/` and `artifacts/`.

    Raises: BadInput: the root is a file.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self.artifacts = self.root / "artifacts"
        self.locks = self.artifacts / ".locks"
        self.damaged = self.artifacts / ".damaged"
        self.journal = Journal(self.artifacts / ".journal.jsonl")
        self.stat_cache = StatCache(self.root, self.artifacts / ".verified.json")
        try:
            # The nearest existing parent must be a folder.
            nearest = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
            usable = nearest.is_dir()
        except (OSError, ValueError) as error:
            message = error.strerror if isinstance(error, OSError) else error
            raise BadInput(f"the root {for_message(self.root, 80)} cannot be used: {message}") from None
        if not usable:
            raise BadInput(f"the root {for_message(self.root)} is not a folder: choose another --root")

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
            place = for_message(error.filename or self.root)
            raise BadInput(f"cannot write to {place}: {error.strerror}: choose --root") from None

    def path(self, file: StoredFile) -> Path:
        """Return the path of a stored file."""
        return self.root / file.path

    def name_of(self, path: Path) -> str:
        """Return a path relative to the root, as in the journal and in messages."""
        return path.relative_to(self.root).as_posix()

    def lock(self, key: str) -> AbstractContextManager[bool]:
        """Hold a key: others wait for it, and the operating system frees it when the holder is killed."""
        return locked(self.locks / f"{key}.lock")

    def shared(self, *, create: bool = True) -> AbstractContextManager[bool]:
        """Hold the store together with others: nothing is removed meanwhile. Hits are taken and results published so.

        create: whether to create a missing lock file.

        Lock order: the lock of a key first, then this one.
        """
        return locked(self.locks / "store.lock", shared=True, create=create)

    def exclusive(self, *, create: bool = True) -> AbstractContextManager[bool]:
        """Hold the store alone, after waiting for those who hold it. create: false makes no lock file."""
        return locked(self.locks / "store.lock", create=create)

    def staging(self, stage: Stage, key: str) -> AbstractContextManager[Path]:
        """Create a staging folder; the caller holds the lock of the key."""
        return computing(self.folder(stage), key)

    def sweep(self, *, older_than_s: float = ABANDONED_S) -> list[Path]:
        """Remove staging folders of killed runs that no run has resumed. Returns: the removed folders."""
        return remove_abandoned([self.folder(stage) for stage in STAGES], self.locks, older_than_s=older_than_s)

    def publish(
        self,
        identity: Identity,
        folder: Path,
        *,
        seconds: float,
        environment: Mapping[str, str | None],
        digests: Mapping[str, str] | None = None,
        quarantine: str | None = None,
    ) -> Record:
        """Move the files of a staging folder to their final paths, then write the record.

        Each file appears complete or not at all; the record appears after its files. digests: digests that were
        computed while the files were written, by name. quarantine: why the result must never be used, if so.
        """
        staged = {
            path: (digests or {}).get(path.name) or sha256_of(path) for path in folder.iterdir() if path.is_file()
        }
        for path in staged:
            sync(path)
        files = tuple(
            StoredFile(
                name=path.name,
                path=result_path(identity.stage, path.name, sha256),
                sha256=sha256,
                size=path.stat().st_size,
            )
            for path, sha256 in sorted(staged.items())
        )
        record = Record(
            key=identity.key,
            identity=identity,
            files=files,
            created_at=time.time(),
            seconds=seconds,
            environment=dict(environment),
            quarantine=quarantine,
        )
        known: dict[Path, tuple[str, list[int]]] = {}
        with self.shared():
            self.journal.add({file.path: file.sha256 for file in files})
            for file in files:
                place = self.path(file)
                if self._is_obstructed(place, file):
                    self.set_aside(place)
                (folder / file.name).replace(place)
                known[place] = file.sha256, state_of(place)
            sync(self.folder(identity.stage))
            self._write_record(record)
        self.stat_cache.remember(known)
        return record

    def quarantine(self, record: Record, reason: str) -> None:
        """Mark a record as never to be used again, but keep it."""
        with self.shared():
            self._write_record(record.model_copy(update={"quarantine": reason}))

    def find(self, identity: Identity) -> Finding:
        """Look up a key and verify the stored result."""
        path = self.record_path(identity)
        try:
            record = read_record(path)
        except FileNotFoundError:
            return Finding(state="missing", record=None, reason="never computed")
        except DamagedFile as error:
            return Finding(state="damaged", record=None, reason=f"record {path.name} is damaged: {error}")
        return self.check(record)

    def check(self, record: Record) -> Finding:
        """Verify the files of a record."""
        if record.quarantine is not None:
            return Finding(state="quarantined", record=record, reason=f"not used again: {record.quarantine}")
        for file in record.files:
            problem = problem_of(self.path(file), file.sha256, file.size, self.stat_cache.sha256)
            if problem is not None:
                return Finding(state="damaged", record=record, reason=f"{file.path} {problem}")
        return Finding(state="fresh", record=record, reason=None)

    def records(self, stage: Stage, *, own: str | None = None, key: str | None = None) -> Iterator[Record]:
        """Yield the readable records of a stage, latest first.

        own: yield only records with this digest of the identity without inputs. key: yield only the record of this key.
        """
        pattern = f"{'*' if own is None else own[:16]}-{key or '*'}.json"
        for path in self.latest_record_paths(stage, pattern):
            with contextlib.suppress(FileNotFoundError, DamagedFile):
                record = read_record(path)
                if own is None or record.identity.own == own:
                    yield record

    def record_paths(self, stage: Stage, pattern: str = "*.json") -> list[Path]:
        """Return the paths of a stage's records, readable or not; files with other names are left out."""
        paths = (self.artifacts / "records" / stage).glob(pattern)
        return sorted(path for path in paths if is_record_name(path.name))

    def latest_record_paths(self, stage: Stage, pattern: str = "*.json") -> list[Path]:
        """Return the same paths as `record_paths`, latest first."""
        return sorted(self.record_paths(stage, pattern), key=modified, reverse=True)

    def set_aside(self, path: Path) -> Path:
        """Move a file or folder to `artifacts/.damaged/`, under an unused name.

        Returns: the new path.
        """
        self.damaged.mkdir(parents=True, exist_ok=True)
        name = self.name_of(path).replace("/", "-")
        number = 1
        while True:
            place = self.damaged / (name if number == 1 else f"{name}.{number}")
            try:
                # Reserve the name first: rename silently overwrites an existing file.
                place.mkdir() if is_folder(path) else place.touch(exist_ok=False)
                break
            except FileExistsError:
                number += 1
        try:
            _move(path, place)
        except OSError as error:
            shutil.rmtree(place) if is_folder(place) else place.unlink()
            if not isinstance(error, FileNotFoundError):
                raise
        return place

    def folder(self, stage: Stage) -> Path:
        """Return the folder of a stage's results."""
        return self.root / folder_of(stage)

    def record_path(self, identity: Identity) -> Path:
        """Return the path of the record of a key."""
        return self.artifacts / "records" / identity.stage / record_name(identity)

    def is_own(self, path: Path, known: Mapping[str, set[str | None]], *, remember: bool = True) -> bool:
        """Return whether a path is a regular file whose digest is in the journal. remember: as in `StatCache`."""
        try:
            digests = known.get(self.name_of(path), set())
            is_file = stat.S_ISREG(path.lstat().st_mode)
            return bool(digests) and is_file and self.stat_cache.sha256(path, remember=remember) in digests
        except OSError:
            return False

    def _write_record(self, record: Record) -> None:
        path = self.record_path(record.identity)
        self.journal.add({self.name_of(path): None}, durable=False)
        write_sealed(path, record.model_dump(mode="json"))

    def _is_obstructed(self, place: Path, file: StoredFile) -> bool:
        """Whether something other than the file's bytes is where they belong."""
        try:
            return not (stat.S_ISREG(place.lstat().st_mode) and self.stat_cache.sha256(place) == file.sha256)
        except FileNotFoundError:
            return False
        except OSError:
            # Unreadable, so it is not the stored file.
            return True


def problem_of(
    path: Path, sha256: str, size: int | None = None, digest: Callable[[Path], str] = sha256_of
) -> str | None:
    """Return what is wrong with a stored file ("is gone"), or None if its bytes are those that were stored.

    size: the stored size, if it is known. digest: how the digest of the file is found.
    """
    try:
        actual_size = path.stat().st_size
        if size not in (None, actual_size):
            return f"has {actual_size} bytes in place of {size}"
        return None if digest(path) == sha256 else "was altered"
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _move(path: Path, place: Path) -> None:
    """Move a file or folder onto an empty one, possibly on another disk."""
    try:
        path.replace(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if is_folder(path):
            shutil.copytree(path, place, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(path)
        else:
            shutil.copy2(path, place)
            sync(place)
            path.unlink()
