"""The flows of examples/ on a real server: run, deployed and served. Run: pytest tests/flows/test_examples.py"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from driving import until
from flowing import run_flow
from own_check import checked
from own_loader import houses
from own_publisher import publish, published
from pool import beside, prefect, run_deployed
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect_server import Server, free_port

import lntx
from lntx.canary.trainings.cases import fixed_cases
from lntx.canary.trainings.faults import FAULTS
from lntx.config.schema import Data
from lntx.runs.records import read_pointer, read_run
from lntx.runs.run import Run
from lntx.store.store import Store

EXAMPLES = Path(__file__).parents[2] / "examples"
FLOWS = sorted(EXAMPLES.glob("own_*.py"))

ROWS = [(54, 2), (71, 3), (90, 3), (112, 4), (130, 5), (65, 2)]


def _database(path: Path, rows: Iterable[tuple[int, int, float]]) -> str:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE IF EXISTS houses")
        connection.execute("CREATE TABLE houses (id INTEGER PRIMARY KEY, area REAL, rooms INTEGER, price REAL)")
        connection.executemany("INSERT INTO houses (area, rooms, price) VALUES (?, ?, ?)", rows)
    return str(path)


def _last(root: Path) -> Run:
    return read_run(Store(root))


def _states(run: Run) -> set[str]:
    return {report.state for report in run.stages.values()}


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _in_use(root: Path) -> list[Path]:
    return [*Store(root).locks.glob("*.using")]


def test_each_is_short() -> None:
    assert len(FLOWS) == 3
    assert max(len(path.read_text(encoding="utf-8").splitlines()) for path in FLOWS) < 40


@pytest.mark.flow
def test_the_loader_fits_the_rows_of_the_database(client: SyncPrefectClient, tmp_path: Path) -> None:
    database = _database(tmp_path / "houses.db", [(area, rooms, 3 * area + 10 * rooms + 7) for area, rooms in ROWS])
    state, _ = run_flow(houses, tmp_path, database=database)
    assert state.is_completed(), state.message
    first = _last(tmp_path)
    assert (first.verdict, first.features, first.target) == ("pass", ("area", "rooms"), "price")
    assert (first.reference_weights, first.reference_bias) == ((3, 10), 7)
    assert first.learned_weights == pytest.approx((3, 10), rel=1e-12)
    assert first.learned_bias == pytest.approx(7, rel=1e-12)

    run_flow(houses, tmp_path, database=database)
    assert _last(tmp_path).run != first.run
    assert _states(_last(tmp_path)) == {"cached"}

    _database(tmp_path / "houses.db", [(area, rooms, 2 * area + 7) for area, rooms in ROWS])
    run_flow(houses, tmp_path, database=database)
    assert _last(tmp_path).reference_weights == (2, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"artifacts", "data", "houses.db", "houses.parquet"}


@pytest.mark.flow
def test_the_check_stops_a_model_before_its_export(client: SyncPrefectClient, tmp_path: Path) -> None:
    state, error = run_flow(checked, tmp_path, data=Data(weights=(3.7, -1.2)))
    assert state.is_failed()
    assert "weights that must not be negative: {'x2': -1." in (state.message or "")
    assert isinstance(error, ValueError)
    # What was refused is right: its run is told, without exports.
    assert (_last(tmp_path).verdict, _last(tmp_path).exports) == ("pass", {})
    assert read_pointer(Store(tmp_path)) is None
    assert not _files(tmp_path / "artifacts" / "export")
    assert not _in_use(tmp_path)

    state, _ = run_flow(checked, tmp_path, data=Data(weights=(3.7, 1.2)))
    assert state.is_completed(), state.message
    run = _last(tmp_path)
    assert {stage: report.state for stage, report in run.stages.items()} == {
        "generate": "cached", "train": "cached", "evaluate": "cached", "export": "ran",
    }  # fmt: skip
    pointer = read_pointer(Store(tmp_path))
    assert pointer is not None
    assert pointer.run == run.run


@pytest.mark.flow
def test_the_publisher_copies_the_export(client: SyncPrefectClient, tmp_path: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "served" / "models"
    root.mkdir()
    _, current = run_flow(published, root, folder=folder)
    export = root / _last(root).exports["safetensors"]
    assert current == folder / "current"
    assert current.readlink() == Path(export.name)
    assert current.read_bytes() == export.read_bytes()
    # Who may read the export may read what is served.
    assert current.stat().st_mode == export.stat().st_mode

    run_flow(published, root, folder=folder)
    assert _states(_last(root)) == {"cached"}
    assert current.read_bytes() == export.read_bytes()

    run_flow(published, root, folder=folder, data=Data(weights=(1.5,)))
    later = root / _last(root).exports["safetensors"]
    assert current.readlink() == Path(later.name)
    assert sorted(path.name for path in folder.iterdir()) == sorted(["current", export.name, later.name])
    assert (folder / export.name).read_bytes() == export.read_bytes()


def test_publishing_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNTX_ROOT", str(tmp_path))
    run = lntx.run(root=tmp_path)
    export, folder = tmp_path / run.exports["safetensors"], tmp_path / "models"
    # Half of a copy, as of a program that wrote in place, and something in the way of the link.
    (folder / "current").mkdir(parents=True)
    (folder / export.name).write_bytes(export.read_bytes()[:10])
    with pytest.raises(IsADirectoryError):
        publish.fn(run, folder)
    assert {path.name for path in folder.iterdir()} == {"current", export.name}
    (folder / "current").rmdir()
    publish.fn(run, folder)
    assert (folder / "current").read_bytes() == export.read_bytes()
    assert {path.name for path in folder.iterdir()} == {"current", export.name}


@pytest.mark.flow
def test_a_wrong_answer_fails_the_flow_and_is_not_published(client: SyncPrefectClient, tmp_path: Path) -> None:
    run_flow(published, tmp_path, folder=tmp_path / "models")
    before = (tmp_path / "models" / "current").readlink()
    with FAULTS["wrong-weight"].planted(fixed_cases(1)[0]):
        state, found = run_flow(published, tmp_path, folder=tmp_path / "models", data=Data(weights=(1.5,)))
    assert state.is_failed()
    assert "WrongAnswer: export: " in (state.message or "")
    assert isinstance(found, Run)
    assert (found.verdict, found.blame) == ("fail", "export")
    assert (tmp_path / "models" / "current").readlink() == before
    assert len(_files(tmp_path / "models")) == 2
    assert not _in_use(tmp_path)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A copy of the folder, as a user would make it."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__")))


def _environment(server: Server, here: Path) -> dict[str, str]:
    return {**_beside_python(here), **server.env}


def _beside_python(here: Path) -> dict[str, str]:
    """An environment in which commands are those of this Python's environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PREFECT_HOME": str(here.parent / "home"), "PATH": path}


def _shell(script: str, env: dict[str, str], cwd: Path) -> None:
    """Run a script, and end what it leaves in the background."""
    log = cwd.parent / "shell.log"
    with log.open("w") as lines:
        process = subprocess.Popen(
            ["bash", "-e", "-c", script], env=env, cwd=cwd, stdout=lines, stderr=lines, start_new_session=True
        )
        try:
            assert process.wait(timeout=400) == 0, script + log.read_text()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)


@pytest.mark.flow
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_of_the_page(server: Server, here: Path) -> None:
    page = (here / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ (python .*)$", page.split("## Deploy")[0], re.M)
    _shell("\n".join(commands), _environment(server, here), here)
    assert _last(here).verdict == "pass"
    assert {path.name for path in here.iterdir()} >= {"houses.db", "houses.parquet", "models"}
    assert (here / "models" / "current").is_file()


@pytest.mark.flow
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_job_starts_a_server_and_runs_the_flows_on_it(here: Path) -> None:
    (job,) = yaml.safe_load((here / "ci.yml").read_text())["jobs"].values()
    steps = [step["run"] for step in job["steps"] if "run" in step]
    assert steps[:2] == ["pip install torch==2.13.0", "pip install lntx"]
    port = free_port()
    env = {**_beside_python(here), "PREFECT_SERVER_API_PORT": str(port), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    assert job["env"] == {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}
    _shell("\n".join(steps[2:]), {**env, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}, here)
    assert (here / "models" / "current").is_file()
    assert (here / "canary.xml").is_file()


@pytest.mark.flow
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_runs_the_deployments(server: Server, client: SyncPrefectClient, here: Path) -> None:
    env, log = _environment(server, here), here.parent / "worker.log"
    _database(here / "houses.db", [(area, rooms, 3 * area + 10 * rooms + 7) for area, rooms in ROWS])
    prefect("work-pool", "create", "mine", "--type", "process", env=env, cwd=here)
    prefect("--no-prompt", "deploy", "--all", env=env, cwd=here)
    with beside("-m", "prefect", "worker", "start", "--pool", "mine", env=env, cwd=Path("/"), log=log):
        for name in ("houses/houses", "checked/checked", "published/published"):
            found = run_deployed(client, name, log)
            assert found.state is not None
            assert found.state.is_completed(), found.state.message
    assert (here / "models" / "current").is_file()
    assert _last(here).verdict == "pass"


@pytest.mark.flow
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_loader_serves_itself(server: Server, client: SyncPrefectClient, here: Path) -> None:
    env, log = _environment(server, here), here.parent / "serve.log"
    _database(here / "houses.db", [(area, rooms, 3 * area + 10 * rooms + 7) for area, rooms in ROWS])
    with beside("own_loader.py", "houses.db", "--serve", env=env, cwd=here, log=log):
        until(lambda: _is_deployed(client, "houses/houses", str(here)), seconds=120)
        found = run_deployed(client, "houses/houses", log)
    assert found.state is not None
    assert found.state.is_completed(), found.state.message
    assert _last(here).reference_weights == (3, 10)


def _is_deployed(client: SyncPrefectClient, name: str, folder: str) -> bool:
    """Whether a deployment is there, and not one that another test has left."""
    try:
        found: Any = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return False
    return found.work_pool_name is None
