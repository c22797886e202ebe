"""Run flows in this process, and ask the server what it knows of them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, TaskRun
from prefect.flows import Flow

from lntx.base.errors import WrongAnswer


def run_flow(flow: Flow[..., Any], root: Path, **parameters: Any) -> tuple[State[Any], Any]:
    async def go() -> tuple[State[Any], Any]:
        state = await flow(return_state=True, **parameters)
        came = await state.aresult(raise_on_failure=False)
        return state, came.result if isinstance(came, WrongAnswer) else came

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LNTX_ROOT", str(root))
        return asyncio.run(go())


def task_runs(client: SyncPrefectClient, state: State[Any], *, count: int = 4) -> dict[str, TaskRun]:
    """The task runs of a flow run by name, once the server has so many, all in their last state: it hears of them later
    than the flow ends.
    """
    deadline = time.monotonic() + 30
    while True:
        runs = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id(state)])),
        )
        if len(runs) >= count and all(run.state is not None and run.state.is_final() for run in runs):
            return {run.name: run for run in runs}
        assert time.monotonic() < deadline
        time.sleep(0.2)


def run_id(state: State[Any]) -> UUID:
    assert state.state_details.flow_run_id is not None
    return UUID(str(state.state_details.flow_run_id))


def state_names(runs: dict[str, TaskRun]) -> dict[str, str]:
    return {name: run.state.name for name, run in runs.items() if run.state is not None and run.state.name is not None}
