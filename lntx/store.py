"""Files by content, records by key: the one cache.

Publishes whole files or none, verifies every hit, and never gives out what failed. Knows nothing of what a stage
computes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lntx.errors import BadInput
from lntx.identity import Identity
from lntx.records import Record, StoredFile, Unreadable, dump_record, read_record
from lntx.selection import Stage

# Digests of larger files are remembered for as long as nothing about the file changes, and a week at most:
# bit rot changes no time stamp.
_MEMO_BYTES = 2**22
_MEMO_SECONDS = 7 * 24 * 3600.0


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
        self._memo_path = self.artifacts / ".verified.json"
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
    def staging(self, stage: Stage) -> Iterator[Path]:
        """A folder to compute into, beside where the files will go; gone at the end."""
        parent = self._folder(stage)
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(
        self,
        identity: Identity,
        folder: Path,
        *,
        seconds: float,
        environment: Mapping[str, Any],
        quarantine: str | None = None,
    ) -> Record:
        """Move the files of a staging folder to their places, and then record them.

        Each file appears whole or not at all; the record appears after its files. quarantine: why the result is
        never to be used, if it is not.
        """
        files = []
        target = self._folder(identity.stage)
        for staged in sorted(folder.iterdir()):
            sha256 = _sha256(staged)
            size = staged.stat().st_size
            place = target / f"{staged.stem}-{sha256[:16]}{staged.suffix}"
            _sync(staged)
            staged.replace(place)
            files.append(StoredFile(name=staged.name, path=str(place.relative_to(self.root)), sha256=sha256, size=size))
        _sync(target)
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
        _sync(path.parent)

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
            status = path.stat()
            if status.st_size != file.size:
                return f"{file.path} has {status.st_size} bytes in place of {file.size}"
            state = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            if file.size < _MEMO_BYTES:
                sha256 = _sha256(path)
            else:
                memo = self._memo()
                known = memo.get(file.path)
                if known is None or known["state"] != state or time.time() - known["read_at"] > _MEMO_SECONDS:
                    known = {"state": state, "sha256": _sha256(path), "read_at": time.time()}
                    # A root that cannot be written is still good to read.
                    with contextlib.suppress(OSError):
                        self.write_json(self._memo_path, {**memo, file.path: known})
                sha256 = known["sha256"]
        except FileNotFoundError:
            return f"{file.path} is gone"
        except OSError as error:
            return f"{file.path} cannot be read: {error.strerror}"
        return None if sha256 == file.sha256 else f"{file.path} was altered"

    def _memo(self) -> dict[str, Any]:
        try:
            memo = json.loads(self._memo_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return memo if isinstance(memo, dict) else {}


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
