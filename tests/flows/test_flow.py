"""Orchestration, on a real Prefect server: what the UI shows, what is retried, what is not.

Run: pytest tests/flows
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import State, TaskRun
from prefect.utilities.callables import parameter_schema

import lntx
from flows import headway, tasks
from flows.pipeline import pipeline
from lntx.config import PRESETS, Data, Train
from lntx.errors import BadInput
from lntx.runs import Run
from lntx.selection import STAGES

pytestmark = pytest.mark.flow


def _flow(root: Path, **parameters: Any) -> tuple[State[Any], Any]:
    async def go() -> tuple[State[Any], Any]:
        state = await pipeline(root=str(root), return_state=True, **parameters)
        return state, await state.aresult(raise_on_failure=False)

    return asyncio.run(go())


def _task_runs(client: SyncPrefectClient, state: State[Any]) -> dict[str, TaskRun]:
    """The task runs of a flow run by name, once the server has them all in their last state."""
    deadline = time.monotonic() + 30
    while True:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        runs = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[_run_id(state)])),
        )
        if runs and all(run.state is not None and run.state.is_final() for run in runs):
            return {run.name: run for run in runs}
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _run_id(state: State[Any]) -> UUID:
    assert state.state_details.flow_run_id is not None
    return UUID(str(state.state_details.flow_run_id))


def _names(runs: dict[str, TaskRun]) -> dict[str, str]:
    return {name: run.state.name for name, run in runs.items() if run.state is not None and run.state.name is not None}


def test_a_run_shows_its_stages_and_a_second_one_shows_them_cached(client: SyncPrefectClient, tmp_path: Path) -> None:
    state, run = _flow(tmp_path)
    assert isinstance(run, Run)
    assert (state.name, state.message) == ("Completed", "PASS, 15.95 digits")
    assert run.flow_run_id == str(_run_id(state))
    assert _names(_task_runs(client, state)) == dict.fromkeys(STAGES, "Completed")
    assert client.read_flow_run(_run_id(state)).name == "y = [3.7]·x, 1,000 rows"
    again, second = _flow(tmp_path)
    assert _names(_task_runs(client, again)) == dict.fromkeys(STAGES, "Cached")
    assert {report.state for report in second.stages.values()} == {"cached"}
    # The same cache as without Prefect.
    assert {report.state for report in lntx.run(root=tmp_path).stages.values()} == {"cached"}


def test_a_run_leaves_a_report_with_its_picture_and_its_table(client: SyncPrefectClient, tmp_path: Path) -> None:
    state, _ = _flow(tmp_path)
    artifacts = client.read_artifacts()
    reports = [found for found in artifacts if found.flow_run_id == _run_id(state)]
    assert [found.key for found in reports] == ["lntx-report"]
    text = str(reports[0].data)
    assert text.startswith("# PASS")
    assert "![loss by epoch](data:image/png;base64," in text
    assert "| x | 3.7 | 3.7 | 3.7 |" in text


def test_log_lines_of_the_core_are_in_the_ui(client: SyncPrefectClient, tmp_path: Path) -> None:
    state, _ = _flow(tmp_path)
    deadline = time.monotonic() + 30
    while True:
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[_run_id(state)])), limit=200)
        lines = [log.message for log in logs if log.name.startswith("lntx")]
        if any("export: artifacts/export/card-" in line for line in lines):
            break
        assert time.monotonic() < deadline, lines
        time.sleep(0.5)
    assert any(line == "train: computing" for line in lines)


def test_a_wrong_answer_fails_the_flow_and_is_not_retried(client: SyncPrefectClient, tmp_path: Path) -> None:
    preset = PRESETS["tutorial"]
    state, run = _flow(tmp_path, data=Data.model_validate(preset["data"]), train=Train.model_validate(preset["train"]))
    assert (state.name, state.type.value) == ("WrongAnswer", "FAILED")
    assert "too few steps" in (state.message or "")
    assert isinstance(run, Run)
    assert run.verdict == "fail"
    runs = _task_runs(client, state)
    assert _names(runs) == {
        "generate": "Completed", "train": "Completed", "evaluate": "WrongAnswer", "export": "Skipped",
    }  # fmt: skip
    assert {run.run_count for run in runs.values()} == {1}


def test_ranges_are_flow_parameters(client: SyncPrefectClient, tmp_path: Path) -> None:
    _flow(tmp_path)
    state, _ = _flow(tmp_path, only="train", train=Train(learning_rate=0.01))
    assert _names(_task_runs(client, state)) == {"generate": "Cached", "train": "Completed"}
    state, _ = _flow(tmp_path, until="evaluate", force=["evaluate"])
    assert _names(_task_runs(client, state)) == {"generate": "Cached", "train": "Cached", "evaluate": "Completed"}
    state, _ = _flow(tmp_path, from_stage="evaluate", force=["all"])
    assert _names(_task_runs(client, state)) == {
        "generate": "Cached", "train": "Cached", "evaluate": "Completed", "export": "Completed",
    }  # fmt: skip


def test_bad_input_fails_the_flow_by_name(client: SyncPrefectClient, tmp_path: Path) -> None:
    state, error = _flow(tmp_path, train=Train(learning_rate=100.0))
    assert state.name == "BadInput"
    assert "below the stable limit" in (state.message or "")
    assert isinstance(error, BadInput)
    assert _names(_task_runs(client, state))["train"] == "BadInput"
    state, error = _flow(tmp_path, only="train", until="export")
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
    state, came = _flow(tmp_path)
    assert len(made) == calls
    assert state.type.value == "FAILED"
    assert type(came) is type(error)
    assert "evaluate" not in _task_runs(client, state)


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
    state, run = _flow(tmp_path)
    assert run.verdict == "pass"
    assert _task_runs(client, state)["train"].run_count == 2


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
        "data", "train", "evaluate", "export", "from_stage", "until", "only", "force", "root",
    }  # fmt: skip


def test_tasks_have_timeouts_and_titles() -> None:
    for stage, task in tasks.TASKS.items():
        assert task.timeout_seconds
        assert task.task_run_name == stage
        assert " " in task.name


def test_a_long_stage_shows_how_far_it_is(
    client: SyncPrefectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headway, "_LONG_S", 0.0)
    monkeypatch.setattr(headway, "_EVERY_S", 0.0)
    state, _ = _flow(tmp_path, data=Data(num_rows=1000), until="train")
    shown = client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[_run_id(state)]))
    )
    told = {one.key: (one.type, one.data, one.description) for one in shown if one.type == "progress"}
    assert told == {
        "lntx-generate-progress": ("progress", 100.0, "done"),
        "lntx-train-progress": ("progress", 100.0, "done"),
    }
