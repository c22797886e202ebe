"""Runs that no runner looks after any more: after a power cut, and when the server is told to end.

Prefect would show them as pending or running for good, and their slots would keep scheduled runs from starting.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterTags,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.states import Cancelled, Crashed

_UNENDED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
_VARIABLE = b"PREFECT__FLOW_RUN_ID="


async def settle_orphans(client: PrefectClient) -> None:
    """Say that runs of an earlier runner crashed, and free their slots. To be called while nothing is served.

    A run whose process lives on is left alone, and keeps its slot.
    """
    processes = _processes()
    for deployment in await served(client):
        left = await _runs(client, deployment, _UNENDED)
        gone = [run for run in left if _is_gone(run, processes)]
        await _end(client, gone, Crashed(message="the process that served it ended"))
        await _hold_slots(client, deployment, len(left) - len(gone))


async def cancel_all(client: PrefectClient) -> None:
    """End every served run, for a server that is told to end. To be called when nothing is served any more."""
    processes = _processes() or {}
    for deployment in await served(client):
        left = await _runs(client, deployment, _UNENDED)
        # Cancelled before what is left of it is killed: nobody is to be told of a crash.
        await _end(client, left, Cancelled(message="lntx down ended it"))
        for run in left:
            for pid in processes.get(run.id, ()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await _hold_slots(client, deployment, 0)


async def renew_late_runs(client: PrefectClient) -> None:
    """Give late scheduled runs the settings of today. Those that are not due yet Prefect makes anew by itself."""
    for deployment in await served(client):
        for run in await _runs(client, deployment, [StateType.SCHEDULED]):
            if run.auto_scheduled and not run.run_count:
                await client.update_flow_run(run.id, parameters=deployment.parameters)


async def served(client: PrefectClient) -> list[DeploymentResponse]:
    """The deployments of our flows, but for those that workers run."""
    found = await client.read_deployments(
        flow_filter=FlowFilter(name=FlowFilterName(any_=["lntx", "lntx-canary", "lntx-gc"])),
        deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=["lntx"])),
    )
    return [one for one in found if one.work_pool_name is None]


async def _runs(client: PrefectClient, deployment: DeploymentResponse, types: list[StateType]) -> list[FlowRun]:
    return await client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types))),
    )


def _is_gone(run: FlowRun, processes: Mapping[UUID, list[int]] | None) -> bool:
    if processes is None:
        # One that runs is left to its heartbeats.
        return run.state_type == StateType.PENDING
    return run.id not in processes


async def _end(client: PrefectClient, runs: list[FlowRun], state: State[Any]) -> None:
    for run in runs:
        await client.set_flow_run_state(run.id, state, force=True)


async def _hold_slots(client: PrefectClient, deployment: DeploymentResponse, slots: int) -> None:
    limit = deployment.global_concurrency_limit
    # Ending a run frees its slot too: what was read before is out of date.
    if limit is not None:
        await client.update_global_concurrency_limit(limit.name, GlobalConcurrencyLimitUpdate(active_slots=slots))


def _processes() -> dict[UUID, list[int]] | None:
    """The processes of this machine that work on flow runs; none where their environments cannot be read."""
    if not Path("/proc/self/environ").exists():
        return None
    found: dict[UUID, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError, ValueError):
            for variable in path.read_bytes().split(b"\0"):
                if variable.startswith(_VARIABLE):
                    run_id = UUID(variable.removeprefix(_VARIABLE).decode())
                    found.setdefault(run_id, []).append(int(path.parent.name))
    return found
