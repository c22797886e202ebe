"""Copy the exports of runs to an object store and back, for machines that share no folder.

Files are copied before the record that names them, and the record before the pointer to it: a reader of the
pointer finds all that it names. Nothing is overwritten but the pointer. Locks and records in use stay on one disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pyarrow import ArrowException
from pyarrow.fs import FileSystem, FileType, LocalFileSystem, S3FileSystem

from lntx.base.errors import BadInput, Damaged, LntxError
from lntx.base.files import sha256_of, write_whole
from lntx.base.text import for_message, quoted
from lntx.config.schema import Section
from lntx.runs.records import Pointer, load_run, read_run, run_path
from lntx.runs.run import Run, StoredPath
from lntx.store.places import is_run_name
from lntx.store.sealed import DamagedFile, OtherVersion
from lntx.store.store import Store

_PATIENCE_S = 30.0
_MAX_POINTER_BYTES, _MAX_BYTES = 100_000, 2**31
_EXPORTED = re.compile(r"(model|card)-[0-9a-f]{16}\.([a-z0-9]+)")
_S3_OPTIONS = ("region", "scheme", "endpoint_override")


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
    is_current = name is None
    if name is None:
        name = _current(remote)
    if not is_run_name(name):
        raise BadInput(f"{quoted(name)} is no name of a run, such as 20261130-192156-603149")
    with tempfile.TemporaryDirectory(prefix="lntx-pull-") as temporary:
        store = Store(Path(temporary))
        run = _record(remote, store, name)
        if is_current and run.verdict != "pass":
            raise Damaged(f"current.json at {remote.shown} names a run that did not pass: push a passing run again")
        targets = {_name_of(file): file for file in _exported(run)}
        if len(targets) < len(run.stages["export"].files):
            raise Damaged(f"the record of run {name} at {remote.shown} names two files alike: push it again")
        received = {target: Path(temporary) / f"{number}" for number, target in enumerate(targets)}
        # All of them before the first is put into its place.
        for target, file in targets.items():
            if not remote.read(file.path, received[target]) or sha256_of(received[target]) != file.sha256:
                raise Damaged(f"{file.path} in the object store is not what was pushed: push it again")
        for target, file in targets.items():
            place = folder / target
            is_same = place.is_file() and not place.is_symlink() and sha256_of(place) == file.sha256
            if place.is_dir() or not (force or is_same or not (place.exists() or place.is_symlink())):
                raise BadInput(f"{for_message(place)} exists: choose another --output, or replace it with --force")
        for target, source in received.items():
            write_whole(folder / target, source.read_bytes())
        num_bytes = sum(source.stat().st_size for source in received.values())
        files = tuple(str(folder / target) for target in targets)
    return Copied(run=name, address=address, files=files, num_bytes=num_bytes)


def _name_of(file: StoredPath) -> str:
    """Return the name of an exported file without its digest. Raises: Damaged: no export has such a name."""
    match = _EXPORTED.fullmatch(Path(file.path).name)
    if match is None:
        raise Damaged(f"{for_message(file.path)} is no exported file: push the run again")
    return f"{match[1]}.{match[2]}"


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
    except OtherVersion:
        raise LntxError(f"a newer lntx pushed run {name} to {remote.shown}: upgrade lntx") from None
    except DamagedFile as error:
        raise Damaged(f"the record of run {name} at {remote.shown} is damaged: {error}: push it again") from None


class _Remote:
    """A folder in an object store, or on another disk."""

    def __init__(self, address: str) -> None:
        # Many stores that speak S3 refuse the checksums that Amazon's own library adds; the records have digests.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        try:
            self._system, folder = _open(address)
        except BadInput:
            raise
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
            beside = f"{path}-{secrets.token_hex(8)}.part"
            with self._system.open_output_stream(beside) as stream:
                stream.write(content)
            self._system.move(beside, path)

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

    def read(self, name: str, target: Path) -> bool:
        """Copy a file from there; return whether there is one."""
        content = self.content(name, most=_MAX_BYTES)
        if content is not None:
            target.write_bytes(content)
        return content is not None

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
    if parts.username or parts.password:
        raise BadInput("the address holds a key, which others can read: set AWS_ACCESS_KEY_ID and its like instead")
    if parts.scheme != "s3":
        if parts.query or parts.fragment:
            raise ValueError("it holds ? or #")
        system, folder = FileSystem.from_uri(address)
        return system, folder
    if not parts.netloc:
        raise ValueError("it names no bucket")
    given = dict(parse_qsl(parts.query))
    for option in set(given) - set(_S3_OPTIONS):
        raise ValueError(f"its options are {', '.join(_S3_OPTIONS)}, not {for_message(option)}")
    # Small files in one request, and more patience than the three seconds that are its default.
    options: dict[str, Any] = {
        "allow_delayed_open": True,
        "request_timeout": _PATIENCE_S,
        "connect_timeout": _PATIENCE_S,
    }
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    if endpoint.path and not endpoint.netloc:
        raise BadInput("AWS_ENDPOINT_URL must begin with http:// or https://")
    if endpoint.netloc:
        options |= {"scheme": endpoint.scheme, "endpoint_override": endpoint.netloc}
    return S3FileSystem(**options | given), f"{parts.netloc}{parts.path}"


def _line(error: Exception) -> str:
    return for_message((str(error) or type(error).__name__).splitlines()[0])
