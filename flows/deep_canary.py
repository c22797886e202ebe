"""The deep canary as a Prefect flow: a task for each network and format, then a table of all operators."""

from typing import Annotated, Any

from prefect import flow, tags, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run, task_run
from prefect.states import Completed, Failed
from prefect.utilities.urls import url_for
from pydantic import Field

from flows.canary import INJECTED, TAG, without_answer
from flows.tasks import root, send_core_logs, wrong_answer
from lntx.canary.deep import (
    Checked,
    DeepCanary,
    DeepOrder,
    Piece,
    Result,
    pieces,
    prove_fault,
    prove_piece,
    settle_deep_order,
)
from lntx.canary.deep import sum_up_deep as sum_up
from lntx.canary.deep_page import deep_table, deep_verdict_line
from lntx.canary.levels import Device
from lntx.config.schema import MAX_SEED
from lntx.errors import LntxError
from lntx.text import MAX_MESSAGE, shown


@flow(
    name="lntx-canary-deep",
    description="Check every operator of a training step against its formula, within the bound of rounding errors.",
    flow_run_name="deep canary",
    persist_result=False,
    # A wrong answer is a result: never retry it.
    retries=0,
)
async def deep_canary(
    blind: Annotated[bool, Field(strict=True)] = False,
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)] | None = None,
    repeat: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1,
    compiled: Annotated[bool, Field(strict=True)] = False,
    processes: Annotated[bool, Field(strict=True)] = False,
    inject: Annotated[str, Field(max_length=100, pattern="^[a-z0-9-]+$")] | None = None,
    device: Device = "auto",
) -> State[Any]:
    """Check every operator of five networks in six formats.

    Args:
        blind: Draw new networks, weights and data.
        seed: Draw the networks of this seed again.
        repeat: Number of repetitions.
        compiled: Check code of torch.compile, too.
        processes: Check training in two processes, too.
        inject: A fault to plant, to check that it is caught.
        device: Device to train on.
    """
    send_core_logs()
    try:
        order = settle_deep_order(
            blind=blind, seed=seed, repeat=repeat, device=device, compiled=compiled, processes=processes, inject=inject
        )
        with tags(TAG, *([INJECTED] if inject else [])):
            done = await _prove(order)
        found = sum_up(order, done, root=None if inject else root())
    except LntxError as error:
        return Failed(name=error.kind, message=str(error), data=error)
    run_id = flow_run.get_id()
    url = url_for("flow-run", obj_id=run_id, url_type="ui") if run_id else None
    found = found.model_copy(update={"flow_run_id": run_id, "flow_run_url": url})
    headline = deep_verdict_line(found)
    await acreate_markdown_artifact(deep_table(found), key="lntx-canary-deep", description=shown(headline, MAX_MESSAGE))
    return _concluded(found, headline)


async def _prove(order: DeepOrder) -> list[Result]:
    if order.inject is not None:
        return [prove_fault(order)]
    results: list[Result] = []
    for repetition in range(1, order.repeat + 1):
        for piece in pieces(order):
            state = _prove_task(order, piece, repetition, return_state=True)
            result: Any = await state.aresult(raise_on_failure=False)
            if isinstance(result, BaseException):
                raise result
            results.append(result)
    return results


def _task_name() -> str:
    how, net, mode = task_run.get_parameters()["piece"]
    return f"{net}; {mode}" + ("" if how == "eager" else f"; {how}")


@task(name="Prove a network", task_run_name=_task_name, persist_result=False)
def _prove_task(order: DeepOrder, piece: Piece, repetition: int) -> State[Any]:
    send_core_logs()
    checked = prove_piece(order, piece, repetition)
    if not isinstance(checked, Checked):
        return without_answer(checked)
    if checked.case.verdict == "fail":
        return Failed(name="WrongAnswer", message=shown(checked.case.reason or "", MAX_MESSAGE), data=checked)
    return Completed(message=f"{checked.case.calls} operator calls, none over its bound", data=checked)


def _concluded(found: DeepCanary, headline: str) -> State[Any]:
    """Return the flow's state: a planted fault that is caught is not a wrong answer."""
    if found.verdict is None:
        return Failed(name=LntxError.kind, message=shown(headline, MAX_MESSAGE), data=found)
    if found.fault is not None:
        if found.fault.is_right:
            return Completed(name="FaultCaught", message=shown(headline, MAX_MESSAGE), data=found)
        return Failed(name="FaultMissed", message=shown(headline, MAX_MESSAGE), data=found)
    if found.verdict == "fail":
        return wrong_answer(found, f"{found.blame}: {found.reason}")
    return Completed(message=headline, data=found)
