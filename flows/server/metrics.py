"""The page /metrics of the server: the last verdicts, the queue and what was lost, in Prometheus' text format."""

from __future__ import annotations

import asyncio
import itertools

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from flows.server.home import Home
from lntx.metrics import Metrics, ended_at
from lntx.runs.records import load_runs
from lntx.store.store import Store

# What the names of the flow runs of each kind of canary begin with.
_CANARIES = {"canary": "canary, level", "deep canary": "deep canary"}
# Runs among which the last one that passed is looked for.
_LATEST = 200
_PASSED = ["Completed", "Proved"]
_WITH_FAULT = ["FaultCaught", "FaultMissed"]
_ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CRASHED]


async def server_metrics(client: PrefectClient, home: Home) -> str:
    """Return the figures of a root and its server."""
    metrics = Metrics()
    latest = [*itertools.islice(load_runs(Store(home.root)), _LATEST)]
    if latest:
        metrics.add_run(latest[0])
    passing = next((run for run in latest if run.verdict == "pass"), None)
    if passing is not None:
        metrics.add_pass("run", ended_at(passing))
    for kind, name in _CANARIES.items():
        last, passed = await asyncio.gather(
            _last(client, name, FlowRunFilterStateName(not_any_=_WITH_FAULT)),
            _last(client, name, FlowRunFilterStateName(any_=_PASSED)),
        )
        if last is not None and last.end_time is not None:
            metrics.add_end(kind, last.end_time.timestamp(), passed=last.state_name in _PASSED)
        if passed is not None and passed.end_time is not None:
            metrics.add_pass(kind, passed.end_time.timestamp())
    late, running = await asyncio.gather(
        _count(client, FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late", "AwaitingConcurrencySlot"]))),
        _count(client, FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING]))),
    )
    metrics.add_number("lntx_runs_late", "Flow runs that are due and wait.", late)
    metrics.add_number("lntx_runs_running", "Flow runs that are running or about to.", running)
    metrics.add_number("lntx_events_dropped", "Events that the server has dropped.", home.dropped_events())
    return metrics.text()


async def _last(client: PrefectClient, name: str, state: FlowRunFilterStateName) -> FlowRun | None:
    """Return the flow run that ended last, of those whose name contains a text."""
    states = FlowRunFilterState(type=FlowRunFilterStateType(any_=_ENDED), name=state)
    query = FlowRunFilter(name=FlowRunFilterName(like_=name), state=states)
    # Any flow run may have such a name.
    flows = FlowFilter(name=FlowFilterName(any_=["lntx-canary"]))
    runs = await client.read_flow_runs(
        flow_filter=flows, flow_run_filter=query, sort=FlowRunSort.END_TIME_DESC, limit=1
    )
    return next(iter(runs), None)


async def _count(client: PrefectClient, state: FlowRunFilterState) -> int:
    """Return the number of flow runs in a state."""
    query = FlowRunFilter(state=state).model_dump(mode="json", exclude_unset=True)
    answer = await client.request("POST", "/flow_runs/count", json={"flow_runs": query})
    return int(answer.json())
