"""Which server a command reports to, and what happens where there is none. Run: pytest tests/flows/test_servers.py"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commandline import Cli
from prefect.client.orchestration import SyncPrefectClient
from prefect_server import Server

pytestmark = pytest.mark.flow


@pytest.mark.slow
def test_a_configured_server_gets_the_run(process: Cli, client: SyncPrefectClient, server: Server) -> None:
    done = process("run", "--until", "evaluate", "--json", env=server.env)
    assert done.code == 0
    run = client.read_flow_run(done.json["flow_run_id"])
    assert run.state_name == "Completed"
    assert done.json["flow_run_id"] in done.json["flow_run_url"]
    assert done.json["flow_run_url"].startswith(server.url.removesuffix("/api"))
    assert (done.json["verdict"], done.json["learned_weights"]) == ("pass", [3.7])


def test_a_wrong_answer_exits_3_through_prefect(process: Cli, server: Server) -> None:
    done = process("run", "--preset", "tutorial", "--json", env=server.env)
    assert (done.code, done.json["verdict"], done.json["blame"]) == (3, "fail", "training")
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_bad_input_exits_2_through_prefect_in_one_line(process: Cli, server: Server) -> None:
    done = process("run", "--train.learning-rate", "9", env=server.env)
    assert (done.code, done.out) == (2, "")
    assert "below the stable limit" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_a_server_that_refuses_is_an_error_and_no_fallback(process: Cli, server: Server) -> None:
    done = process("run", "--json", env={**server.env, "PREFECT_API_AUTH_STRING": "wrong:word"})
    assert done.code == 1
    assert done.json["error"]["kind"] == "ServerUnreachable"
    assert "refuses (401" in done.json["error"]["message"]


def test_a_server_that_does_not_answer_is_an_error_and_no_fallback(process: Cli) -> None:
    done = process("run", "--json", env={"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert done.code == 1
    assert done.json["error"]["kind"] == "ServerUnreachable"
    assert "does not answer" in done.json["error"]["message"]


def test_without_a_server_an_embedded_one_keeps_its_database_under_the_root(
    process: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    root = tmp_path / "root"
    done = process("run", "--json", "--log-format", "json", "--root", str(root), timeout=240)
    assert done.code == 0, done.err
    assert done.json["verdict"] == "pass"
    assert done.json["flow_run_id"]
    assert done.json["flow_run_url"] is None
    assert "Traceback" not in done.err
    assert "Error" not in done.err
    # One line in JSON for each message.
    messages = [json.loads(line).get("message", "") for line in done.err.splitlines() if line.strip()]
    assert any("Finished in state Completed" in message for message in messages), done.err
    database = root / "artifacts" / ".prefect" / "prefect.db"
    with sqlite3.connect(database) as connection:
        assert connection.execute("select state_name from flow_run").fetchall() == [("Completed",)]
        assert connection.execute("select count(*) from task_run").fetchone() == (4,)
        columns = [row[1] for row in connection.execute("pragma table_info(flow_run)")]
        others = [column for column in columns if column not in ("id", "idempotency_key")]
        connection.execute(
            f"insert into flow_run (id, {', '.join(others)}) "
            f"with recursive n(k) as (select 1 union all select k + 1 from n where k < 1000) "
            f"select printf('00000000-0000-4000-8000-%012d', k), {', '.join(others)} from flow_run, n"
        )
    (load,) = [finding for finding in _findings(process, root) if finding["name"] == "load"]
    assert (load["state"], load["said"].split(":")[0]) == ("note", "1,001 runs began in the last hour")
    assert load["cure"].startswith("lntx down && lntx up --database postgresql+asyncpg://")


def _findings(process: Cli, root: Path) -> list[dict[str, Any]]:
    findings: list[dict[str, Any]] = process("doctor", "--json", "--root", str(root)).json["findings"]
    return findings


@pytest.mark.slow
def test_ctrl_c_ends_a_run_on_an_embedded_server_in_order(tmp_path: Path) -> None:
    """A terminal sends it to all processes of the command: the server must outlive the run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", "--data.num-rows", "300000000", "--root", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Beginning flow run" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    # Without its server, Prefect tries for minutes to send its events.
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "lntx: interrupted: the same command goes on from what is stored"
    assert "Traceback" not in rest
    assert "ConnectError" not in rest
