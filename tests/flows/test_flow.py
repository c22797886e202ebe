"""Orchestration, on a real Prefect server: what the UI shows, what is retried, what is not.

Run: pytest tests/flows
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from flowing import run_flow, run_id, state_names, task_runs
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, LogFilter, LogFilterFlowRunId
from prefect.flows import Flow
from prefect.utilities.callables import parameter_schema

import lntx
from flows import progress as headway
from flows import tasks
from flows.canary import canary, canary_nodes
from flows.gc import clean
from flows.pipeline import pipeline
from lntx.base.errors import BadInput
from lntx.base.stages import STAGES
from lntx.config.schema import PRESETS, Data, Train
from lntx.runs.run import Run

pytestmark = pytest.mark.flow


def test_a_run_shows_its_stages_and_a_second_one_shows_them_cached(client: SyncPrefectClient, tmp_path: Path) -> None:
    state, run = run_flow(pipeline, tmp_path)
    assert isinstance(run, Run)
    assert (state.name, state.message) == ("Completed", "PASS, 15.95 digits")
    assert run.flow_run_id == str(run_id(state))
    assert state_names(task_runs(client, state)) == dict.fromkeys(STAGES, "Completed")
    assert client.read_flow_run(run_id(state)).name == "y = [3.7]·x, 1,000 rows · PASS 15.95"
    again, second = run_flow(pipeline, tmp_path)
    assert state_names(task_runs(client, again)) == dict.fromkeys(STAGES, "Cached")
    assert {report.state for report in second.stages.values()} == {"cached"}
    # The same cache as without Prefect.
    assert {report.state for report in lntx.run(root=tmp_path).stages.values()} == {"cached"}


def test_a_run_leaves_a_report_with_its_picture_and_its_table(client: SyncPrefectClient, tmp_path: Path) -> None:
    state, _ = run_flow(pipeline, tmp_path)
    artifacts = client.read_artifacts()
    published = {found.key: found.data for found in artifacts if found.flow_run_id == run_id(state)}
    assert set(published) >= {"lntx-report", "lntx-coefficients"}
    text = str(published["lntx-report"])
    assert text.splitlines()[0].endswith("·x, 1,000 rows: PASS")
    assert "![loss by epoch](data:image/png;base64," in text
    assert "| x | 3.7 | 3.7 | 3.7 |" in text


def test_log_lines_of_the_core_are_in_the_ui(client: SyncPrefectClient, tmp_path: Path) -> None:
    state, _ = run_flow(pipeline, tmp_path)
    deadline = time.monotonic() + 30
    while True:
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id(state)])), limit=200)
        lines = [log.message for log in logs if log.name.startswith("lntx")]
        if any("export: artifacts/export/card-" in line for line in lines):
            break
        assert time.monotonic() < deadline, lines
        time.sleep(0.5)
    assert any(line == "train: computing" for line in lines)


def test_a_wrong_answer_fails_the_flow_and_is_not_retried(client: SyncPrefectClient, tmp_path: Path) -> None:
    preset = PRESETS["tutorial"]
    state, run = run_flow(
        pipeline, tmp_path, data=Data.model_validate(preset["data"]), train=Train.model_validate(preset["train"])
    )
    assert (state.name, state.type.value) == ("WrongAnswer", "FAILED")
    assert "too few steps" in (state.message or "")
    assert isinstance(run, Run)
    assert run.verdict == "fail"
    runs = task_runs(client, state)
    assert state_names(runs) == {
        "generate": "Completed", "train": "Completed", "evaluate": "WrongAnswer", "export": "Skipped",
    }  # fmt: skip
    assert {run.run_count for run in runs.values()} == {1}


def test_ranges_are_flow_parameters(client: SyncPrefectClient, tmp_path: Path) -> None:
    run_flow(pipeline, tmp_path)
    state, _ = run_flow(pipeline, tmp_path, only="train", train=Train(learning_rate=0.01))
    assert state_names(task_runs(client, state, count=2)) == {"generate": "Cached", "train": "Completed"}
    state, _ = run_flow(pipeline, tmp_path, until="evaluate", force=["evaluate"])
    states = state_names(task_runs(client, state, count=3))
    assert states == {"generate": "Cached", "train": "Cached", "evaluate": "Completed"}
    state, _ = run_flow(pipeline, tmp_path, from_stage="evaluate", force=["all"])
    assert state_names(task_runs(client, state)) == {
        "generate": "Cached", "train": "Cached", "evaluate": "Completed", "export": "Completed",
    }  # fmt: skip


def test_bad_input_fails_the_flow_by_name(client: SyncPrefectClient, tmp_path: Path) -> None:
    state, error = run_flow(pipeline, tmp_path, train=Train(learning_rate=100.0))
    assert state.name == "BadInput"
    assert "below the stable limit" in (state.message or "")
    assert isinstance(error, BadInput)
    assert state_names(task_runs(client, state, count=2))["train"] == "BadInput"
    state, error = run_flow(pipeline, tmp_path, only="train", until="evaluate")
    assert (state.name, type(error)) == ("BadInput", BadInput)


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (OSError("the disk is busy"), 3),
        (MemoryError(), 3),
        (ValueError("a bug"), 1),
        (FileNotFoundError("gone"), 1),
        (PermissionError("no"), 1),
        (TimeoutError("late"), 1),
    ],
)
def test_only_what_may_pass_by_itself_is_retried(
    client: SyncPrefectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, calls: int
) -> None:
    made = []
    real = tasks.obtain

    def obtain(stage: Any, *rest: Any) -> Any:
        if stage == "train":
            made.append(stage)
            raise error
        return real(stage, *rest)

    monkeypatch.setattr(tasks, "obtain", obtain)
    quick = {stage: task.with_options(retry_delay_seconds=0) for stage, task in tasks.TASKS.items()}
    monkeypatch.setattr("flows.pipeline.TASKS", quick)
    state, came = run_flow(pipeline, tmp_path)
    assert len(made) == calls
    assert state.type.value == "FAILED"
    assert type(came) is type(error)
    assert "evaluate" not in task_runs(client, state, count=2)


def test_a_retry_that_helps_ends_well(
    client: SyncPrefectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError("the disk is busy")]
    real = tasks.obtain

    def obtain(stage: Any, *rest: Any) -> Any:
        if stage == "train" and failures:
            raise failures.pop()
        return real(stage, *rest)

    monkeypatch.setattr(tasks, "obtain", obtain)
    quick = {stage: task.with_options(retry_delay_seconds=0) for stage, task in tasks.TASKS.items()}
    monkeypatch.setattr("flows.pipeline.TASKS", quick)
    state, run = run_flow(pipeline, tmp_path)
    assert run.verdict == "pass"
    assert task_runs(client, state)["train"].run_count == 2


@pytest.mark.parametrize("flow", [pipeline, canary, canary_nodes, clean], ids=lambda flow: flow.name)
def test_a_script_that_serves_itself_can_call_it(flow: Flow[..., Any]) -> None:
    """Prefect pickles the script's flow with the flows that it calls."""
    copy = cloudpickle.loads(cloudpickle.dumps(flow))
    assert set(copy.validate_parameters({})) == set(parameter_schema(flow).properties)


def test_every_field_of_the_run_form_is_described() -> None:
    schema = parameter_schema(pipeline).model_dump()
    for name, field in schema["properties"].items():
        # Where both would say the same, the section says it.
        section = schema["definitions"].get(field.get("$ref", "").rpartition("/")[2], {})
        assert field.get("description") or section.get("description"), name
    for model, definition in schema["definitions"].items():
        for name, field in definition.get("properties", {}).items():
            assert field.get("description"), f"{model}.{name}"
    assert set(schema["properties"]) == {
        "only", "from_stage", "until", "force", "data", "train", "evaluate", "export",
    }  # fmt: skip


def test_a_long_stage_shows_how_far_it_is(
    client: SyncPrefectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headway, "_LONG_S", 0.0)
    monkeypatch.setattr(headway, "_EVERY_S", 0.0)
    state, _ = run_flow(pipeline, tmp_path, data=Data(num_rows=1000), until="train")
    shown = client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id(state)]))
    )
    told = {one.key: (one.type, one.data, one.description) for one in shown if one.type == "progress"}
    assert told == {
        "lntx-generate-progress": ("progress", 100.0, "done: 1,000 of 1,000 (rows)"),
        "lntx-train-progress": ("progress", 100.0, "done: 3 of 1,000 (epochs, at most)"),
    }
