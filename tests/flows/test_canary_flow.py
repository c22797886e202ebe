"""The canary as a Prefect flow, on a real server. Run: pytest tests/flows/test_canary_flow.py"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flowing import run_flow, run_id, state_names, task_runs
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect_server import Server

from flows.canary import canary
from lntx.canary.suite.results import Canary

pytestmark = pytest.mark.flow


def test_every_case_is_a_task_and_none_is_cached(client: SyncPrefectClient, tmp_path: Path) -> None:
    for _ in range(2):
        state, found = run_flow(canary, tmp_path)
        assert isinstance(found, Canary)
        assert (state.name, state.message, found.verdict) == ("Completed", "1 of 1 right", "pass")
        assert state_names(task_runs(client, state, count=1)) == {"three weights and a bias": "Completed"}
    run = client.read_flow_run(run_id(state))
    assert run.name == "canary, level 1 · PASS"
    assert client.read_flow(run.flow_id).name == "lntx-canary"
    (artifact,) = client.read_artifacts(
        artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["lntx-canary"])), limit=1
    )
    assert "three weights and a bias" in str(artifact.data)


def test_a_wrong_answer_fails_once_and_a_planted_one_is_caught(
    client: SyncPrefectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong answer is never retried away; what was planted to be caught is no failure."""
    import torch

    step = torch.optim.SGD.step

    def scaled(self: torch.optim.SGD) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.grad.mul_(1 + 1e-6)
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", scaled)
        state, found = run_flow(canary, tmp_path)
    assert (state.type.value, state.name, found.blame) == ("FAILED", "WrongAnswer", "training")
    runs = task_runs(client, state, count=1)
    assert {run.run_count for run in runs.values()} == {1}
    assert state_names(runs) == {"three weights and a bias": "WrongAnswer"}
    state, found = run_flow(canary, tmp_path, inject="skipped-step")
    assert (state.type.value, state.name, found.verdict) == ("COMPLETED", "FaultCaught", "fail")


def test_bad_parameters_fail_the_flow_in_words(client: SyncPrefectClient, tmp_path: Path) -> None:
    state, error = run_flow(canary, tmp_path, inject="nix")
    assert (state.name, str(error)) == ("BadInput", "unknown fault nix (--inject list names all)")


@pytest.mark.slow
def test_the_command_runs_the_flow_with_its_tags(server: Server, client: SyncPrefectClient, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "canary", "--json", "--inject", "wrong-bias", "--root", str(tmp_path)],
        env={**os.environ, "PREFECT_API_URL": server.url, "PREFECT_API_AUTH_STRING": server.auth},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["fault"]["blame"] == "export"
    assert found["flow_run_url"].endswith(found["flow_run_id"])
    run = client.read_flow_run(found["flow_run_id"])
    assert set(run.tags) >= {"canary", "injected"}
