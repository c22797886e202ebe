"""The runner: obtain the result of one stage or of all, without an orchestrator.

Python, the command line and Prefect all call `obtain`. Knows how stages fit together; each stage's work is in its own
module.
"""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lntx.base.errors import NotFresh
from lntx.base.stages import STAGES, Blame, Stage
from lntx.pipeline.conclude import conclude
from lntx.pipeline.outcome import Outcome, Request, find_blame
from lntx.pipeline.plan import plan, plan_stage, source_digest
from lntx.pipeline.table import TABLE, identify, stage_of
from lntx.runs.run import Run
from lntx.runs.verify import mend_history
from lntx.store.key import Identity
from lntx.store.leases import note, running
from lntx.store.record import Record
from lntx.store.store import Finding, Store

logger = logging.getLogger(__name__)


def run_stages(request: Request) -> Run:
    """Obtain every requested stage, in order, and conclude the run.

    Raises: LntxError: bad input, or a stage outside the selection that has no stored result.
    """
    store = begin(request)
    with running(store.locks):
        outcomes: dict[Stage, Outcome] = {}
        for stage in STAGES:
            outcomes[stage] = obtain(stage, request, outcomes)
        return conclude(store, request, outcomes)


def begin(request: Request) -> Store:
    """Prepare the root, and start the export helper early because its start takes long.

    Raises: BadInput: the root cannot be written, or the user's file cannot be read.
    """
    store = Store(request.root)
    store.prepare()
    store.sweep()
    mend_history(store)
    if "export" in request.selection.stages:
        plans = plan(store, request.pipeline, request.selection)
        if plans["export"].state != "fresh":
            from lntx.export.worker import fresh_process

            fresh_process()
    return store


def obtain(stage: Stage, request: Request, inputs: Mapping[Stage, Outcome]) -> Outcome:
    """Obtain the result of one stage: from the cache, or by computing and publishing it.

    inputs: outcomes of the earlier stages.

    Raises: NotFresh: the stage is not selected, and a later one needs its missing result.
    """
    store = Store(request.root)
    if stage not in request.stages:
        return Outcome(stage=stage, state="skipped")
    if any(inputs[upstream].state in ("failed", "skipped") for upstream in TABLE[stage].inputs):
        logger.info("%s: skipped, because the answer is wrong", stage)
        return Outcome(stage=stage, state="skipped")
    contents: dict[str, str] = {upstream: inputs[upstream].stored.content for upstream in TABLE[stage].inputs}
    identity = identify(stage, request.pipeline, source_sha256=source_digest(request.pipeline), inputs=contents)
    with store.lock(identity.key):
        with store.shared():
            note(store.locks, identity.key)
            planned = plan_stage(store, identity, forced=stage in request.selection.forced)
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
        digests = TABLE[stage].work(request, store, inputs, folder, identity)
        seconds = time.perf_counter() - started
        blame, reason = find_blame(stage, lambda name: (folder / name).read_bytes())
        if blame is not None:
            _quarantine_producer(store, blame, stage, inputs, reason)
        # The first record of a wrong answer already has the quarantine: a crash cannot turn it into a cache hit.
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
    logger.info("%s: %s is wrong: %s", stage, blame, reason)
    blamed = inputs.get(stage_of(blame))
    recurrence = _recurrence(before, record) if blamed is None else blamed.recurrence
    return Outcome(stage=stage, state="failed", record=record, recurrence=recurrence)


def _quarantine_producer(
    store: Store, blame: Blame, stage: Stage, inputs: Mapping[Stage, Outcome], reason: str | None
) -> None:
    producer = stage_of(blame)
    if producer != stage:
        store.quarantine(inputs[producer].stored, f"{blame} was found wrong: {reason}")


def _recurrence(before: Finding, after: Record) -> Literal["deterministic", "intermittent"] | None:
    """Return whether a recomputed result equals the failed one; None if none had failed."""
    if before.state != "quarantined" or before.record is None:
        return None
    return "deterministic" if before.record.content == after.content else "intermittent"


def _files(record: Record) -> str:
    return ", ".join(file.path for file in record.files)


def _environment(root: Path) -> dict[str, str | None]:
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "git_commit": _git_commit(root),
    }


def _git_commit(folder: Path) -> str | None:
    """Return the checked-out commit of the repository around a folder, or None."""
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
