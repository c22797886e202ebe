"""End runs that have no runner any more: after a power cut, and when the server is asked to stop.

Prefect would show them as pending or running forever, and their slots would keep scheduled runs from starting.

A client of the API can store a run that the server cannot return: with an integer beyond 64 bits or half of a
surrogate pair, the server answers 500 for every page that contains the run. So runs are listed without their
parameters, and a run that cannot be read is logged and ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Crashed

from flows.server.deployments import DEPLOYMENTS

logger = logging.getLogger("lntx.serving")

_UNENDED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
# Names of the states of a run that was never started: a retried run is scheduled too, under another name.
_DUE = ["Scheduled", "Late"]
_NOT_FIRST = "an earlier run of the schedule was due too"
_VARIABLE = b"PREFECT__FLOW_RUN_ID="
# Largest page that the server returns.
_PAGE = 1000


@contextlib.asynccontextmanager
async def patient_client() -> AsyncIterator[PrefectClient]:
    """A client with one connection per request: the server closes a connection after a 500, and a reuse would fail."""
    async with get_client(httpx_settings={"limits": httpx.Limits(max_keepalive_connections=0)}) as client:
        yield client


async def settle_orphans(client: PrefectClient) -> None:
    """Mark runs of an earlier runner as crashed, and free their slots. Call it while nothing is served.

    A run whose process is still alive is left alone and keeps its slot.
    """
    processes = _processes()
    for deployment in await served(client):
        # Prefect's runner fails on a scheduled run that cannot be read.
        waiting = await _runs(client, deployment, [StateType.SCHEDULED])
        await _end(client, await _unreadable(client, waiting), Cancelled(message="the server cannot read it"))
        left = await _runs(client, deployment, _UNENDED)
        orphans = [run_id for run_id, kind in left.items() if _is_gone(run_id, kind, processes)]
        await _end(client, orphans, Crashed(message="the process that served it ended"))
        await _unreadable(client, left)
        await _hold_slots(client, deployment, len(left) - len(orphans))


async def cancel_all(client: PrefectClient) -> None:
    """Cancel every served run, when the server is asked to stop. Call it when nothing is served any more."""
    processes = _processes() or {}
    for deployment in await served(client):
        left = await _runs(client, deployment, _UNENDED)
        # Cancel before killing its processes: otherwise an alert would report a crash.
        await _end(client, left, Cancelled(message="lntx down ended it"))
        for run_id in left:
            for pid in processes.get(run_id, ()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await _hold_slots(client, deployment, 0)


async def cancel_late_runs(client: PrefectClient) -> None:
    """Cancel all late runs of each schedule except the first. Call it before anything else reads them: after a long
    outage they are many, and what serves would fetch them a page at a time and start one of each page.
    """
    now = datetime.now(UTC).isoformat()
    for deployment in await served(client):
        due = _auto_scheduled({"expected_start_time": {"before_": now}})
        late = [*await _runs(client, deployment, [StateType.SCHEDULED], due, sort="EXPECTED_START_TIME_ASC")]
        await _end(client, late[1:], Cancelled(message=_NOT_FIRST))


async def renew_late_runs(client: PrefectClient) -> None:
    """Give late scheduled runs the current settings. Prefect itself recreates the runs that are not due yet."""
    for deployment in await served(client):
        for run_id in await _runs(client, deployment, [StateType.SCHEDULED], _auto_scheduled()):
            await client.update_flow_run(run_id, parameters=deployment.parameters)


def _auto_scheduled(more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the filter of runs that a schedule made and nobody started."""
    return {"tags": {"all_": ["auto-scheduled"]}, "state": {"name": {"any_": _DUE}}, **(more or {})}


async def one_per_schedule(client: PrefectClient, runs: list[FlowRun]) -> list[FlowRun]:
    """Cancel all due runs of each schedule except the first, and return the rest of the runs, which are in order.

    Runs that a person started or retried are never cancelled.
    """
    first: dict[UUID | None, UUID] = {}
    extra = [
        run.id
        for run in runs
        if run.auto_scheduled and "scheduled" in run.tags and run.state_name in _DUE
        if first.setdefault(run.deployment_id, run.id) != run.id
    ]
    await _end(client, extra, Cancelled(message=_NOT_FIRST))
    return [run for run in runs if run.id not in extra]


async def served(client: PrefectClient) -> list[DeploymentResponse]:
    """Return the deployments that `lntx up` creates, except those that workers run."""
    deployments = []
    for name in (f"{deployment.flow}/{deployment.name}" for deployment in DEPLOYMENTS):
        # One by one: a list would fail if any other deployment cannot be read.
        with contextlib.suppress(ObjectNotFound):
            deployments.append(await client.read_deployment_by_name(name))
    return [candidate for candidate in deployments if candidate.work_pool_name is None]


async def _runs(
    client: PrefectClient,
    deployment: DeploymentResponse,
    types: list[StateType],
    more: Mapping[str, Mapping[str, Any]] | None = None,
    sort: str = "ID_DESC",
) -> dict[UUID, StateType]:
    """Return the runs of a deployment in states of the given types, readable or not, and their types, in order.

    more: additional filter of flow runs; its filter of states is merged. sort: by what, as Prefect names it.
    """
    query: dict[str, Any] = {**(more or {})}
    query["state"] = {**query.get("state", {}), "type": {"any_": [kind.value for kind in types]}}
    states: dict[UUID, StateType] = {}
    while True:
        answer = await client.request(
            "POST",
            "/ui/flow_runs/history",
            json={
                "sort": sort,
                "limit": _PAGE,
                "offset": len(states),
                "deployments": {"id": {"any_": [str(deployment.id)]}},
                "flow_runs": query,
            },
        )
        page = answer.json()
        states |= {UUID(run["id"]): StateType(run["state_type"]) for run in page}
        if len(page) < _PAGE:
            return states


async def _unreadable(client: PrefectClient, run_ids: Iterable[UUID]) -> list[UUID]:
    """Return the runs that the server cannot return, and log each of them."""
    bad = [run_id for run_id in run_ids if await _is_unreadable(client, run_id)]
    for run_id in bad:
        logger.warning(
            "flow run %s cannot be read: its parameters hold a number beyond 64 bits, or broken text; it is ended, and "
            "prefect flow-run delete %s removes it",
            run_id,
            run_id,
        )
    return bad


async def _is_unreadable(client: PrefectClient, run_id: UUID) -> bool:
    try:
        answer = await client.request("GET", "/flow_runs/{id}", path_params={"id": run_id})
        # The server writes pages of runs with orjson; for a single run it is more tolerant.
        orjson.dumps(answer.json())
    except orjson.JSONEncodeError:
        return True
    except PrefectHTTPStatusError as error:
        return error.response.status_code == httpx.codes.INTERNAL_SERVER_ERROR
    return False


def _is_gone(run_id: UUID, kind: StateType, processes: Mapping[UUID, list[int]] | None) -> bool:
    if processes is None:
        # A running run is left to the heartbeat check.
        return kind == StateType.PENDING
    return run_id not in processes


async def _end(client: PrefectClient, run_ids: Iterable[UUID], state: State[Any]) -> None:
    for run_id in run_ids:
        # A run may have been deleted meanwhile.
        with contextlib.suppress(ObjectNotFound):
            await client.set_flow_run_state(run_id, state, force=True)


async def _hold_slots(client: PrefectClient, deployment: DeploymentResponse, slots: int) -> None:
    limit = deployment.global_concurrency_limit
    # Ending a run frees its slot too: the number read before is out of date.
    if limit is not None:
        await client.update_global_concurrency_limit(limit.name, GlobalConcurrencyLimitUpdate(active_slots=slots))


def _processes() -> dict[UUID, list[int]] | None:
    """Return the processes of this machine by flow run, or None if process environments cannot be read."""
    if not Path("/proc/self/environ").exists():
        return None
    processes: dict[UUID, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError, ValueError):
            for variable in path.read_bytes().split(b"\0"):
                if variable.startswith(_VARIABLE):
                    run_id = UUID(variable.removeprefix(_VARIABLE).decode())
                    processes.setdefault(run_id, []).append(int(path.parent.name))
    return processes
