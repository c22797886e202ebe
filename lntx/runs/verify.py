"""Read every stored file again, and set aside what is damaged. Computes nothing."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lntx.config.schema import Section
from lntx.errors import LntxError
from lntx.files import sha256_of
from lntx.runs.run import (
    DamagedRun,
    Run,
    StoredPath,
    load_run,
    pointer_path,
    read_pointer,
    run_names,
    run_path,
    write_run,
)
from lntx.stages import STAGES
from lntx.store.record import Record, StoredFile, Unreadable, read_record
from lntx.store.store import Store

logger = logging.getLogger(__name__)


class Damage(Section):
    """Stored bytes that are not those that were stored."""

    path: str
    """The file, relative to the root."""

    problem: str
    """What is wrong with it."""


class Loss(Section):
    """A file that a run no longer has, and that was noted as lost: known, and no damage."""

    path: str
    """The file, relative to the root."""

    run: str
    """The run whose file it was."""


class Check(Section):
    """What verification found."""

    files: int
    """Files that were read."""

    num_bytes: int
    """Bytes that were read."""

    damaged: tuple[Damage, ...]
    """What is damaged."""

    losses: tuple[Loss, ...] = ()
    """What is known to be lost."""

    set_aside: bool
    """Whether what is damaged was moved to artifacts/.damaged/, and noted as lost where it is gone."""


def verify(
    store: Store, *, heal: bool = False, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Check:
    """Read every stored file again and compare it with what was stored.

    heal: move what is damaged to `artifacts/.damaged/`, with the stage record that names it, so that it is computed
    again where it is needed; the runs whose file it was note the loss.
    progress: told how many bytes are done, of how many.
    """
    found = _Inspection(store)
    found.inspect(progress)
    if found.damaged and heal:
        with store.exclusive():
            found.look_again()
            found.heal()
    elif found.damaged:
        with store.shared(create=False):
            found.look_again()
    return Check(
        files=found.num_files,
        num_bytes=found.num_bytes,
        damaged=tuple(
            Damage(path=store.name_of(path), problem=problem) for path, problem in sorted(found.damaged.items())
        ),
        losses=tuple(Loss(path=path, run=run) for path, run in sorted(found.losses)),
        set_aside=heal and bool(found.damaged),
    )


@dataclass
class _Inspection:
    """A look at everything."""

    store: Store
    only: Collection[Path] | None = None
    """Files to read; none: all."""

    damaged: dict[Path, str] = field(default_factory=dict)
    losses: set[tuple[str, str]] = field(default_factory=set)
    records: list[tuple[Path, Record]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    num_files: int = 0
    num_bytes: int = 0
    _problems: dict[tuple[Path, str], str | None] = field(default_factory=dict)

    def inspect(self, progress: Callable[[int, int], None] = lambda _done, _all: None) -> None:
        self._inspect_records()
        self._inspect_files(progress)
        self._inspect_runs()
        self._inspect_pointer()

    def _inspect_records(self) -> None:
        for stage in STAGES:
            for path in self.store.record_paths(stage):
                try:
                    self.records.append((path, read_record(path)))
                except (FileNotFoundError, LntxError):
                    # Collected meanwhile, or a newer lntx's.
                    continue
                except Unreadable as error:
                    self._name(path, str(error))
                self.num_files += 1

    def _inspect_files(self, progress: Callable[[int, int], None]) -> None:
        wanted = {self.store.path(file): file for _, record in self.records for file in record.files}
        total = sum(file.size for file in wanted.values())
        for path, file in sorted(wanted.items()):
            progress(self.num_bytes, total)
            self.num_files += 1
            problem = self._problem(path, file)
            if problem is not None:
                self.damaged[path] = problem
            self.num_bytes += file.size
        progress(total, total)

    def _inspect_runs(self) -> None:
        for name in run_names(self.store):
            try:
                run = load_run(self.store, name)
            except FileNotFoundError:
                continue
            except DamagedRun as error:
                self._name(run_path(self.store, name), str(error))
                continue
            finally:
                self.num_files += 1
            if not run.has_digest:
                continue
            self.runs[name] = run
            for stored in run.stages["export"].files:
                path = self.store.root / stored.path
                if stored.path in run.exports.values() and stored.path not in run.lost and path not in self.damaged:
                    problem = self._problem(path, stored)
                    if problem is not None:
                        self.damaged[path] = f"{problem}: an export of run {name}"
            self.losses |= {(lost, name) for lost in run.lost if not (self.store.root / lost).exists()}

    def _inspect_pointer(self) -> None:
        path = pointer_path(self.store)
        try:
            pointer = read_pointer(self.store)
        except DamagedRun as error:
            self.num_files += 1
            self.damaged[path] = str(error)
            return
        if pointer is None:
            return
        self.num_files += 1
        # A run whose record is gone or damaged cannot be asked.
        run = self.runs.get(pointer.run)
        gone = [stored for stored in pointer.exports.values() if not (self.store.root / stored).exists()]
        if run is not None and pointer.exports != run.exports:
            self.damaged[path] = "it is not what a run wrote: the next passing lntx run writes it again"
        elif run is None and gone:
            self.damaged[path] = f"{gone[0]}, which it names, is gone: the next passing lntx run writes it again"

    def _name(self, path: Path, problem: str) -> None:
        """Call a record damaged, if it is one of ours: what only has such a name is somebody's own."""
        if self.store.name_of(path) in self._known:
            self.damaged[path] = problem

    @functools.cached_property
    def _known(self) -> Mapping[str, object]:
        return self.store.journal.known()

    def _problem(self, path: Path, file: StoredFile | StoredPath) -> str | None:
        """What is wrong with a file, read whole, once; none where it is what was stored."""
        if self.only is not None and path not in self.only:
            return None
        if (path, file.sha256) not in self._problems:
            self._problems[path, file.sha256] = _problem(path, file)
        return self._problems[path, file.sha256]

    def look_again(self) -> None:
        """Take back what was only removed or replaced while this looked. The caller holds the store."""
        again = _Inspection(self.store, only=set(self.damaged))
        again.inspect()
        self.damaged = {path: problem for path, problem in again.damaged.items() if path in self.damaged}
        self.records, self.runs, self.losses = again.records, again.runs, again.losses

    def heal(self) -> None:
        # Noted before anything moves: after a crash the loss is still known.
        for run in self.runs.values():
            files = {file.path for report in run.stages.values() for file in report.files}
            lost = tuple(sorted(file for file in files if self.store.root / file in self.damaged))
            if lost:
                write_run(self.store, run.model_copy(update={"lost": tuple(sorted({*run.lost, *lost}))}))
                self.losses |= {(file, run.run) for file in lost}
        for path in self.damaged:
            if path.exists() or path.is_symlink():
                self.store.set_aside(path)
        for place, record in self.records:
            if place.exists() and any(self.store.path(file) in self.damaged for file in record.files):
                self.store.set_aside(place)


def _problem(path: Path, file: StoredFile | StoredPath) -> str | None:
    """What is wrong with a file, read whole; none where it is what was stored."""
    try:
        size = path.stat().st_size
        if isinstance(file, StoredFile) and size != file.size:
            return f"it has {size} bytes in place of {file.size}"
        return None if sha256_of(path) == file.sha256 else "its bytes were altered"
    except FileNotFoundError:
        return "it is gone"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"


def mend_history(store: Store, *, latest: int = 20) -> None:
    """Move records that cannot be read, and that lntx wrote, to `artifacts/.damaged/`, each with a warning.

    latest: how many of the latest runs, and of the latest records of a stage, are read: a start must not take longer
    for a long history. `verify` reads all of them.
    """
    paths = [path for stage in STAGES for path in store.latest_record_paths(stage)[:latest]]
    paths += [run_path(store, name) for name in run_names(store)[-latest:]]
    broken = [path for path in paths if _broken(store, path) is not None]
    if not broken:
        return
    # Read again where nobody can publish: another run may have mended one meanwhile.
    with store.exclusive():
        known = store.journal.known()
        for path in broken:
            problem = _broken(store, path)
            if problem is not None and store.name_of(path) in known:
                what = f"the record of run {path.stem}" if path.parent.name == "runs" else path.name
                logger.warning("%s is damaged: %s; it is now in artifacts/.damaged/", what, problem)
                store.set_aside(path)


def _broken(store: Store, path: Path) -> str | None:
    """What is wrong with a record; none where it can be read, is gone, or is a newer lntx's, which stays."""
    try:
        if path.parent.name == "runs":
            load_run(store, path.stem)
        else:
            read_record(path)
    except (FileNotFoundError, PermissionError, LntxError):
        return None
    except (Unreadable, DamagedRun) as error:
        return str(error)
    return None
