"""Read every stored file again, and set damaged ones aside. Computes nothing."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lntx.base.errors import LntxError
from lntx.base.progress import report_progress
from lntx.base.stages import STAGES
from lntx.config.schema import Section
from lntx.runs.records import load_run, pointer_path, read_pointer, run_names, run_path, write_run
from lntx.runs.run import Run, StoredPath
from lntx.store.record import Record, StoredFile, read_record
from lntx.store.sealed import DamagedFile
from lntx.store.store import Store, problem_of

logger = logging.getLogger(__name__)

# Of runs, and of records of a stage: a start must not take longer for a long history. `verify` reads all.
_LATEST = 20


class Damage(Section):
    """A stored file that is missing or altered."""

    path: str
    """The file, relative to the root."""

    problem: str
    """What is wrong with it."""


class Loss(Section):
    """A file that a run no longer has and that its record notes as lost: this is no damage."""

    path: str
    """The file, relative to the root."""

    run: str
    """The run that had the file."""


class Check(Section):
    """The result of a verification."""

    files: int
    """Number of files read."""

    num_bytes: int
    """Number of bytes read."""

    damaged: tuple[Damage, ...]
    """Damaged files."""

    losses: tuple[Loss, ...] = ()
    """Files known to be lost."""

    set_aside: bool
    """Whether damaged files were moved to artifacts/.damaged/, and noted as lost by their runs."""


def verify(store: Store, *, heal: bool = False) -> Check:
    """Read every stored file again and compare it with what was stored.

    heal: move damaged files to `artifacts/.damaged/`, with the stage records that name them, so that they are computed
    again when needed; the records of their runs note the loss.
    """
    inspection = _Inspection(store)
    inspection.inspect()
    if inspection.damaged and heal:
        with store.exclusive():
            inspection.look_again()
            inspection.heal()
    elif inspection.damaged:
        with store.shared(create=False):
            inspection.look_again()
    return Check(
        files=inspection.num_files,
        num_bytes=inspection.num_bytes,
        damaged=tuple(
            Damage(path=store.name_of(path), problem=problem) for path, problem in sorted(inspection.damaged.items())
        ),
        losses=tuple(Loss(path=path, run=run) for path, run in sorted(inspection.losses)),
        set_aside=heal and bool(inspection.damaged),
    )


@dataclass
class _Inspection:
    """An inspection of all stored files."""

    store: Store
    only: Collection[Path] | None = None
    """Files to read; None for all."""

    damaged: dict[Path, str] = field(default_factory=dict)
    losses: set[tuple[str, str]] = field(default_factory=set)
    records: list[tuple[Path, Record]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    num_files: int = 0
    num_bytes: int = 0
    _problems: dict[tuple[Path, str], str | None] = field(default_factory=dict)

    def inspect(self) -> None:
        self._inspect_records()
        self._inspect_files()
        self._inspect_runs()
        self._inspect_pointer()

    def _inspect_records(self) -> None:
        for stage in STAGES:
            for path in self.store.record_paths(stage):
                try:
                    self.records.append((path, read_record(path)))
                except (FileNotFoundError, LntxError):
                    # Removed by a garbage collection meanwhile, or written by a newer lntx.
                    continue
                except DamagedFile as error:
                    self._name(path, str(error))
                self.num_files += 1

    def _inspect_files(self) -> None:
        files = {self.store.path(file): file for _, record in self.records for file in record.files}
        frames = {self.store.path(file) for _, record in self.records if record.is_of_frame for file in record.files}
        total = sum(file.size for file in files.values())
        for path, file in sorted(files.items()):
            report_progress(self.num_bytes, total, "bytes")
            self.num_files += 1
            problem = self._problem(path, file)
            if problem is not None:
                only = ": the rows of a data frame, which only lntx.fit with it computes again"
                self.damaged[path] = f"it {problem}{only if path in frames else ''}"
            self.num_bytes += file.size

    def _inspect_runs(self) -> None:
        for name in run_names(self.store):
            try:
                run = load_run(self.store, name)
            except (FileNotFoundError, LntxError):
                continue
            except DamagedFile as error:
                self._name(run_path(self.store, name), str(error))
                continue
            finally:
                self.num_files += 1
            self.runs[name] = run
            for stored in run.stages["export"].files:
                path = self.store.root / stored.path
                if stored.path in run.exports.values() and stored.path not in run.lost and path not in self.damaged:
                    problem = self._problem(path, stored)
                    if problem is not None:
                        self.damaged[path] = f"it {problem}: an export of run {name}"
            self.losses |= {(lost, name) for lost in run.lost if not (self.store.root / lost).exists()}

    def _inspect_pointer(self) -> None:
        path = pointer_path(self.store)
        try:
            pointer = read_pointer(self.store)
        except DamagedFile as error:
            self.num_files += 1
            self.damaged[path] = str(error)
            return
        if pointer is None:
            return
        self.num_files += 1
        # A run whose record is gone or damaged cannot be compared.
        run = self.runs.get(pointer.run)
        missing = [stored for stored in pointer.exports.values() if not (self.store.root / stored).exists()]
        if run is not None and pointer.exports != run.exports:
            self.damaged[path] = "it is not what a run wrote: the next passing lntx run writes it again"
        elif run is None and missing:
            self.damaged[path] = f"{missing[0]}, which it names, is gone: the next passing lntx run writes it again"

    def _name(self, path: Path, problem: str) -> None:
        """Report a record as damaged if lntx wrote it: another file of such a name belongs to the user."""
        if self.store.name_of(path) in self._known:
            self.damaged[path] = problem

    @functools.cached_property
    def _known(self) -> Mapping[str, object]:
        return self.store.journal.known()

    def _problem(self, path: Path, file: StoredFile | StoredPath) -> str | None:
        """Return what is wrong with a file, which is read once and completely, or None if it is unchanged."""
        if self.only is not None and path not in self.only:
            return None
        if (path, file.sha256) not in self._problems:
            size = file.size if isinstance(file, StoredFile) else None
            self._problems[path, file.sha256] = problem_of(path, file.sha256, size)
        return self._problems[path, file.sha256]

    def look_again(self) -> None:
        """Drop findings about files that were only removed or replaced meanwhile. The caller holds the store's lock."""
        again = _Inspection(self.store, only=set(self.damaged))
        again.inspect()
        self.damaged = {path: problem for path, problem in again.damaged.items() if path in self.damaged}
        self.records, self.runs, self.losses = again.records, again.runs, again.losses

    def heal(self) -> None:
        # Note the loss before moving anything: it must be known even after a crash.
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


def mend_history(store: Store) -> None:
    """Move the latest unreadable records that lntx wrote to `artifacts/.damaged/`, each with a warning."""
    paths = [path for stage in STAGES for path in store.latest_record_paths(stage)[:_LATEST]]
    paths += [run_path(store, name) for name in run_names(store)[-_LATEST:]]
    broken = [path for path in paths if _broken(store, path) is not None]
    if not broken:
        return
    # Read again while no one can publish: another run may have repaired one meanwhile.
    with store.exclusive():
        known = store.journal.known()
        for path in broken:
            problem = _broken(store, path)
            if problem is not None and store.name_of(path) in known:
                what = f"the record of run {path.stem}" if path.parent.name == "runs" else path.name
                logger.warning("%s is damaged: %s; it is now in artifacts/.damaged/", what, problem)
                store.set_aside(path)


def _broken(store: Store, path: Path) -> str | None:
    """Return what is wrong with a record; None if it is readable, gone, or of a newer lntx, which stays."""
    try:
        if path.parent.name == "runs":
            load_run(store, path.stem)
        else:
            read_record(path)
    except (FileNotFoundError, PermissionError, LntxError):
        return None
    except DamagedFile as error:
        return str(error)
    return None
