"""The records of runs on disk: written, read, found by name, and the pointer to the last passing run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lntx.config.schema import Format, Section
from lntx.errors import BadInput
from lntx.files import read_json, write_json
from lntx.runs.run import Run
from lntx.stages import STAGES
from lntx.store.key import digest_of
from lntx.store.places import ResultPath, RunName, is_run_name
from lntx.store.store import Store
from lntx.text import for_message, listed, quoted, suggest


class DamagedRun(Exception):
    """The record of a run is not as it was written."""


def run_names(store: Store) -> list[str]:
    """Return the names of the runs, the earliest first."""
    return sorted(path.stem for path in (store.artifacts / "runs").glob("[0-9]*.json") if is_run_name(path.stem))


def run_path(store: Store, name: str) -> Path:
    """Return the path of the record of a run."""
    return store.artifacts / "runs" / f"{name}.json"


def write_run(store: Store, run: Run) -> None:
    """Write the record of a run, with its digest at the end. The caller holds the store's lock."""
    path = run_path(store, run.run)
    values = run.model_dump(mode="json")
    store.journal.add({store.name_of(path): None}, durable=False)
    write_json(path, {**values, "digest": digest_of(values)})


def load_run(store: Store, name: str) -> Run:
    """Read the record of a run.

    Raises: DamagedRun: its bytes have changed since it was written. FileNotFoundError, PermissionError.
    """
    try:
        values = read_json(run_path(store, name))
        digest = values.pop("digest", None)
        if digest not in (None, digest_of(values)) or values["run"] != name:
            raise DamagedRun("its bytes are not those that were written")
        run = Run.model_validate(values)
        _check_shape(run)
    except (FileNotFoundError, PermissionError):
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError):
        raise DamagedRun("it is not the record of a run") from None
    run._has_digest, run._root = digest is not None, store.root
    return run


def _check_shape(run: Run) -> None:
    """Refuse a record that no run writes and that would break its readers. Raises: ValueError."""
    if set(run.stages) != set(STAGES):
        raise ValueError("a stage is missing")
    if run.verdict == "pass" and (run.digits is None or run.learned_weights is None):
        raise ValueError("a figure is missing")
    by_feature = (run.features, run.learned_weights, run.reference_weights, run.true_weights, run.standard_errors)
    if len({len(values) for values in by_feature if values is not None}) > 1:
        raise ValueError("figures do not belong together")


def load_runs(store: Store) -> Iterator[Run]:
    """Yield all runs with readable records, the latest first."""
    for name in reversed(run_names(store)):
        with contextlib.suppress(DamagedRun, OSError):
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
    except DamagedRun as error:
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

    Raises: DamagedRun: the file is not a valid pointer.
    """
    try:
        return Pointer.model_validate(read_json(pointer_path(store)))
    except FileNotFoundError:
        return None
    except (ValueError, OSError):
        raise DamagedRun("it is not what a run wrote: the next passing lntx run writes it again") from None


def keep_other_pointer(store: Store) -> None:
    """Set aside a file in the pointer's place that is not a valid pointer."""
    try:
        read_pointer(store)
    except DamagedRun:
        store.set_aside(pointer_path(store))
