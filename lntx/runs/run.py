"""The record of a run: its outcome, for people and programs, as `--json` prints it. Computes nothing."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, PrivateAttr

from lntx.config.schema import Format, Pipeline, Section
from lntx.errors import BadInput
from lntx.files import read_json, write_json
from lntx.stages import STAGES, Blame, Stage
from lntx.store.key import digest_of
from lntx.store.places import ResultPath, RunName, Sha256, is_run_name
from lntx.store.store import Store
from lntx.text import listed, quoted, shown


def _moment(text: str) -> str:
    if not datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp() > 0:
        raise ValueError("it is before 1970")
    return text


class StoredPath(Section):
    """A file of a result."""

    path: ResultPath
    """Its path, relative to the root."""

    sha256: Sha256
    """Digest of its bytes."""


class StageReport(Section):
    """The outcome of one stage, for people and programs."""

    state: Literal["ran", "cached", "skipped", "failed"]
    """Whether it ran, was cached, was skipped or failed."""

    seconds: float | None
    """Seconds that the result took to compute, perhaps in an earlier run."""

    key: Sha256 | None
    """Key of the result."""

    files: tuple[StoredPath, ...]
    """Files of the result."""


class Run(Section, use_attribute_docstrings=True):
    """The outcome of a run. Weights and their standard errors are in the order of `features`."""

    verdict: Literal["pass", "fail"] | None
    """Whether the known answer was reached; None if it was not evaluated."""

    blame: Blame | None
    """The part that is wrong."""

    reason: str | None
    """What is wrong, and what to do."""

    warnings: tuple[str, ...] = ()
    """Warnings, a sentence each."""

    features: tuple[str, ...] | None
    """Names of the features."""

    target: str | None
    """Name of the target."""

    true_weights: tuple[float, ...] | None
    """The weights that generated the rows; None for a file."""

    true_bias: float | None
    """The bias that generated the rows; None for a file."""

    learned_weights: tuple[float, ...] | None
    """Learned weights, exactly as in the exported file."""

    learned_bias: float | None
    """Learned bias; None if the model has none."""

    reference_weights: tuple[float, ...] | None
    """Exact least-squares weights."""

    reference_bias: float | None
    """Exact least-squares bias."""

    standard_errors: tuple[float | None, ...] | None
    """Standard errors of the exact weights; None without residual degrees of freedom."""

    bias_standard_error: float | None
    """Standard error of the exact bias."""

    residual_sd: float | None
    """Residual standard deviation of the exact solution."""

    r_squared: float | None
    """R² of the exact solution."""

    mse: float | None
    """Mean squared error of the learned model."""

    digits: float | None
    """Correct digits of the worst coefficient against the exact solution, at most 15.95."""

    ulps: float | None
    """Largest distance of a coefficient from the exact solution, in units in the last place of the dtype."""

    epochs: int | None
    """Epochs trained."""

    num_rows: int | None
    """Rows evaluated."""

    dtype: str | None
    """Type of the weights."""

    learning_rate: float | None
    """Learning rate used."""

    stable_limit: float | None = None
    """Learning rate from which full-batch descent does not converge."""

    gradient: str | None
    """How gradients were computed."""

    precondition: str | None
    """Coordinates of the descent."""

    condition_number: float | None
    """Condition number of the Hessian of the loss in the weights."""

    stages: dict[Stage, StageReport]
    """The outcome of each stage."""

    exports: dict[Format, ResultPath]
    """The exported file of each format, relative to the root."""

    report: str | None = None
    """The report, relative to the root; None if none was written."""

    lost: tuple[ResultPath, ...] = ()
    """Files of this run that `lntx verify --heal` noted as damaged or missing."""

    run: RunName
    """Name of this run."""

    created_at: Annotated[str, AfterValidator(_moment)]
    """When it ended, ISO 8601 in UTC."""

    flow_run_id: str | None = None
    """The Prefect flow run, if there was one."""

    flow_run_url: str | None = None
    """Its page in Prefect's UI, as long as the server runs."""

    config: Pipeline
    """Its configuration."""

    _has_digest: bool = PrivateAttr(True)

    def __repr__(self) -> str:
        digits = "" if self.digits is None else f", {self.digits:.4g} digits"
        return f"{type(self).__name__}({self.run}: {self.verdict or 'not evaluated'}{digits})"

    @property
    def has_digest(self) -> bool:
        """Whether its record has a digest: the first versions wrote none, and no path in their records is used."""
        return self._has_digest


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
    run._has_digest = digest is not None
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
        where = shown(store.root)
        raise BadInput(f"there is no run {quoted(name)} in {where}" if name else f"there is no run in {where} yet")
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
