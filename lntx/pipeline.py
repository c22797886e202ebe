"""The runner: obtain one stage's result, or all of them, with no orchestrator.

Python, the command line and Prefect all come through `obtain`. Knows how stages fit together; the work of each is
in its own module.
"""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from lntx import planning
from lntx.conclusion import conclude
from lntx.errors import NotFresh
from lntx.identity import Identity, identify
from lntx.outcomes import Outcome, Request, find_blame, parse_stored
from lntx.records import Record
from lntx.runs import Run
from lntx.selection import INPUTS, STAGES, Stage
from lntx.store import RESUME, Finding, Store
from lntx.tables import look_at
from lntx.usage import note, running
from lntx.verdict import Blame, Evaluation
from lntx.verification import mend_history

logger = logging.getLogger(__name__)

_PRODUCERS: dict[Blame, Stage] = {
    "data": "generate",
    "reference": "evaluate",
    "training": "train",
    "export": "export",
}
"""The stage whose result is not to be used again when that part is to blame."""


def run_stages(request: Request) -> Run:
    """Obtain every stage that is asked for, in order, and conclude.

    Raises: LntxError: bad input, or a stage outside the selection that has no stored result.
    """
    store = begin(request)
    with running(store.locks):
        outcomes: dict[Stage, Outcome] = {}
        for stage in STAGES:
            outcomes[stage] = obtain(stage, request, outcomes)
        return conclude(store, request, outcomes)


def begin(request: Request) -> Store:
    """Make the root ready, and start what takes long to start.

    Raises: BadInput: the root cannot be written, or the user's file cannot be read.
    """
    store = Store(request.root)
    store.prepare()
    store.sweep()
    mend_history(store)
    if "export" in request.selection.stages:
        plans = planning.plan(store, request.pipeline, request.selection)
        if plans["export"].state != "fresh":
            from lntx.freshprocess import fresh_process

            fresh_process()
    return store


def obtain(stage: Stage, request: Request, inputs: Mapping[Stage, Outcome]) -> Outcome:
    """Obtain one stage's result: look it up, or compute and publish it.

    inputs: outcomes of the earlier stages.

    Raises: NotFresh: the stage is not selected, and a later one needs its missing result.
    """
    store = Store(request.root)
    if stage not in request.stages:
        return Outcome(stage=stage, state="skipped")
    if any(inputs[upstream].state in ("failed", "skipped") for upstream in INPUTS[stage]):
        logger.warning("%s: skipped, because the answer is wrong", stage)
        return Outcome(stage=stage, state="skipped")
    contents: dict[str, str] = {upstream: _record(inputs[upstream]).content for upstream in INPUTS[stage]}
    identity = identify(
        stage, request.pipeline, source_sha256=planning.source_digest(request.pipeline), inputs=contents
    )
    with store.lock(identity.key):
        with store.shared():
            note(store.locks, identity.key)
            planned = planning.plan_stage(store, identity, forced=stage in request.selection.forced)
        if planned.record is not None:
            logger.info("%s: cached, %s", stage, _files(planned.record))
            return Outcome(stage=stage, state="cached", record=planned.record)
        if stage not in request.selection.stages:
            raise NotFresh(
                f"{stage} has no stored result for this configuration ({planned.reason}): "
                f"run once with --until {stage}, or leave out --from and --only"
            )
        if planned.state == "damaged":
            logger.warning("%s: %s; computing it again", stage, planned.reason)
        return _compute(stage, request, store, identity, inputs)


def _compute(
    stage: Stage, request: Request, store: Store, identity: Identity, inputs: Mapping[Stage, Outcome]
) -> Outcome:
    before = store.find(identity)
    if before.state == "damaged" and before.record is None:
        store.set_aside(store.record_path(identity))
    started = time.perf_counter()
    logger.info("%s: computing", stage)
    with store.staging(stage, identity.key) as folder:
        digests = _WORK[stage](request, store, inputs, folder)
        seconds = time.perf_counter() - started
        blame, reason = find_blame(stage, lambda name: (folder / name).read_bytes())
        if blame is not None:
            _quarantine_producer(store, blame, stage, inputs, reason)
        # A wrong answer is recorded as one from the start: no crash in between can make it a hit.
        quarantine = None if blame is None else f"the verdict was fail: {reason}"
        record = store.publish(
            identity,
            folder,
            seconds=seconds,
            environment=_environment(request.root),
            digests=digests,
            quarantine=quarantine,
        )
    logger.info("%s: %s in %.3g s", stage, _files(record), seconds)
    if blame is None:
        return Outcome(stage=stage, state="ran", record=record, recurrence=_recurrence(before, record))
    logger.error("%s: %s is wrong: %s", stage, blame, reason)
    blamed = inputs.get(_PRODUCERS[blame])
    recurrence = _recurrence(before, record) if blamed is None else blamed.recurrence
    return Outcome(stage=stage, state="failed", record=record, recurrence=recurrence)


def _quarantine_producer(
    store: Store, blame: Blame, stage: Stage, inputs: Mapping[Stage, Outcome], reason: str | None
) -> None:
    producer = _PRODUCERS[blame]
    if producer != stage:
        store.quarantine(_record(inputs[producer]), f"{blame} was found wrong: {reason}")


def _recurrence(before: Finding, after: Record) -> Literal["deterministic", "intermittent"] | None:
    """Whether a result that had failed came out the same, where there was one."""
    if before.state != "quarantined" or before.record is None:
        return None
    return "deterministic" if before.record.content == after.content else "intermittent"


def _generate(
    request: Request, _store: Store, _inputs: Mapping[Stage, Outcome], folder: Path
) -> Mapping[str, str] | None:
    data = request.pipeline.data
    if data.path is None:
        from lntx.parts import generate_parts

        return generate_parts(data, folder, folder.parent / RESUME)
    from lntx.tables import import_table

    return {"dataset.parquet": import_table(data, look_at(data.path), folder / "dataset.parquet")}


def _train(request: Request, store: Store, inputs: Mapping[Stage, Outcome], folder: Path) -> None:
    from lntx.dataset import open_dataset
    from lntx.fitting import write_history
    from lntx.training import fit
    from lntx.weights import dump_weights

    dataset = open_dataset(*_rows(store, inputs))
    model, figures, history = fit(
        dataset,
        request.pipeline.train,
        bias=request.pipeline.learns_bias,
        checkpoint=folder.parent / RESUME / "checkpoint",
    )
    (folder / "model.safetensors").write_bytes(dump_weights(model))
    write_history(history, folder / "history.parquet")
    (folder / "fit.json").write_text(figures.model_dump_json(indent=1), encoding="utf-8")


def _evaluate(request: Request, store: Store, inputs: Mapping[Stage, Outcome], folder: Path) -> None:
    from lntx.dataset import open_dataset
    from lntx.evaluation import evaluate

    evaluation = evaluate(
        open_dataset(*_rows(store, inputs)),
        sha256=_record(inputs["generate"]).files[0].sha256,
        data=request.pipeline.data,
        fit=inputs["train"].fit(store),
        settings=request.pipeline.evaluate,
    )
    (folder / "evaluation.json").write_text(evaluation.model_dump_json(indent=1), encoding="utf-8")


def _export(request: Request, store: Store, inputs: Mapping[Stage, Outcome], folder: Path) -> None:
    from lntx.exporting import export
    from lntx.prediction import load_model

    evaluation = parse_stored(Evaluation, inputs["evaluate"].path(store, "evaluation.json").read_bytes())
    model = load_model(inputs["train"].path(store, "model.safetensors"))
    export(model, inputs["train"].fit(store), evaluation, request.pipeline.export, folder)


_Work = Callable[[Request, Store, Mapping[Stage, Outcome], Path], Mapping[str, str] | None]
"""Computes a stage's files into a folder; returns the digests that were taken while files were written."""

_WORK: dict[Stage, _Work] = {"generate": _generate, "train": _train, "evaluate": _evaluate, "export": _export}


def _rows(store: Store, inputs: Mapping[Stage, Outcome]) -> list[Path]:
    """The files of the dataset, in the order of the rows."""
    return [store.path(file) for file in sorted(_record(inputs["generate"]).files, key=lambda file: file.name)]


def _record(outcome: Outcome) -> Record:
    assert outcome.record is not None
    return outcome.record


def _files(record: Record) -> str:
    return ", ".join(file.path for file in record.files)


def _environment(root: Path) -> dict[str, Any]:
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "git_commit": _git_commit(root),
    }


def _git_commit(folder: Path) -> str | None:
    """The commit that is checked out around a folder, if there is one."""
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
