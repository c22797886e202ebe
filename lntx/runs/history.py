"""List runs, compare two of them, and trace an export back to its rows. Reads only records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from lntx.base.stages import STAGES, Stage
from lntx.config.schema import Section, changed_settings
from lntx.runs.garbage import pins
from lntx.runs.records import load_runs, read_run
from lntx.runs.run import Run, StoredPath
from lntx.store.key import changes
from lntx.store.record import Record
from lntx.store.store import Store

_METRICS = (
    "verdict",
    "blame",
    "learned_weights",
    "learned_bias",
    "reference_weights",
    "reference_bias",
    "digits",
    "ulps",
    "epochs",
    "mse",
    "residual_sd",
    "r_squared",
    "num_rows",
    "learning_rate",
    "gradient",
    "precondition",
)


class RunSummary(Section):
    """A run as one line of a list."""

    run: str
    """Its name."""

    created_at: str
    """When it ended, ISO 8601 in UTC."""

    verdict: Literal["pass", "fail"] | None
    """Whether the known answer was reached; None if it was not evaluated."""

    blame: str | None
    """The part that was wrong."""

    digits: float | None
    """Correct digits of the worst coefficient."""

    states: dict[Stage, str]
    """The outcome of each stage."""

    settings: dict[str, Any]
    """The settings that differ from the defaults, by dotted key."""

    pinned: bool
    """Whether it is pinned, so that garbage collection keeps it."""


class Difference(Section):
    """The differences between two runs: pairs of values, by name."""

    config: dict[str, tuple[Any, Any]]
    """Settings, by dotted key."""

    code: dict[str, tuple[str | None, str | None]]
    """Digests of the modules that determine the results."""

    versions: dict[str, tuple[str | None, str | None]]
    """Versions of packages, Python and the machine's architecture."""

    data: dict[str, tuple[str | None, str | None]]
    """Digests of the data files."""

    metrics: dict[str, tuple[Any, Any]]
    """Verdict, coefficients and other figures."""


class Ancestor(Section):
    """One step from an export back to the rows."""

    stage: Stage
    """The stage of this step."""

    key: str
    """Key of its result."""

    files: tuple[StoredPath, ...]
    """Files of its result."""

    made_from: tuple[Stage, ...]
    """The stages whose results it was made from."""

    versions: dict[str, str]
    """Versions of the software that computed it."""

    environment: dict[str, Any]
    """Environment in which it was computed."""


def list_runs(store: Store) -> Iterator[RunSummary]:
    """Return all runs with readable records, the latest first; each record is read only when needed."""
    pinned = set(pins(store))
    return (
        RunSummary(
            run=run.run,
            created_at=run.created_at,
            verdict=run.verdict,
            blame=run.blame,
            digits=run.digits,
            states={stage: report.state for stage, report in run.stages.items()},
            settings=changed_settings(run.config),
            pinned=run.run in pinned,
        )
        for run in load_runs(store)
    )


def compare_runs(store: Store, first: str, second: str) -> Difference:
    """Return the differences between two runs.

    Raises: BadInput: there is no such run.
    """
    left, other = read_run(store, first), read_run(store, second)
    made = [{record.identity.stage: record for record in _records(store, run)} for run in (left, other)]
    identities = [
        {
            "code": {name: digest for record in records.values() for name, digest in record.identity.code.items()},
            "versions": {
                name: version for record in records.values() for name, version in record.identity.versions.items()
            },
        }
        for records in made
    ]
    return Difference(
        config=_pairs(_dotted(left), _dotted(other)),
        code=_pairs(identities[0]["code"], identities[1]["code"]),
        versions=_pairs(identities[0]["versions"], identities[1]["versions"]),
        data=_pairs(*({file.name: file.sha256 for file in _files(records, "generate")} for records in made)),
        metrics=_pairs(*({name: getattr(run, name) for name in _METRICS} for run in (left, other))),
    )


def lineage(store: Store, run: Run) -> list[Ancestor]:
    """Return the results of a run, the last first, each with its inputs. Results without a record are left out."""
    return [
        Ancestor(
            stage=record.identity.stage,
            key=record.key,
            files=tuple(StoredPath(path=file.path, sha256=file.sha256) for file in record.files),
            made_from=tuple(stage for stage in STAGES if stage in record.identity.inputs),
            versions=record.identity.versions,
            environment=record.environment,
        )
        for record in reversed(_records(store, run))
    ]


def _records(store: Store, run: Run) -> list[Record]:
    records = []
    for stage in STAGES:
        key = run.stages[stage].key
        records += [] if key is None else list(store.records(stage, key=key))
    return records


def _files(records: dict[Stage, Record], stage: Stage) -> list[Any]:
    return [*records[stage].files] if stage in records else []


def _dotted(run: Run) -> dict[str, Any]:
    values = run.config.model_dump(mode="json")
    return {f"{section}.{key}": value for section, keys in values.items() for key, value in keys.items()}


def _pairs(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (old, new) for name, old, new in changes(first, second)}
