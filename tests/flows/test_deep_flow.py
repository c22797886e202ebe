"""The deep canary as a Prefect flow, on a real server. Run: pytest tests/flows/test_deep_flow.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flowing import run_flow, run_id, state_names, task_runs
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.canary import canary
from lntx.canary.operators.nets import pairs
from lntx.canary.operators.suite import OperatorCase, OperatorSuite
from lntx.canary.suite.results import Canary

pytestmark = pytest.mark.flow


@pytest.mark.slow
def test_every_network_is_a_task(client: SyncPrefectClient, tmp_path: Path) -> None:
    state, found = run_flow(canary, tmp_path, deep=True)
    assert isinstance(found, Canary)
    assert (state.type.value, state.name, found.verdict) == ("COMPLETED", "Proved", "pass")
    names = state_names(task_runs(client, state, count=len(pairs())))
    states = {case.name: "Completed" for case in found.cases} | {case.name: "NotRun" for case in found.not_run}
    assert names == states
    assert client.read_flow(client.read_flow_run(run_id(state)).flow_id).name == "lntx-canary"
    (artifact,) = client.read_artifacts(
        artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["lntx-canary-deep"])), limit=1
    )
    assert "share of the rounding bound" in str(artifact.data)
    assert list((tmp_path / "artifacts" / "canary").glob("deep-*.json"))


def test_a_planted_fault_is_caught_and_bad_parameters_are_told(client: SyncPrefectClient, tmp_path: Path) -> None:
    state, found = run_flow(canary, tmp_path, deep=True, inject="betas")
    assert (state.type.value, state.name, found.operator) == ("COMPLETED", "FaultCaught", "settings")
    state, error = run_flow(canary, tmp_path, deep=True, inject="nix")
    assert (state.name, str(error)) == ("BadInput", "unknown fault nix (--deep --inject list names all)")


def test_a_wrong_answer_fails(client: SyncPrefectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted from outside: the flow ends as a wrong answer, which raises the alert, and names the loss."""
    from torch.nn import functional

    right = functional.cross_entropy

    def wrong(scores: Any, targets: Any, *, label_smoothing: float) -> Any:
        return right(scores, targets, label_smoothing=label_smoothing + 0.01)

    case = OperatorCase(net="LSTM", mode="float32", seed=20)
    monkeypatch.setattr(OperatorSuite, "cases", lambda self, repetition: [case])
    monkeypatch.setattr(functional, "cross_entropy", wrong)
    state, found = run_flow(canary, tmp_path, deep=True)
    assert (state.type.value, state.name, found.blame) == ("FAILED", "WrongAnswer", "training")
    assert found.operator == "loss"
    assert set(state_names(task_runs(client, state, count=1)).values()) == {"WrongAnswer"}
