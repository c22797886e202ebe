"""Remove what nothing needs, and pin what must stay. Computes nothing, and verifies nothing (see `verify`)."""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
from collections.abc import Collection as Paths
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from lntx.base.errors import BadInput, LntxError
from lntx.base.stages import STAGES, Stage
from lntx.base.text import listed
from lntx.config.schema import Section
from lntx.runs.records import Pointer, load_run, read_pointer, read_run, run_names, run_path
from lntx.runs.run import Run
from lntx.store.leases import in_use
from lntx.store.places import is_run_name
from lntx.store.record import Record, read_record
from lntx.store.sealed import DamagedFile, OtherVersion
from lntx.store.store import Store


class Removal(Section):
    """A file or folder that nothing needs."""

    path: str
    """The file or folder, relative to the root."""

    num_bytes: int
    """Its size in bytes."""


class Keeping(Section):
    """A run that stays."""

    run: str
    """Its name."""

    why: str
    """Why it stays."""


class Collection(Section):
    """What a garbage collection removed, or would remove."""

    removed: tuple[Removal, ...]
    """Removed files and folders."""

    freed_bytes: int
    """Their total size in bytes."""

    kept: tuple[Keeping, ...]
    """Runs that stay."""

    in_use: int
    """Number of results that stay because a running run uses them."""

    frames: tuple[str, ...] = ()
    """Removed rows of data frames: only lntx.fit with the frame computes them again."""

    held: tuple[str, ...] = ()
    """Why results stay although they may not be needed, a sentence each."""

    dry_run: bool
    """Whether nothing was actually removed."""


def collect_garbage(
    store: Store, *, keep: int, older_than_s: float | None = None, damaged: bool = False, dry_run: bool = False
) -> Collection:
    """Remove the records of old runs, and all results that no remaining run needs.

    keep: number of latest runs to keep. older_than_s: remove only what is older, and old sweeps too. damaged: also
    remove what was set aside in `artifacts/.damaged/`. dry_run: write nothing.

    The last passing run, pinned runs and what running runs use always stay. Only files that lntx is known to have
    written are removed, and only if their bytes are unchanged.
    """
    # Decide and remove under one lock: no cache hit and no publishing can happen in between.
    with store.exclusive(create=not dry_run):
        now = time.time()
        collector = _Collector(store, now if older_than_s is None else now - older_than_s, dry_run)
        collector.sort_runs(keep)
        collector.sort_records()
        collector.remove_all(sweeps=older_than_s is not None)
        if damaged:
            collector.remove_damaged()
    if not dry_run:
        collector.note(store.sweep(older_than_s=0.0))
    return Collection(
        removed=tuple(collector.removed),
        freed_bytes=sum(removal.num_bytes for removal in collector.removed),
        kept=tuple(Keeping(run=run.run, why=why) for run, why in collector.staying),
        in_use=collector.num_used,
        held=tuple(collector.held),
        frames=tuple(sorted(collector.frames)),
        dry_run=dry_run,
    )


@dataclass
class _Collector:
    """What stays and what is removed."""

    store: Store
    oldest: float
    """Seconds since 1970; what is younger stays."""

    dry_run: bool
    staying: list[tuple[Run, str]] = field(default_factory=list)
    going: list[Run] = field(default_factory=list)
    records_going: list[tuple[Path, Record]] = field(default_factory=list)
    files_needed: set[Path] = field(default_factory=set)
    stages_unknown: set[Stage] = field(default_factory=set)
    num_used: int = 0
    removed: list[Removal] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    frames: set[str] = field(default_factory=set)

    @functools.cached_property
    def known(self) -> dict[str, set[str | None]]:
        """The journal: known digests by file."""
        return self.store.journal.known()

    def sort_runs(self, keep: int) -> None:
        names = run_names(self.store)
        runs: list[Run] = []
        for name in reversed(names):
            with contextlib.suppress(DamagedFile, OtherVersion, OSError):
                runs.append(load_run(self.store, name))
        pinned, pointer = set(pins(self.store)), _pointer(self.store)
        current = None if pointer is None else pointer.run
        if pointer is not None:
            self.files_needed.update(self.store.root / path for path in pointer.exports.values())
        asked_for = {*pinned, *([] if current is None else [current])}
        self._hold_unreadable({*names, *asked_for} - {run.run for run in runs}, asked_for)
        last_passing = next((run.run for run in runs if run.verdict == "pass"), None)
        for place, run in enumerate(runs):
            if run.run in pinned:
                self.staying.append((run, "pinned"))
            elif run.run in (last_passing, current):
                self.staying.append((run, "the last passing run"))
            elif place < keep:
                self.staying.append((run, f"one of the latest {keep}"))
            elif datetime.fromisoformat(run.created_at).timestamp() > self.oldest:
                self.staying.append((run, "not old enough"))
            else:
                self.going.append(run)

    def _hold_unreadable(self, unreadable: set[str], asked_for: set[str]) -> None:
        """Keep all results if a run that lntx wrote cannot be read: it may need any of them."""
        for name in sorted(unreadable):
            if name in asked_for or self.store.name_of(run_path(self.store, name)) in self.known:
                self.held.append(f"no result is removed, because run {name} cannot be read: lntx show {name} says why")
                self.stages_unknown.update(STAGES)

    def sort_records(self) -> None:
        keys = {report.key for run, _ in self.staying for report in run.stages.values()}
        used = in_use(self.store.locks, sweep=not self.dry_run)
        for run, _ in self.staying:
            self.files_needed.update(
                self.store.root / file.path for stage_report in run.stages.values() for file in stage_report.files
            )
        for stage in STAGES:
            for path in self.store.record_paths(stage):
                try:
                    record = read_record(path)
                except FileNotFoundError:
                    continue
                except (DamagedFile, LntxError, OSError):
                    # The files that it needs are unknown: no file of its stage is removed.
                    self.stages_unknown.add(stage)
                    self.held.append(
                        f"{self.store.name_of(path)} cannot be read, so that no file of {stage} is removed"
                    )
                    continue
                if record.key in keys or record.created_at > self.oldest:
                    self.files_needed.update(map(self.store.path, record.files))
                elif record.key in used:
                    self.num_used += 1
                    self.files_needed.update(map(self.store.path, record.files))
                elif self.stages_unknown != set(STAGES):
                    self.records_going.append((path, record))
                    if record.is_of_frame:
                        self.frames.update(file.path for file in record.files)

    def remove_all(self, *, sweeps: bool) -> None:
        known = self.known
        # Files that an earlier version stored are in no journal; its records prove them.
        proved = {file.path: file.sha256 for _, record in self.records_going for file in record.files}
        for name, sha256 in proved.items():
            known.setdefault(name, set()).add(sha256)
        if not self.dry_run:
            self.store.journal.add(proved)
        for run in self.going:
            # Remove the reports first: they are found through the record.
            for kind in ("md", "html"):
                report = self.store.artifacts / "reports" / f"{run.run}.{kind}"
                if self._is_own(report, known):
                    self._remove(report)
            self._remove(run_path(self.store, run.run))
        for path, _ in self.records_going:
            self._remove(path)
        folders = [self.store.folder(stage) for stage in STAGES if stage not in self.stages_unknown]
        self._remove_files(known, [*folders, *([self.store.artifacts / "sweeps"] if sweeps else [])])
        if not self.dry_run:
            self.store.journal.replace(
                (name, sha256) for name in sorted(known) if self._is_there(name) for sha256 in known[name]
            )

    def _remove_files(self, known: Mapping[str, set[str | None]], folders: Paths[Path]) -> None:
        for name in sorted(known):
            path = self.store.root / name
            if path.parent not in folders or path in self.files_needed or not self._is_own(path, known):
                continue
            if path.stat().st_mtime <= self.oldest:
                self._remove(path)

    def remove_damaged(self) -> None:
        # The target of a link belongs to the user.
        for path in [] if self.store.damaged.is_symlink() else sorted(self.store.damaged.glob("*")):
            self._remove(path)

    def note(self, paths: Paths[Path]) -> None:
        self.removed += [Removal(path=self.store.name_of(path), num_bytes=0) for path in paths]

    def _is_own(self, path: Path, known: Mapping[str, set[str | None]]) -> bool:
        return self.store.is_own(path, known, remember=not self.dry_run)

    def _is_there(self, name: str) -> bool:
        return (self.store.root / name).exists()

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.removed.append(Removal(path=self.store.name_of(path), num_bytes=path.lstat().st_size))
            if self.dry_run:
                return
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _pointer(store: Store) -> Pointer | None:
    with contextlib.suppress(DamagedFile):
        return read_pointer(store)
    return None


def pins(store: Store) -> list[str]:
    """Return the names of the pinned runs."""
    return sorted(path.name for path in (store.artifacts / "pins").glob("*") if is_run_name(path.name))


def pin(store: Store, name: str, *, remove: bool = False) -> str:
    """Pin a run, so that garbage collection keeps it, or remove its pin.

    Returns: the full name of the run.

    Raises: BadInput: there is no such run, or it is not pinned.
    """
    store.prepare()
    # Wait for a garbage collection that is already running.
    with store.shared():
        # The pin of a run that is gone can be removed too.
        run = name if remove and name in pins(store) else read_run(store, name).run
        mark = store.artifacts / "pins" / run
        if not remove:
            mark.parent.mkdir(exist_ok=True)
            mark.touch()
        elif mark.exists():
            mark.unlink()
        else:
            pinned = pins(store)
            raise BadInput(f"run {run} is not pinned: {f'pinned are {listed(pinned)}' if pinned else 'no run is'}")
    return run
