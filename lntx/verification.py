"""Read every stored file again, and set aside what is damaged. Computes nothing anew."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lntx.config import Section
from lntx.errors import LntxError
from lntx.hashing import sha256_of
from lntx.records import Record, Unreadable, read_record
from lntx.runs import DamagedRun, Run, load_run, run_names, run_path
from lntx.selection import STAGES
from lntx.store import Store

logger = logging.getLogger(__name__)


class Damage(Section):
    """Stored bytes that are not those that were stored."""

    path: str
    """The file, relative to the root."""

    problem: str
    """What is wrong with it."""


class Check(Section):
    """What verification found."""

    files: int
    """Files that were read."""

    num_bytes: int
    """Bytes that were read."""

    damaged: tuple[Damage, ...]
    """What is damaged."""

    set_aside: bool
    """Whether it was moved to artifacts/.damaged/."""


def verify(
    store: Store, *, heal: bool = False, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Check:
    """Read every stored file again and compare it with what was stored.

    heal: move what is damaged to `artifacts/.damaged/`, so that it is computed again where it is needed.
    progress: told how many bytes are done, of how many.
    """
    found = _Inspection(store)
    found.inspect_records()
    found.inspect_files(progress)
    found.inspect_runs()
    if heal:
        for path in found.damaged:
            store.set_aside(path)
    return Check(
        files=found.num_files,
        num_bytes=found.num_bytes,
        damaged=tuple(
            Damage(path=path.relative_to(store.root).as_posix(), problem=problem)
            for path, problem in sorted(found.damaged.items())
        ),
        set_aside=heal and bool(found.damaged),
    )


@dataclass
class _Inspection:
    """A look at everything."""

    store: Store
    damaged: dict[Path, str] = field(default_factory=dict)
    records: list[tuple[Path, Record]] = field(default_factory=list)
    num_files: int = 0
    num_bytes: int = 0

    def inspect_records(self) -> None:
        for stage in STAGES:
            for path in self.store.record_paths(stage):
                self.num_files += 1
                try:
                    record = read_record(path)
                except FileNotFoundError:
                    continue
                except Unreadable as error:
                    self.damaged[path] = f"{error}"
                    continue
                if path != self.store.record_path(record.identity) or record.key != record.identity.key:
                    self.damaged[path] = "it is the record of another result"
                else:
                    self.records.append((path, record))

    def inspect_files(self, progress: Callable[[int, int], None]) -> None:
        wanted = {self.store.path(file): file for _, record in self.records for file in record.files}
        total = sum(file.size for file in wanted.values())
        for path, file in sorted(wanted.items()):
            progress(self.num_bytes, total)
            self.num_files += 1
            try:
                size = path.stat().st_size
                if size != file.size:
                    self.damaged[path] = f"it has {size} bytes in place of {file.size}"
                elif sha256_of(path) != file.sha256:
                    self.damaged[path] = "its bytes were altered"
            except FileNotFoundError:
                self.damaged[path] = "it is gone"
            except OSError as error:
                self.damaged[path] = f"it cannot be read: {error.strerror}"
            self.num_bytes += file.size
        progress(total, total)

    def inspect_runs(self) -> None:
        runs: dict[str, Run] = {}
        for name in run_names(self.store):
            self.num_files += 1
            try:
                runs[name] = load_run(self.store, name)
            except DamagedRun as error:
                self.damaged[run_path(self.store, name)] = str(error)
        pointer = self.store.artifacts / "current.json"
        if pointer.exists():
            self.num_files += 1
            try:
                said = json.loads(pointer.read_bytes())
                # A run whose record is gone or damaged cannot be asked.
                run = runs.get(said["run"])
                if run is not None and said != {"run": run.run, "exports": run.exports}:
                    self.damaged[pointer] = "it is not what a run wrote: the next passing lntx run writes it anew"
            except (ValueError, KeyError, TypeError):
                self.damaged[pointer] = "it is not JSON: the next passing lntx run writes it anew"


def mend_history(store: Store) -> None:
    """Move records that cannot be read to `artifacts/.damaged/`, each with a warning: nothing could use them."""
    for stage in STAGES:
        for path in store.record_paths(stage):
            try:
                read_record(path)
            except FileNotFoundError:
                continue
            except Unreadable as error:
                logger.warning("%s is damaged: %s; it is now in artifacts/.damaged/", path.name, error)
                store.set_aside(path)
            except LntxError:
                # A newer lntx's: not ours to move.
                continue
    for name in run_names(store):
        try:
            load_run(store, name)
        except DamagedRun as error:
            logger.warning("the record of run %s is damaged: %s; it is now in artifacts/.damaged/", name, error)
            store.set_aside(run_path(store, name))
