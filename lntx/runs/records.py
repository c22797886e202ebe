"""The records of runs on disk: written, read, found by name, and the pointer to the last passing run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lntx.base.errors import BadInput
from lntx.base.files import read_json
from lntx.base.stages import STAGES
from lntx.base.text import for_message, listed, quoted, suggest
from lntx.config.schema import Format, Section
from lntx.runs.run import Run
from lntx.store.places import ResultPath, RunName, is_run_name
from lntx.store.sealed import DamagedFile, OtherVersion, read_sealed, write_sealed
from lntx.store.store import Store

RUN_FORMAT = 1
"""Version of the format of a run's record."""


def run_names(store: Store) -> list[str]:
    """Return the names of the runs, the earliest first."""
    return sorted(path.stem for path in (store.artifacts / "runs").glob("[0-9]*.json") if is_run_name(path.stem))


def run_path(store: Store, name: str) -> Path:
    """Return the path of the record of a run."""
    return store.artifacts / "runs" / f"{name}.json"


def write_run(store: Store, run: Run) -> None:
    """Write the record of a run. The caller holds the store's lock."""
    path = run_path(store, run.run)
    store.journal.add({store.name_of(path): None}, durable=False)
    write_sealed(path, {**run.model_dump(mode="json"), "format": RUN_FORMAT})


def load_run(store: Store, name: str) -> Run:
    """Read the record of a run.

    Raises: as `read_sealed`.
    """
    path = run_path(store, name)
    run = read_sealed(path, Run, version=RUN_FORMAT)
    if run.run != name:
        raise DamagedFile("it is the record of another run")
    if set(run.stages) != set(STAGES):
        raise OtherVersion(f"{path} was written by a version of lntx with other stages: read it with that version")
    if not _has_shape(run):
        raise DamagedFile("no run writes such figures")
    run._root = store.root.absolute()
    return run


def _has_shape(run: Run) -> bool:
    """Whether a record is one that a run of this version writes, so that it does not break its readers."""
    by_feature = (run.features, run.learned_weights, run.reference_weights, run.true_weights, run.standard_errors)
    return (run.verdict != "pass" or None not in (run.digits, run.learned_weights)) and len(
        {len(values) for values in by_feature if values is not None}
    ) <= 1


def load_runs(store: Store) -> Iterator[Run]:
    """Yield all runs with readable records, the latest first."""
    for name in reversed(run_names(store)):
        with contextlib.suppress(DamagedFile, OtherVersion, OSError):
            yield load_run(store, name)


def read_run(store: Store, name: str | None = None) -> Run:
    """Read the record of a run.

    name: the name of the run, or a unique prefix; the latest run by default.

    Raises: BadInput: there is no such run, or more than one.
    """
    names = run_names(store)
    if name is None:
        matches = names[-1:]
    else:
        matches = [name] if name in names else [known for known in names if known.startswith(name)]
    if not matches:
        where = for_message(store.root)
        if not name:
            raise BadInput(f"there is no run in {where} yet: lntx run makes one")
        raise BadInput(f"there is no run {quoted(name)} in {where}{suggest(name, names)}")
    if len(matches) > 1:
        raise BadInput(f"run {quoted(name)} could be {listed(matches)}: give more of the name")
    try:
        return load_run(store, matches[0])
    except DamagedFile as error:
        raise BadInput(f"the record of run {matches[0]} is damaged: {error}: lntx verify") from None
    except OSError as error:
        raise BadInput(f"the record of run {matches[0]} cannot be read: {error.strerror}") from None


class Pointer(Section):
    """The contents of `artifacts/current.json`: the last passing run and its exports."""

    run: RunName
    """Name of the run."""

    exports: dict[Format, ResultPath]
    """Its exported files, as in `Run`."""


def pointer_path(store: Store) -> Path:
    """Return the path of the pointer to the last passing run."""
    return store.artifacts / "current.json"


def read_pointer(store: Store) -> Pointer | None:
    """Return the pointer to the last passing run, or None if there is none yet.

    Raises: DamagedFile: the file is not a valid pointer.
    """
    try:
        return Pointer.model_validate(read_json(pointer_path(store)))
    except FileNotFoundError:
        return None
    except (ValueError, OSError):
        raise DamagedFile("it is not what a run wrote: the next passing lntx run writes it again") from None


def keep_other_pointer(store: Store) -> None:
    """Set aside a file in the pointer's place that is not a valid pointer."""
    try:
        read_pointer(store)
    except DamagedFile:
        store.set_aside(pointer_path(store))
