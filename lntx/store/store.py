"""Files by content, records by key: the one cache.

Publishes whole files or none, verifies every hit, and never gives out what failed. Removes and moves only what the
journal or a record proves to be its own. Knows nothing of what a stage computes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lntx.errors import BadInput
from lntx.files import sha256_of, state_of, sync, write_json
from lntx.stages import STAGES, Stage
from lntx.store.journal import Journal
from lntx.store.key import Identity
from lntx.store.locks import locked
from lntx.store.places import folder_of, is_record_name, result_path
from lntx.store.record import Record, StoredFile, Unreadable, dump_record, read_record, record_name
from lntx.store.staging import ABANDONED_S, computing, is_folder, modified, remove_abandoned
from lntx.store.stat_cache import StatCache
from lntx.text import shown


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
        self.damaged = self.artifacts / ".damaged"
        self.journal = Journal(self.artifacts / ".journal.jsonl")
        self.stat_cache = StatCache(self.root, self.artifacts / ".verified.json")
        try:
            # The nearest thing that is there has to be a folder.
            nearest = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
            usable = nearest.is_dir()
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else error
            raise BadInput(f"the root {shown(self.root, 80)} cannot be used: {said}") from None
        if not usable:
            raise BadInput(f"the root {shown(self.root)} is not a folder: choose another --root")

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
            place = shown(error.filename or self.root)
            raise BadInput(f"cannot write to {place}: {error.strerror}: choose --root") from None

    def path(self, file: StoredFile) -> Path:
        """Where a stored file is."""
        return self.root / file.path

    def name_of(self, path: Path) -> str:
        """A path as the journal and people name it: relative to the root."""
        return path.relative_to(self.root).as_posix()

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold a key: others who want it wait; the operating system frees it when the holder dies."""
        with locked(self.locks / f"{key}.lock"):
            yield

    @contextlib.contextmanager
    def shared(self, *, create: bool = True) -> Iterator[None]:
        """Hold the store together with others: nothing is removed meanwhile. Hits are taken and results published so.

        create: false makes no lock file.

        A holder of a key may wait for this; no holder of this waits for a key.
        """
        with locked(self.locks / "store.lock", shared=True, create=create):
            yield

    @contextlib.contextmanager
    def exclusive(self, *, create: bool = True) -> Iterator[None]:
        """Hold the store alone, after waiting for those who hold it. create: false makes no lock file."""
        with locked(self.locks / "store.lock", create=create):
            yield

    def staging(self, stage: Stage, key: str) -> AbstractContextManager[Path]:
        """A new folder to compute into; the caller holds the key."""
        return computing(self.folder(stage), key)

    def sweep(self, *, older_than_s: float = ABANDONED_S) -> list[Path]:
        """Remove the folders to compute into that killed runs left and none has gone on with. Returns: those."""
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
        """Move the files of a staging folder to their places, and then record them.

        Each file appears whole or not at all; the record appears after its files. digests: those that were taken
        while files were written, by name. quarantine: why the result is never to be used, if it is not.
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
                if self._is_in_the_way(place, file):
                    self.set_aside(place)
                (folder / file.name).replace(place)
                known[place] = file.sha256, state_of(place)
            sync(self.folder(identity.stage))
            self._write_record(record)
        self.stat_cache.remember(known)
        return record

    def quarantine(self, record: Record, reason: str) -> None:
        """Keep a record, and never use it again."""
        with self.shared():
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
        for path in self.latest_record_paths(stage, pattern):
            with contextlib.suppress(FileNotFoundError, Unreadable):
                record = read_record(path)
                if own is None or record.identity.own == own:
                    yield record

    def record_paths(self, stage: Stage, pattern: str = "*.json") -> list[Path]:
        """The records of a stage, readable or not; files that are none of ours are left out."""
        paths = (self.artifacts / "records" / stage).glob(pattern)
        return sorted(path for path in paths if is_record_name(path.name))

    def latest_record_paths(self, stage: Stage, pattern: str = "*.json") -> list[Path]:
        """The same, the latest first."""
        return sorted(self.record_paths(stage, pattern), key=modified, reverse=True)

    def set_aside(self, path: Path) -> Path:
        """Move what is at a path to `artifacts/.damaged/`, under a name that nothing there has.

        Returns: where it is now.
        """
        self.damaged.mkdir(parents=True, exist_ok=True)
        name = self.name_of(path).replace("/", "-")
        number = 1
        while True:
            place = self.damaged / (name if number == 1 else f"{name}.{number}")
            try:
                # Taken before the move, which replaces a file without asking.
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
        """Where the files of a stage's results are."""
        return self.root / folder_of(stage)

    def record_path(self, identity: Identity) -> Path:
        """Where the record of a key is."""
        return self.artifacts / "records" / identity.stage / record_name(identity)

    def is_own(self, path: Path, known: Mapping[str, set[str | None]], *, remember: bool = True) -> bool:
        """Whether a path is a regular file that the journal knows, with bytes that it had. remember: as `StatCache`."""
        try:
            digests = known.get(self.name_of(path), set())
            is_file = stat.S_ISREG(path.lstat().st_mode)
            return bool(digests) and is_file and self.stat_cache.sha256(path, remember=remember) in digests
        except OSError:
            return False

    def _write_record(self, record: Record) -> None:
        path = self.record_path(record.identity)
        self.journal.add({self.name_of(path): None}, durable=False)
        write_json(path, dump_record(record))

    def _is_in_the_way(self, place: Path, file: StoredFile) -> bool:
        """Whether something other than the file's bytes is where they belong."""
        try:
            return not (stat.S_ISREG(place.lstat().st_mode) and self.stat_cache.sha256(place) == file.sha256)
        except FileNotFoundError:
            return False
        except OSError:
            # It cannot be read: nothing that a result could be.
            return True

    def _problem(self, file: StoredFile) -> str | None:
        path = self.path(file)
        try:
            size = path.stat().st_size
            if size != file.size:
                return f"{file.path} has {size} bytes in place of {file.size}"
            sha256 = self.stat_cache.sha256(path)
        except FileNotFoundError:
            return f"{file.path} is gone"
        except OSError as error:
            return f"{file.path} cannot be read: {error.strerror}"
        return None if sha256 == file.sha256 else f"{file.path} was altered"


def _move(path: Path, place: Path) -> None:
    """Move a file or folder onto an empty one, to another disk too."""
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
