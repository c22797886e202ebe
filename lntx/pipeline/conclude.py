"""Finish a run: gather the outcomes of its stages, write its record and report, and set the pointer if it passed."""

from __future__ import annotations

import datetime
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lntx.base.files import write_json
from lntx.base.stages import STAGES, Stage
from lntx.config.schema import Format
from lntx.evaluation.verdict import Evaluation
from lntx.pipeline.outcome import Outcome, Request, parse_stored
from lntx.runs.records import keep_other_pointer, pointer_path, write_run
from lntx.runs.run import Run, StageReport, StoredPath
from lntx.runs.shifts import shifts
from lntx.store.store import Store

logger = logging.getLogger(__name__)


def conclude(
    store: Store,
    request: Request,
    outcomes: Mapping[Stage, Outcome],
    *,
    flow_run_id: str | None = None,
    flow_run_url: str | None = None,
    write_report: bool = False,
) -> Run:
    """Gather the outcomes and write the run's record; on a failure or on request, also write its report. On a pass,
    make `artifacts/current.json` point to the exports.
    """
    run = gather(store, request, outcomes).model_copy(update={"flow_run_id": flow_run_id, "flow_run_url": flow_run_url})
    moved = shifts(store, run)
    for sentence in moved:
        logger.warning("%s", sentence)
    run = run.model_copy(update={"warnings": (*run.warnings, *moved)})
    page = None
    if write_report or run.verdict == "fail":
        from lntx.report.page import to_markdown
        from lntx.report.report import gather_report, report_page

        page = to_markdown(report_page(gather_report(store, run, reuse=True)))
        run = run.model_copy(update={"report": f"artifacts/reports/{run.run}.md"})
    with store.shared():
        if page is not None:
            write_report_file(store, run, "md", page)
        write_run(store, run)
        if run.verdict == "pass" and run.exports:
            keep_other_pointer(store)
            write_json(pointer_path(store), {"run": run.run, "exports": run.exports})
    run._root = store.root.absolute()
    return run


def write_report_file(store: Store, run: Run, kind: Literal["md", "html"], text: str) -> Path:
    """Write the report of a run to the path that garbage collection knows. The caller locks the store."""
    path = report_path(store, run, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode()
    store.journal.add({store.name_of(path): hashlib.sha256(content).hexdigest()}, durable=False)
    path.write_bytes(content)
    return path


def report_path(store: Store, run: Run, kind: Literal["md", "html"]) -> Path:
    """Return the path of the report of a run."""
    return store.artifacts / "reports" / f"{run.run}.{kind}"


def gather(store: Store, request: Request, outcomes: Mapping[Stage, Outcome]) -> Run:
    """Build the record of a run from the outcomes of its stages. Writes nothing."""
    now = datetime.datetime.now(datetime.UTC)
    values: dict[str, Any] = dict.fromkeys(
        name for name, field in Run.model_fields.items() if field.is_required() and name not in ("stages", "exports")
    )
    values |= {
        "run": f"{now:%Y%m%d-%H%M%S-%f}",
        "created_at": now.isoformat(timespec="seconds"),
        "config": request.pipeline,
        "stages": {stage: _report(outcomes[stage]) for stage in STAGES},
        "exports": _exports(outcomes["export"], request.pipeline.export.formats),
        "true_weights": request.pipeline.data.true_weights,
        "true_bias": request.pipeline.data.bias if request.pipeline.data.path is None else None,
    }
    if outcomes["train"].record is not None:
        fit = outcomes["train"].fit(store)
        values |= {"learned_weights": fit.weights, "learned_bias": fit.bias}
        values |= fit.model_dump(
            include={"epochs", "dtype", "learning_rate", "stable_limit", "gradient", "precondition", "condition_number"}
        )
    if outcomes["evaluate"].record is not None:
        path = outcomes["evaluate"].path(store, "evaluation.json")
        values |= _figures(parse_stored(Evaluation, path.read_bytes()))
    elif outcomes["generate"].record is not None and request.pipeline.data.path is not None:
        values |= _of_dataset(outcomes["generate"], store)
    for stage in STAGES:
        blame, reason = outcomes[stage].blame(store)
        if blame is not None:
            recurrence = outcomes[stage].recurrence
            if recurrence == "deterministic":
                reason = f"{reason} (computed again, the same bits came out: the fault is deterministic)"
            elif recurrence == "intermittent":
                reason = f"{reason} (computed again, other bits came out: the fault is intermittent)"
            values |= {"verdict": "fail", "blame": blame, "reason": reason}
            break
    return Run(**values)


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
            include={
                *("features", "target", "columns", "levels", "digits", "num_rows", "warnings", "residual_sd", "mse"),
                *("r_squared", "adjusted_r_squared", "f_statistic", "f_p_value", "degrees_of_freedom"),
            }
        ),
    }


def _of_dataset(outcome: Outcome, store: Store) -> dict[str, Any]:
    """Return what a table's dataset says of itself, for a run that was not evaluated."""
    from lntx.data.dataset import open_dataset

    dataset = open_dataset(*(store.path(file) for file in outcome.stored.files))
    return {
        "features": dataset.terms,
        "target": dataset.target,
        "columns": dataset.columns,
        "levels": dict(dataset.levels),
        "warnings": dataset.notes,
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


def _exports(outcome: Outcome, formats: Sequence[Format]) -> dict[Format, str]:
    if outcome.record is None or outcome.state == "failed":
        return {}
    return {name: outcome.record.file(f"model.{name}").path for name in formats}
