"""The deployments of prefect.yaml on a work pool, run by a worker. Run: pytest tests/flows/test_pool.py"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect_server import Server

from flows.server.serve import deployments
from flows.server.settings import ServerOptions

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(600)]

PROJECT = Path(__file__).parents[2]


def _prefect(*words: str, env: dict[str, str], cwd: Path) -> None:
    command = [sys.executable, "-m", "prefect", *words]
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_worker_runs_the_deployments(server: Server, client: SyncPrefectClient, tmp_path: Path) -> None:
    """From another folder, by name: nothing is fetched."""
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(PROJECT / "prefect.yaml", tmp_path)
    env = {**os.environ, **server.env, "PREFECT_HOME": str(tmp_path / "home"), "LNTX_ROOT": str(root)}
    _prefect("work-pool", "create", "lntx", "--type", "process", env=env, cwd=tmp_path)
    _prefect("--no-prompt", "deploy", "--all", env=env, cwd=tmp_path)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "lntx"]
    log = (tmp_path / "worker.log").open("w")
    worker = subprocess.Popen(command, env=env, cwd="/", stdout=log, stderr=subprocess.STDOUT)
    try:
        for name, states in (
            (
                "pipeline",
                {"generate": "Completed", "train": "Completed", "evaluate": "Completed", "export": "Completed"},
            ),
            ("train", {"generate": "Cached", "train": "Cached"}),
        ):
            deployment = client.read_deployment_by_name(f"lntx/{name}")
            run = client.create_flow_run_from_deployment(deployment.id)
            deadline = time.monotonic() + 180
            while not (found := client.read_flow_run(run.id)).state or not found.state.is_final():
                assert time.monotonic() < deadline, (tmp_path / "worker.log").read_text()
                time.sleep(0.5)
            assert found.state.name == "Completed", found.state.message
            deadline = time.monotonic() + 30
            while _states(client, run.id) != states:
                assert time.monotonic() < deadline, _states(client, run.id)
                time.sleep(0.5)
    finally:
        worker.terminate()
        worker.wait(60)
        log.close()


def _states(client: SyncPrefectClient, run_id: object) -> dict[str, str]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
    return {run.name: str(run.state and run.state.name) for run in runs}


async def _served() -> dict[str, tuple[object, ...]]:
    options = ServerOptions(cron="0 6 * * *", deep_cron="0 4 * * *")
    made = await deployments(options)
    return {one.name: (one.entrypoint, one.parameters.get("only"), sorted(one.tags or [])) for one in made}


def test_they_are_those_that_up_serves() -> None:
    import asyncio

    said = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    pooled = {
        one["name"]: (one["entrypoint"], one.get("parameters", {}).get("only"), sorted(one["tags"])) for one in said
    }
    assert pooled == asyncio.run(_served())
