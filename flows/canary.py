"""The canary as a Prefect flow: the pipeline's tasks in a temporary root, then a judgement of the answer."""

import contextlib
from typing import Annotated, Any

from prefect import flow, tags, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.utilities.urls import url_for
from pydantic import Field

from flows.tasks import TASKS, root, send_core_logs, wrong_answer
from lntx.canary.attempt import Attempt, Judged
from lntx.canary.cases import Case
from lntx.canary.faults import Fault, find_fault
from lntx.canary.levels import Device, Level
from lntx.canary.not_run import NotRun, count_not_run
from lntx.canary.order import Order, Result, refuse_repeated_fault, settle_order, sum_up
from lntx.canary.page import canary_table
from lntx.canary.results import Canary
from lntx.canary.run import keep_one, named_if_interrupted, witness_at
from lntx.config.schema import MAX_SEED
from lntx.errors import LntxError
from lntx.store.leases import running
from lntx.store.store import Store
from lntx.text import MAX_MESSAGE, shown

TAG = "canary"
"""Tag of every run of the canary."""

INJECTED = "injected"
"""Additional tag of runs with a planted fault: a failure in them is expected."""


def _run_name() -> str:
    parameters = flow_run.get_parameters()
    words = [
        f"canary, level {parameters.get('level', 1)}",
        *(["blind"] if parameters.get("blind") or parameters.get("seed") is not None else []),
        *([f"{parameters['repeat']} times"] if parameters.get("repeat", 1) != 1 else []),
        *([f"with {parameters['inject']}"] if parameters.get("inject") else []),
    ]
    return ", ".join(words)


@flow(
    name="lntx-canary",
    description="Prove that this stack still trains right: everything is computed again in a throw-away root and held "
    "against the known answer, epoch by epoch, and nothing is published.",
    flow_run_name=_run_name,
    persist_result=False,
    # A wrong answer is a result: never retry it.
    retries=0,
)
async def canary(
    level: Level = 1,
    blind: Annotated[bool, Field(strict=True)] = False,
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)] | None = None,
    repeat: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1,
    inject: Annotated[str, Field(max_length=100, pattern="^[a-z0-9-]+$")] | None = None,
    device: Device = "auto",
) -> State[Any]:
    """Run the cases of a level and judge each.

    Args:
        level: 1: one case, a second; 2: several shapes, dtypes, thread counts and formats, half a minute; 3: also as
            many rows as fit in a quarter of the free memory, minutes.
        blind: Draw new random weights, rows and settings.
        seed: Draw the blind cases of this seed again.
        repeat: Number of repetitions.
        inject: A fault to plant, to check that it is caught.
        device: Device to train on.
    """
    send_core_logs()
    try:
        order = settle_order(level=level, blind=blind, seed=seed, repeat=repeat, device=device)
        fault = None if inject is None else find_fault(inject)
        refuse_repeated_fault(inject, repeat)
        # Blind cases and cases with a planted fault are not stored as drift baselines.
        witness = None if fault is not None or order.seed is not None else witness_at(root())
        found = await _run_cases(order, fault, witness)
    except LntxError as error:
        return Failed(name=error.kind, message=str(error), data=error)
    run_id = flow_run.get_id()
    url = url_for("flow-run", obj_id=run_id, url_type="ui") if run_id else None
    found = found.model_copy(update={"flow_run_id": run_id, "flow_run_url": url})
    await acreate_markdown_artifact(canary_table(found), key="lntx-canary", description=_headline(found))
    return _concluded(found)


async def _run_cases(order: Order, fault: Fault | None, witness: Store | None) -> Canary:
    results: list[Result] = []
    with named_if_interrupted(results):
        for repetition in range(1, order.repeat + 1):
            for case in order.cases(repetition, for_fault=fault is not None):
                results.append(keep_one(results, await _run_case(case, repetition, fault, witness)))
    return sum_up(order, results, fault)


async def _run_case(case: Case, repetition: int, fault: Fault | None, witness: Store | None) -> Result:
    attempt = Attempt(case, repetition=repetition)
    try:
        store = attempt.begin()
        planted = fault.planted(case) if fault else contextlib.nullcontext()
        with running(store.locks), planted, tags(TAG, *([INJECTED] if fault else [])):
            await _run_stages(attempt)
            return await _judge(attempt, witness)
    except BaseException:
        attempt.discard()
        raise


async def _run_stages(attempt: Attempt) -> None:
    for stage, stage_task in TASKS.items():
        named = stage_task.with_options(task_run_name=f"{stage}: {attempt.case.name}")
        state = named(attempt.request, attempt.outcomes, return_state=True)
        outcome = await state.aresult(raise_on_failure=False)
        if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
            raise outcome
        if not attempt.take(stage, outcome):
            return


@task(name="Judge the answer", task_run_name="judge", persist_result=False)
def _judge_task(attempt: Attempt, witness: Store | None) -> State[Any]:
    send_core_logs()
    judged = attempt.conclude(witness)
    if not isinstance(judged, Judged):
        return without_answer(judged)
    report = judged.report
    if report.verdict == "fail":
        return Failed(name="WrongAnswer", message=shown(f"{report.blame}: {report.reason}", MAX_MESSAGE), data=judged)
    return Completed(message="everything is as it should be", data=judged)


async def _judge(attempt: Attempt, witness: Store | None) -> Result:
    state = _judge_task(attempt, witness, return_state=True)
    result = await state.aresult(raise_on_failure=False)
    if isinstance(result, BaseException):
        raise result
    assert isinstance(result, Judged | NotRun)
    return result


def without_answer(result: NotRun) -> State[Any]:
    """Return the state of a task whose case was not run to its end."""
    message = shown(result.sentence, MAX_MESSAGE)
    if result.cause == "build":
        return Completed(name="NotRun", message=message, data=result)
    return Failed(name="Failed", message=message, data=result)


def _concluded(found: Canary) -> State[Any]:
    """Return the flow's state: a planted fault that is caught is not a wrong answer."""
    if found.verdict is None:
        return Failed(name=LntxError.kind, message=shown(found.reason or "", MAX_MESSAGE), data=found)
    if found.fault is not None:
        if found.fault.is_right:
            return Completed(name="FaultCaught", message=_headline(found), data=found)
        return Failed(name="FaultMissed", message=_headline(found), data=found)
    if found.verdict == "fail":
        return wrong_answer(found, f"{found.blame}: {found.reason}")
    return Completed(message=_headline(found), data=found)


def _headline(found: Canary) -> str:
    if found.fault is not None:
        said = f"blamed on {found.fault.blame}" if found.fault.caught else "not seen"
        return f"{found.fault.name}: {said}, expected {found.fault.expected}"
    right = sum(case.verdict == "pass" for case in found.cases)
    drift = f", drift in {len(found.drift)}" if found.drift else ""
    return f"{right} of {len(found.cases)} right{drift}{count_not_run(found.not_run)}"
