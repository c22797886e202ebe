"""The deployments that `lntx up` serves: the pipeline, the canary, one per stage, their schedules, and cleanup.

`python -m flows.server.serve ROOT` serves them until it is asked to stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pkgutil
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, DeploymentStatus, FlowRun
from prefect.deployments.runner import RunnerDeployment
from prefect.events import emit_event
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flows import Flow
from prefect.runner import Runner
from prefect.schedules import Cron, Interval, Schedule
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.callables import ParameterSchema

from flows.killed import settle_killed
from flows.server import alerts
from flows.server.deployments import DEPLOYMENTS, Deployment
from flows.server.home import Home
from flows.server.orphans import (
    cancel_all,
    cancel_late_runs,
    one_per_schedule,
    patient_client,
    renew_late_runs,
    served,
    settle_orphans,
)
from flows.server.settings import LAST_WORDS_S, ServerOptions, is_healthy
from lntx.base.stages import Stage
from lntx.pipeline.table import sections_for

# A scheduled run that finds another running is cancelled.
_ONE = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
_RUNS_AT_ONCE = 4
_POLL_S = 2.0
_LOOK_S = 10.0
# A run takes its slot when it is fetched: if fetched early, it finds the previous run still running.
_AHEAD_S = 1.0
_DAY = timedelta(days=1)
_NICE = 5
# A fixed anchor: with the start time as anchor, each restart would postpone a long interval.
_ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)


async def deployments(options: ServerOptions) -> list[RunnerDeployment]:
    """Return the deployments to serve: those that are started by hand, and those that the options schedule."""
    schedules = {
        "pipeline-scheduled": schedule(options.cron, options.interval_s, options.timezone),
        "canary-scheduled": schedule(options.canary_cron, options.canary_interval_s, options.timezone),
        "canary-deep-scheduled": schedule(options.deep_cron, None, options.timezone),
        "gc-scheduled": Interval(_DAY, anchor_date=_ANCHOR),
    }
    settings: dict[str, Mapping[str, Any]] = {
        "lntx": options.pipeline,
        "lntx-gc": {"keep": options.keep_runs, "older_than_days": options.keep_days},
    }
    return [
        await _deployment(deployment, settings.get(deployment.flow, {}), schedules.get(deployment.name))
        for deployment in DEPLOYMENTS
        if not deployment.is_scheduled or schedules[deployment.name] is not None
    ]


def schedule(cron: str | None, interval_s: float | None, timezone: str) -> Schedule | None:
    """Return a schedule, from the cron if given, else from the interval; None if neither is given."""
    if cron is not None:
        return Cron(cron, timezone=timezone)
    if interval_s is not None:
        return Interval(timedelta(seconds=interval_s), timezone=timezone, anchor_date=_ANCHOR)
    return None


async def _deployment(
    deployment: Deployment, settings: Mapping[str, Any], schedule: Schedule | None
) -> RunnerDeployment:
    flow: Flow[..., Any] = pkgutil.resolve_name(deployment.entrypoint)
    parameters = {**settings, **deployment.parameters}
    read = None if deployment.stage is None else {"only", "force", *sections_for(deployment.stage)}
    made = await flow.ato_deployment(
        deployment.name,
        parameters={name: value for name, value in parameters.items() if read is None or name in read},
        tags=["lntx", *deployment.tags, *(["scheduled"] if deployment.is_scheduled else [])],
        schedule=schedule,
        concurrency_limit=_ONE if deployment.is_scheduled else None,
        description=deployment.description,
        # By module name, so that a run needs no checkout.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    schema = made._parameter_openapi_schema.model_dump(exclude_unset=True)
    if deployment.stage is not None:
        schema["properties"] = _stage_form(schema["properties"], deployment.stage)
    made._parameter_openapi_schema = _Closed(**schema, additionalProperties=False)
    return made


def _stage_form(properties: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """Return the parameters of a deployment of one stage: what that stage reads, its own section first."""
    only = {**properties["only"], "enum": [stage], "default": stage, "description": "The stage, which is fixed."}
    names = ["force", *sections_for(stage)]
    form = {name: {**properties[name], "position": k} for k, name in enumerate(names)}
    return {**form, "only": {**only, "position": len(names)}}


class _Closed(ParameterSchema):
    """A parameter schema that forbids unknown parameters: otherwise the server would store them."""

    additionalProperties: bool  # noqa: N815 (JSON Schema defines the name)


async def serve(home: Home) -> None:
    """Create the alerts and the deployments, and serve until asked to stop."""
    options = ServerOptions.model_validate(home.read_options())
    made = await deployments(options)
    while not await asyncio.to_thread(is_healthy, options.api_url):
        # The supervisor ends this process if the server does not come up.
        await asyncio.sleep(0.1)
    async with patient_client() as client:
        runner = _Runner(limit=_RUNS_AT_ONCE, pause_on_shutdown=False, query_seconds=_POLL_S, prefetch_seconds=_AHEAD_S)
        # First the alerts, so that a crash that is found now raises one.
        await alerts.install(client, options)
        ids = {await runner.aadd_deployment(deployment) for deployment in made}
        await cancel_late_runs(client)
        await settle_orphans(client)
        await settle_killed(home.root, patient_client)
        await _drop_old_schedules(client, {entry.name for entry in made})
        await renew_late_runs(client)
    tasks = [asyncio.create_task(_say_when_served(home, ids)), asyncio.create_task(_tell_of_dropped_events(home))]
    await runner.serve()
    for task in tasks:
        task.cancel()
    async with patient_client() as client:
        await cancel_all(client)


class _Runner(Runner):
    """A runner that starts one of several late runs of a schedule, and stops serving on SIGTERM.

    The caller then cancels its runs: Prefect's runner exits at once, and the runs that it ended are shown as running
    forever.
    """

    async def __aenter__(self) -> Self:
        """Open the client; each fetch of due runs returns one per schedule."""
        await super().__aenter__()
        fetch = self._client.get_scheduled_flow_runs_for_deployments

        async def fetch_one_per_schedule(*args: Any, **more: Any) -> list[FlowRun]:
            return await one_per_schedule(self._client, await fetch(*args, **more))

        # The concurrency limit is not enough: late runs beyond the runner's capacity wait for its next fetch, and a
        # short run has ended by then.
        self._client.get_scheduled_flow_runs_for_deployments = fetch_one_per_schedule  # type: ignore[method-assign]
        return self

    async def serve(self) -> None:
        """Run scheduled runs until SIGTERM."""
        loop = asyncio.get_running_loop()
        serving = asyncio.create_task(self.start())
        self._stop_serving: Callable[[], object] = lambda: loop.call_soon_threadsafe(serving.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    def handle_sigterm(self, *_signal: Any) -> None:
        """Stop serving; exit after a time limit, because without a server the shutdown would wait for minutes."""
        last = threading.Timer(LAST_WORDS_S, os._exit, (1,))
        last.daemon = True
        last.start()
        self._stop_serving()


async def _drop_old_schedules(client: PrefectClient, names: set[str]) -> None:
    """Delete the scheduled deployments that are no longer asked for."""
    for deployment in await served(client):
        if deployment.name.endswith("-scheduled") and deployment.name not in names:
            await client.delete_deployment(deployment.id)


async def _say_when_served(home: Home, ids: set[UUID]) -> None:
    async with get_client() as client:
        waiting = set(ids)
        while waiting:
            await asyncio.sleep(0.1)
            with contextlib.suppress(PrefectHTTPStatusError, httpx.HTTPError):
                for deployment_id in sorted(waiting):
                    if (await client.read_deployment(deployment_id)).status == DeploymentStatus.READY:
                        waiting.remove(deployment_id)
        home.served_mark.touch()


async def _tell_of_dropped_events(home: Home) -> None:
    """Emit an event when the server has dropped others."""
    count = home.dropped_events()
    while True:
        await asyncio.sleep(_LOOK_S)
        before, count = count, home.dropped_events()
        if count > before:
            resource = {"prefect.resource.id": "lntx.server", "prefect.resource.name": str(home.root)}
            emit_event(alerts.DROPPED, resource, payload={"count": count - before})


if __name__ == "__main__":
    # Flow runs inherit it: messages that a server stores and shows have no value of a table.
    os.environ["LNTX_VALUES"] = "hidden"
    # Inherited by the runs: those that compute must not keep the server from answering.
    os.nice(_NICE)
    asyncio.run(serve(Home(Path(sys.argv[1]))))
