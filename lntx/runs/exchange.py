"""Copy the exports of runs to an object store and back, for machines that share no folder.

Files are copied before the record that names them, and the record before the pointer to it: whoever reads the pointer
finds all that it names. Nothing is overwritten but the pointer. Locks and records in use stay on one disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pyarrow import ArrowException
from pyarrow.fs import FileSystem, FileType, LocalFileSystem, S3FileSystem

from lntx.config.schema import Section
from lntx.errors import BadInput, Damaged, LntxError
from lntx.files import sha256_of
from lntx.runs.records import Pointer, load_run, read_run, run_path
from lntx.runs.run import Run, StoredPath
from lntx.store.places import is_run_name
from lntx.store.sealed import DamagedFile
from lntx.store.store import Store
from lntx.text import for_message, quoted

_PATIENCE_S = 30.0
_MAX_POINTER_BYTES, _MAX_BYTES = 100_000, 2**31
_DIGEST = re.compile(r"-[0-9a-f]{16}(?=\.[a-z0-9]+$)")


class Copied(Section):
    """What was copied."""

    run: str
    """Name of the run."""

    address: str
    """Address of the object store."""

    files: tuple[str, ...]
    """Paths of the files: below the address after a push, on this machine after a pull."""

    num_bytes: int
    """Total size of the files that were sent or received, in bytes; what was there already is not sent again."""


def push(store: Store, address: str, name: str | None = None) -> Copied:
    """Copy the exported files of a run, its record, and, if it passed, the pointer to it.

    name: the run, or a beginning of its name; by default the latest.

    Raises: BadInput: it has no exports, or the address is none. Damaged: a file is not as it was written. LntxError:
    the object store cannot be used.
    """
    run = read_run(store, name)
    exported = _exported(run)
    for file in exported:
        if sha256_of(store.root / file.path) != file.sha256:
            raise Damaged(f"{file.path} is damaged: lntx verify --heal, and lntx run --only export")
    remote = _Remote(address)
    sent = sum(remote.write(file.path, store.root / file.path) for file in exported)
    sent += remote.write(f"runs/{run.run}.json", run_path(store, run.run))
    if run.verdict == "pass":
        pointer = Pointer(run=run.run, exports=run.exports).model_dump_json().encode()
        remote.replace("current.json", pointer)
        sent += len(pointer)
    return Copied(run=run.run, address=address, files=tuple(file.path for file in exported), num_bytes=sent)


def pull(address: str, folder: Path, name: str | None = None, *, force: bool = False) -> Copied:
    """Copy the exported files of a run into a folder, under names without digests, and check each digest.

    name: the whole name of the run; by default the last passing one that was pushed. force: replace existing files.

    Raises: BadInput: there is no such run, or a file exists. Damaged: what arrives is not what was pushed. LntxError:
    the object store cannot be used.
    """
    remote = _Remote(address)
    if name is None:
        name = _current(remote)
    if not is_run_name(name):
        raise BadInput(f"{quoted(name)} is no name of a run, such as 20261130-192156-603149")
    with tempfile.TemporaryDirectory(prefix="lntx-pull-") as temporary:
        store = Store(Path(temporary))
        run = _record(remote, store, name)
        targets = {folder / _DIGEST.sub("", Path(file.path).name): file for file in _exported(run)}
        for target in targets:
            if target.exists() and not force:
                raise BadInput(f"{for_message(target)} exists: choose another --output, or replace it with --force")
        received = 0
        folder.mkdir(parents=True, exist_ok=True)
        for number, (target, file) in enumerate(targets.items()):
            # Beside its place, so that it is moved there in one step.
            beside = target.with_name(f".{target.name}-{number}.part")
            try:
                received += remote.read(file.path, beside)
                if not beside.exists() or sha256_of(beside) != file.sha256:
                    raise Damaged(f"{file.path} in the object store is not what was pushed: push it again")
                beside.replace(target)
            finally:
                beside.unlink(missing_ok=True)
    return Copied(run=name, address=address, files=tuple(map(str, targets)), num_bytes=received)


def _exported(run: Run) -> tuple[StoredPath, ...]:
    files = run.stages["export"].files
    if not files:
        raise BadInput(f"run {run.run} has no exports: lntx run --only export makes them")
    return files


def _current(remote: _Remote) -> str:
    content = remote.content("current.json", most=_MAX_POINTER_BYTES)
    if content is None:
        raise BadInput(f"no passing run was pushed to {remote.shown}: lntx push, or name a run")
    try:
        return Pointer.model_validate_json(content).run
    except ValueError:
        raise Damaged(f"current.json at {remote.shown} is not what lntx pushed: push a passing run again") from None


def _record(remote: _Remote, store: Store, name: str) -> Run:
    path = run_path(store, name)
    path.parent.mkdir(parents=True)
    if not remote.read(f"runs/{name}.json", path):
        raise BadInput(f"run {name} was not pushed to {remote.shown}")
    try:
        return load_run(store, name)
    except DamagedFile as error:
        raise Damaged(f"the record of run {name} at {remote.shown} is damaged: {error}: push it again") from None


class _Remote:
    """A folder in an object store, or on another disk."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.username or parts.password:
            raise BadInput("the address holds a key, which others can read: set AWS_ACCESS_KEY_ID and its like instead")
        # Many stores that speak S3 refuse the checksums that Amazon's own library adds; the records have digests.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        try:
            self._system, folder = _open(address)
        except (ValueError, OSError, ArrowException) as error:
            raise BadInput(f"{quoted(address)} is no address such as s3://BUCKET/FOLDER: {_line(error)}") from None
        self._folder = folder.rstrip("/")
        self.shown = for_message(address.partition("?")[0])

    def write(self, name: str, source: Path) -> int:
        """Copy a file there, if it is not there yet; return the number of bytes sent."""
        content = source.read_bytes()
        if self.content(name, most=len(content)) == content:
            return 0
        self.replace(name, content)
        return len(content)

    def replace(self, name: str, content: bytes) -> None:
        """Write a file in one step."""
        path = self._path(name)
        with self._errors():
            if not isinstance(self._system, LocalFileSystem):
                with self._system.open_output_stream(path) as stream:
                    stream.write(content)
                return
            self._system.create_dir(path.rpartition("/")[0], recursive=True)
            with self._system.open_output_stream(f"{path}.part") as stream:
                stream.write(content)
            self._system.move(f"{path}.part", path)

    def content(self, name: str, *, most: int) -> bytes | None:
        """Return the bytes of a file; None if there is none, or it has more than `most`."""
        path = self._path(name)
        with self._errors():
            info = self._system.get_file_info(path)
            if info.type != FileType.File or info.size > most:
                return None
            with self._system.open_input_stream(path) as stream:
                content: bytes = stream.read()
            return content

    def read(self, name: str, target: Path) -> int:
        """Copy a file from there; return its number of bytes, 0 if there is none."""
        content = self.content(name, most=_MAX_BYTES)
        if content is None:
            return 0
        target.write_bytes(content)
        return len(content)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ArrowException) as error:
            raise LntxError(f"{self.shown} cannot be used: {_line(error)}") from None


def _open(address: str) -> tuple[FileSystem, str]:
    """Return the file system of an address and the folder in it. Raises: ValueError, OSError, ArrowException."""
    parts = urlsplit(address)
    if parts.scheme != "s3":
        system, folder = FileSystem.from_uri(address)
        return system, folder
    # Small files in one request, and more patience than the three seconds that are its default.
    options: dict[str, Any] = {
        "allow_delayed_open": True,
        "request_timeout": _PATIENCE_S,
        "connect_timeout": _PATIENCE_S,
    }
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    if endpoint.netloc:
        options |= {"scheme": endpoint.scheme, "endpoint_override": endpoint.netloc}
    return S3FileSystem(**options | dict(parse_qsl(parts.query))), f"{parts.netloc}{parts.path}"


def _line(error: Exception) -> str:
    return for_message((str(error) or type(error).__name__).splitlines()[0])
