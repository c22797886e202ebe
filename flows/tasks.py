"""The four stages as Prefect tasks: names, retries, timeouts, and readable states.

Each task obtains its stage's result from the core's runner; this module does not know what a stage does.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect import Task, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import MissingContextError
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.progress import show_progress
from lntx.base.errors import LntxError, WrongAnswer
from lntx.base.stages import Stage
from lntx.base.text import EscapedLines
from lntx.pipeline.outcome import Outcome, Request
from lntx.pipeline.runner import obtain

_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """Prefect settings of a stage."""

    title: str
    """Name of the task in the UI."""

    timeout_s: float
    """Time limit in seconds."""

    retry_delays_s: tuple[float, ...] = (5.0, 30.0)
    """Delays before the retries, in seconds."""


TABLE: dict[Stage, TaskEntry] = {
    "generate": TaskEntry(title="Generate the rows", timeout_s=6 * _HOUR),
    "train": TaskEntry(title="Train the model", timeout_s=12 * _HOUR),
    "evaluate": TaskEntry(title="Evaluate what was learned", timeout_s=6 * _HOUR),
    "export": TaskEntry(title="Export and read back", timeout_s=0.5 * _HOUR),
}
"""Prefect settings of every stage; `lntx/pipeline/table.py` defines what a stage computes."""


def transient(_task: Task[..., Any], _run: object, state: State[Any]) -> bool:
    """Whether a retry may help: a problem of the machine, but no wrong answer, missing file or timeout."""
    # Not state.result(): in a task of an async flow that is a coroutine.
    error = getattr(state.data, "result", state.data)
    return isinstance(error, (OSError, MemoryError)) and not isinstance(
        error, (TimeoutError, FileNotFoundError, PermissionError)
    )


def _stage_task(stage: Stage) -> Task[[Request, dict[Stage, Outcome]], Any]:
    @task(
        name=TABLE[stage].title,
        task_run_name=stage,
        description=f"Obtain the result of the stage {stage}: from the store if it is fresh, else computed.",
        retries=len(TABLE[stage].retry_delays_s),
        retry_delay_seconds=[*TABLE[stage].retry_delays_s],
        retry_jitter_factor=0.3,
        retry_condition_fn=transient,
        timeout_seconds=TABLE[stage].timeout_s,
        persist_result=False,
    )
    def obtain_stage(request: Request, outcomes: dict[Stage, Outcome]) -> State[Any]:
        send_core_logs()
        try:
            with show_progress(stage):
                outcome = obtain(stage, request, outcomes)
        except LntxError as error:
            # A state, not an exception: its message gives the cause, and a traceback would add nothing.
            return Failed(name=error.kind, message=str(error), data=error)
        return _STATES[outcome.state](outcome)

    return obtain_stage


def _ran(outcome: Outcome) -> State[Any]:
    assert outcome.record is not None
    return Completed(message=f"computed in {outcome.record.seconds:.3g} s", data=outcome)


def _cached(outcome: Outcome) -> State[Any]:
    assert outcome.record is not None
    return Completed(name="Cached", message=f"{outcome.record.key[:12]} is intact", data=outcome)


def _skipped(outcome: Outcome) -> State[Any]:
    return Completed(name="Skipped", message="an earlier stage gave a wrong answer", data=outcome)


def _failed(outcome: Outcome) -> State[Any]:
    return Failed(name="WrongAnswer", message="the answer is not the known one: see the flow run", data=outcome)


_STATES = {"ran": _ran, "cached": _cached, "skipped": _skipped, "failed": _failed}


def wrong_answer(result: object, message: str) -> State[Any]:
    """Return the state of a flow that found a wrong answer.

    Its data is an error, which Prefect raises in a flow that calls this one; for a run it would raise a TypeError.
    """
    error = WrongAnswer(message)
    error.result = result
    return Failed(name=error.kind, message=str(error), data=error)


TASKS = {stage: _stage_task(stage) for stage in TABLE}
"""One task per stage, in order."""


class _CoreLogHandler(APILogHandler):
    """Sends the core's log lines to the run that they belong to; lines outside a run are dropped."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging defines the name)
        import sys

        if not isinstance(sys.exc_info()[1], MissingContextError):
            super().handleError(record)


def send_core_logs() -> None:
    """Send the core's log lines to the UI."""
    core = logging.getLogger("lntx")
    if not any(isinstance(handler, _CoreLogHandler) for handler in core.handlers):
        handler = _CoreLogHandler(level=logging.INFO)
        handler.addFilter(EscapedLines())
        core.addHandler(handler)
    if core.getEffectiveLevel() > logging.INFO:
        core.setLevel(logging.INFO)


async def name_run(name: str) -> None:
    """Rename this flow run: with its outcome, so that a list of runs shows it."""
    run_id = flow_run.get_id()
    if run_id is not None:
        async with get_client() as client:
            await client.update_flow_run(UUID(run_id), name=name)


def root() -> Path:
    """Return the folder of data/ and artifacts/ of a flow run: LNTX_ROOT, else the working directory.

    Not a parameter: anyone who can start a run could choose any folder.
    """
    return Path(os.environ.get("LNTX_ROOT") or ".")


Force = Literal["all", Stage]
"""A stage to compute although its result is stored, or all of them."""
