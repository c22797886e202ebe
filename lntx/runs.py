"""What a run was asked, what came of each stage, and the record that it leaves.

Gathers and stores results; computes none.
"""

from __future__ import annotations

import datetime
import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lntx.config import Pipeline, Section
from lntx.errors import BadInput
from lntx.fitting import Fit
from lntx.selection import STAGES, Selection, Stage
from lntx.store import Record, Store
from lntx.verdict import Blame, Evaluation

logger = logging.getLogger(__name__)


class Request(Section):
    """What a run is asked."""

    pipeline: Pipeline
    """The configuration."""

    selection: Selection = Selection()
    """Which stages."""

    root: Path = Path()
    """The folder that holds data/ and artifacts/."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that take part: the selected ones, and the earlier ones that they start from."""
        return STAGES[: STAGES.index(self.selection.stages[-1]) + 1]


class Outcome(Section):
    """What came of one stage."""

    stage: Stage
    """The stage."""

    state: Literal["ran", "cached", "skipped", "failed"]
    """failed: its answer is wrong, or it found one that is."""

    record: Record | None = None
    """The stored result; none where it was skipped."""

    recurrence: Literal["deterministic", "intermittent"] | None = None
    """Where a result that had failed was computed anew: whether the same bits came out."""

    def path(self, store: Store, name: str) -> Path:
        """Where a file of the result is."""
        assert self.record is not None
        return store.path(self.record.file(name))

    def fit(self, store: Store) -> Fit:
        """The figures of a train outcome."""
        return Fit.model_validate_json(self.path(store, "fit.json").read_bytes())

    def blame(self, store: Store) -> tuple[Blame | None, str | None]:
        """Who is to blame for a wrong answer, and why; none where nothing is wrong."""
        if self.record is None:
            return None, None
        if self.stage == "evaluate":
            evaluation = Evaluation.model_validate_json(self.path(store, "evaluation.json").read_bytes())
            return evaluation.blame, evaluation.reason
        if self.stage == "export":
            card = json.loads(self.path(store, "card.json").read_bytes())
            for name, found in card["read_back"].items():
                if found["problem"] is not None:
                    return "export", f"the {name} file is not the trained model: {found['problem']}"
        return None, None


class StoredPath(Section):
    """A file of a result."""

    path: str
    """Where it is, relative to the root."""

    sha256: str
    """Digest of its bytes."""


class StageReport(Section):
    """What came of one stage, for people and programs."""

    state: Literal["ran", "cached", "skipped", "failed"]
    """What came of it."""

    seconds: float | None
    """How long the result took to compute, whenever that was."""

    key: str | None
    """Key of the result."""

    files: tuple[StoredPath, ...]
    """The result."""


class Run(Section):
    """What came of a run. Weights and their standard errors are in the order of `features`."""

    verdict: Literal["pass", "fail"] | None
    """Whether the known answer was reached; none if it was not evaluated."""

    blame: Blame | None
    """The part that is wrong."""

    reason: str | None
    """Why, and what to do."""

    features: tuple[str, ...] | None
    """Names of the features."""

    target: str | None
    """Name of the target."""

    true_weights: tuple[float, ...] | None
    """The weights that the rows were made with; none for a file."""

    true_bias: float | None
    """The bias that the rows were made with; none for a file."""

    learned_weights: tuple[float, ...] | None
    """Learned weights, exactly as in the exported file."""

    learned_bias: float | None
    """Learned bias; none where the model has none."""

    reference_weights: tuple[float, ...] | None
    """Exact least-squares weights."""

    reference_bias: float | None
    """Exact least-squares bias."""

    standard_errors: tuple[float | None, ...] | None
    """Of the exact weights; none without residual degrees of freedom."""

    bias_standard_error: float | None
    """Of the exact bias."""

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

    gradient: str | None
    """How gradients were made."""

    precondition: str | None
    """Coordinates of the descent."""

    condition_number: float | None
    """Of the Hessian of the loss in the weights."""

    stages: dict[Stage, StageReport]
    """What came of each stage."""

    exports: dict[str, str]
    """The exported file of each format, relative to the root."""

    report: str | None = None
    """The report, relative to the root, where one was written."""

    run: str
    """Name of this run."""

    created_at: str
    """When it ended, ISO 8601 in UTC."""

    flow_run_id: str | None = None
    """The Prefect flow run, where there was one."""

    flow_run_url: str | None = None
    """Where to watch it, while a server stays up."""

    config: Pipeline
    """What it was asked."""


def conclude(
    store: Store,
    request: Request,
    outcomes: Mapping[Stage, Outcome],
    *,
    flow_run_id: str | None = None,
    flow_run_url: str | None = None,
    write_report: bool = False,
) -> Run:
    """Gather the outcomes, write the run's record and, on a failure or when asked, its report; on a pass, point
    `artifacts/current.json` at the exports.
    """
    run = _gather(store, request, outcomes).model_copy(
        update={"flow_run_id": flow_run_id, "flow_run_url": flow_run_url}
    )
    if write_report or run.verdict == "fail":
        from lntx.report import write_markdown

        path = store.artifacts / "reports" / f"{run.run}.md"
        history = outcomes["train"]
        write_markdown(run, history.path(store, "history.parquet") if history.record else None, path)
        run = run.model_copy(update={"report": str(path.relative_to(store.root))})
    store.write_json(store.artifacts / "runs" / f"{run.run}.json", run.model_dump(mode="json"))
    if run.verdict == "pass" and run.exports:
        card = outcomes["export"].path(store, "card.json")
        store.write_json(
            store.artifacts / "current.json",
            {"run": run.run, "exports": run.exports, "card": str(card.relative_to(store.root))},
        )
    return run


def read_run(store: Store, name: str | None = None) -> Run:
    """Read a run's record.

    name: the run, or a beginning that only it has; the latest by default.

    Raises: BadInput: there is none, or more than one.
    """
    names = sorted(path.stem for path in (store.artifacts / "runs").glob("*.json"))
    if name is None:
        matches = names[-1:]
    else:
        matches = [name] if name in names else [known for known in names if known.startswith(name)]
    if not matches:
        raise BadInput(f"there is no run {name!r} in {store.root}" if name else f"there is no run in {store.root} yet")
    if len(matches) > 1:
        raise BadInput(f"run {name!r} could be {', '.join(matches[:5])}: give more of the name")
    path = store.artifacts / "runs" / f"{matches[0]}.json"
    try:
        return Run.model_validate_json(path.read_bytes())
    except ValueError:
        raise BadInput(f"the record of run {matches[0]} is damaged: {path}") from None


def _gather(store: Store, request: Request, outcomes: Mapping[Stage, Outcome]) -> Run:
    now = datetime.datetime.now(datetime.UTC)
    found: dict[str, Any] = dict.fromkeys(
        name for name, field in Run.model_fields.items() if field.is_required() and name not in ("stages", "exports")
    )
    found |= {
        "run": f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        "created_at": now.isoformat(timespec="seconds"),
        "config": request.pipeline,
        "stages": {stage: _report(outcomes[stage]) for stage in STAGES},
        "exports": _exports(outcomes["export"], request.pipeline.export.formats),
        "true_weights": request.pipeline.data.weights,
        "true_bias": request.pipeline.data.bias if request.pipeline.data.path is None else None,
    }
    if outcomes["train"].record is not None:
        fit = outcomes["train"].fit(store)
        found |= {"learned_weights": fit.weights, "learned_bias": fit.bias}
        found |= fit.model_dump(
            include={"epochs", "dtype", "learning_rate", "gradient", "precondition", "condition_number"}
        )
    if outcomes["evaluate"].record is not None:
        path = outcomes["evaluate"].path(store, "evaluation.json")
        found |= _figures(Evaluation.model_validate_json(path.read_bytes()))
    for stage in ("evaluate", "export"):
        blame, reason = outcomes[stage].blame(store)
        if blame is not None:
            recurrence = outcomes[stage].recurrence
            if recurrence == "deterministic":
                reason = f"{reason} (computed anew, the same bits came out: the fault is deterministic)"
            elif recurrence == "intermittent":
                reason = f"{reason} (computed anew, other bits came out: the fault is intermittent)"
            found |= {"verdict": "fail", "blame": blame, "reason": reason}
            break
    return Run(**found)


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    count = len(evaluation.features)
    weights, bias = evaluation.coefficients[:count], evaluation.coefficients[count:]
    return {
        "verdict": evaluation.verdict,
        "reference_weights": tuple(weight.reference for weight in weights),
        "reference_bias": bias[0].reference if bias else None,
        "standard_errors": tuple(weight.standard_error for weight in weights),
        "bias_standard_error": bias[0].standard_error if bias else None,
        "ulps": max(coefficient.ulps for coefficient in evaluation.coefficients),
        **evaluation.model_dump(
            include={"features", "target", "residual_sd", "r_squared", "mse", "digits", "num_rows"}
        ),
    }


def _report(outcome: Outcome) -> StageReport:
    record = outcome.record
    if record is None:
        return StageReport(state=outcome.state, seconds=None, key=None, files=())
    return StageReport(
        state=outcome.state,
        seconds=record.seconds,
        key=record.key,
        files=tuple(StoredPath(path=file.path, sha256=file.sha256) for file in record.files),
    )


def _exports(outcome: Outcome, formats: Sequence[str]) -> dict[str, str]:
    if outcome.record is None or outcome.state == "failed":
        return {}
    return {name: outcome.record.file(f"model.{name}").path for name in formats}
