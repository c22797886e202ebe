"""Free what nothing needs, and pin what must stay. Computes nothing, and verifies nothing (`verification`)."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from lntx.config import Section
from lntx.errors import BadInput, LntxError
from lntx.records import Unreadable, read_record
from lntx.runs import DamagedRun, Run, load_run, read_run, run_names, run_path
from lntx.selection import STAGES
from lntx.store import Store
from lntx.usage import in_use

logger = logging.getLogger(__name__)


class Removal(Section):
    """Something that nothing needs."""

    path: str
    """The file or folder, relative to the root."""

    num_bytes: int
    """What it takes."""


class Keeping(Section):
    """A run that stays."""

    run: str
    """Its name."""

    why: str
    """Why it stays."""


class Collection(Section):
    """What collecting garbage removed, or would remove."""

    removed: tuple[Removal, ...]
    """What goes."""

    freed_bytes: int
    """What that frees."""

    kept: tuple[Keeping, ...]
    """Runs that stay."""

    in_use: int
    """Results that stay because a running run uses them."""

    dry_run: bool
    """Whether nothing was touched."""


def collect_garbage(store: Store, *, keep: int, older_than_s: float | None = None, dry_run: bool = False) -> Collection:
    """Remove the records of old runs, and all that no run that stays needs.

    keep: how many of the latest runs stay. older_than_s: only what is older goes.

    The last passing run, pinned runs and what running runs use always stay.
    """
    now = time.time()
    staying, going = _sort_runs(store, keep, older_than_s, now)
    needed = {stage.key for run in staying for stage in run[0].stages.values()}
    removed: list[Removal] = []
    held = 0

    def remove(path: Path) -> None:
        removed.append(Removal(path=path.relative_to(store.root).as_posix(), num_bytes=_size(path)))
        if not dry_run:
            store.remove(path)

    for run in going:
        remove(run_path(store, run.run))
        if run.report is not None and (store.root / run.report).exists():
            remove(store.root / run.report)
    gone: set[Path] = set()
    for stage in STAGES:
        for path in store.record_paths(stage):
            with contextlib.suppress(FileNotFoundError, LntxError, Unreadable):
                record = read_record(path)
                if record.key in needed or (older_than_s is not None and now - record.created_at < older_than_s):
                    continue
                with store.lock_if_free(record.key) as free:
                    if not free or record.key in in_use(store.locks):
                        held += 1
                        continue
                    gone.add(path)
                    remove(path)
    # No result is published meanwhile: one may consist of files that nothing else needs.
    with store.no_publishing():
        for path in _unreferenced(store, gone):
            if older_than_s is None or now - path.stat().st_mtime >= older_than_s:
                remove(path)
    if not dry_run:
        swept = store.sweep(older_than_s=0.0)
        removed += [Removal(path=path.relative_to(store.root).as_posix(), num_bytes=0) for path in swept]
    return Collection(
        removed=tuple(removed),
        freed_bytes=sum(removal.num_bytes for removal in removed),
        kept=tuple(Keeping(run=run.run, why=why) for run, why in staying),
        in_use=held,
        dry_run=dry_run,
    )


def _sort_runs(
    store: Store, keep: int, older_than_s: float | None, now: float
) -> tuple[list[tuple[Run, str]], list[Run]]:
    runs: list[Run] = []
    for name in reversed(run_names(store)):
        with contextlib.suppress(DamagedRun):
            runs.append(load_run(store, name))
    pinned, current = set(pins(store)), _current(store)
    last_passing = next((run.run for run in runs if run.verdict == "pass"), None)
    staying: list[tuple[Run, str]] = []
    going: list[Run] = []
    for place, run in enumerate(runs):
        age = now - datetime.fromisoformat(run.created_at).timestamp()
        if run.run in pinned:
            staying.append((run, "pinned"))
        elif run.run in (last_passing, current):
            staying.append((run, "the last passing run"))
        elif place < keep:
            staying.append((run, f"one of the latest {keep}"))
        elif older_than_s is not None and age < older_than_s:
            staying.append((run, "not old enough"))
        else:
            going.append(run)
    return staying, going


def _current(store: Store) -> str | None:
    try:
        return str(json.loads((store.artifacts / "current.json").read_bytes())["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unreferenced(store: Store, gone: set[Path]) -> Iterator[Path]:
    """Files of results that no record needs."""
    needed: set[Path] = set()
    for stage in STAGES:
        for path in store.record_paths(stage):
            if path in gone:
                continue
            try:
                needed.update(store.path(file) for file in read_record(path).files)
            except FileNotFoundError:
                continue
            except (Unreadable, LntxError):
                # What it needs cannot be told: nothing of its stage goes.
                needed.update(store.result_files(stage))
    for stage in STAGES:
        yield from sorted(set(store.result_files(stage)) - needed)


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def pins(store: Store) -> list[str]:
    """Names of pinned runs."""
    return sorted(path.name for path in (store.artifacts / "pins").glob("*"))


def pin(store: Store, name: str, *, remove: bool = False) -> str:
    """Pin a run, so that garbage collection leaves it, or let go of it.

    Returns: the run's whole name.

    Raises: BadInput: there is no such run, or it is not pinned.
    """
    run = read_run(store, name).run
    mark = store.artifacts / "pins" / run
    if remove:
        if not mark.exists():
            raise BadInput(f"run {run} is not pinned: {_listed(pins(store))}")
        mark.unlink()
    else:
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
    return run


def _listed(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"pinned are {listed}" if listed else "no run is"
