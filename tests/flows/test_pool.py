"""The deployments of prefect.yaml on a work pool, run by a worker. Run: pytest tests/flows/test_pool.py"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from pool import beside, prefect, run_deployed
from prefect.client.orchestration import SyncPrefectClient
from prefect_server import Server

from flows.server.serve import deployments
from flows.server.settings import ServerOptions

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(600)]

PROJECT = Path(__file__).parents[2]


def test_a_worker_runs_the_deployments(server: Server, client: SyncPrefectClient, tmp_path: Path) -> None:
    """From another folder, by name: nothing is fetched."""
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(PROJECT / "prefect.yaml", tmp_path)
    env = {**os.environ, **server.env, "PREFECT_HOME": str(tmp_path / "home"), "LNTX_ROOT": str(root)}
    prefect("work-pool", "create", "lntx", "--type", "process", env=env, cwd=tmp_path)
    prefect("--no-prompt", "deploy", "--all", env=env, cwd=tmp_path)
    log = tmp_path / "worker.log"
    with beside("-m", "prefect", "worker", "start", "--pool", "lntx", env=env, cwd=Path("/"), log=log):
        for name, states in (
            (
                "pipeline",
                {"generate": "Completed", "train": "Completed", "evaluate": "Completed", "export": "Completed"},
            ),
            ("train", {"generate": "Cached", "train": "Cached"}),
        ):
            found = run_deployed(client, f"lntx/{name}", log)
            assert found.state is not None
            assert found.state.name == "Completed", found.state.message
            deadline = time.monotonic() + 30
            while _states(client, found.id) != states:
                assert time.monotonic() < deadline, _states(client, found.id)
                time.sleep(0.5)


def _states(client: SyncPrefectClient, run_id: object) -> dict[str, str]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
    return {run.name: str(run.state and run.state.name) for run in runs}


async def _served() -> dict[str, tuple[object, ...]]:
    options = ServerOptions(cron="0 6 * * *", deep_cron="0 4 * * *")
    made = await deployments(options)
    return {one.name: (one.entrypoint, _differing(one.parameters), sorted(one.tags or [])) for one in made}


def _differing(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that tell deployments of one flow from each other."""
    return {name: parameters[name] for name in ("only", "deep", "blind") if name in parameters}


def test_they_are_those_that_up_serves() -> None:
    import asyncio

    said = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    pooled = {
        one["name"]: (one["entrypoint"], _differing(one.get("parameters", {})), sorted(one["tags"])) for one in said
    }
    assert pooled == asyncio.run(_served())
