"""Schedules: they fire, survive a restart, and do not pile up. Run: pytest tests/service/test_schedules.py"""

from __future__ import annotations

import datetime
import json
import os
import signal
import sqlite3
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from driving import lntx
from service import Service, children, process_of, serving, up, wait

from flows.server.home import Home

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(900)]

EVERY_S = 10
LONG = ("--train.tolerance", "0", "--train.max-epochs", "1000000", "--train.gradient", "autograd",
        "--train.precondition", "none", "--data.num-rows", "20000", "--data.noise", "0.5")  # fmt: skip


def test_they_survive_a_restart_and_do_not_pile_up(tmp_path: Path) -> None:
    root = tmp_path / "root"
    settings = ("--interval", str(EVERY_S), "--no-canary", "--data.num-rows", "200")
    with serving(root, *settings) as service:
        wait(lambda: len(service.runs("pipeline-scheduled", "COMPLETED")) >= 2)
        down = datetime.datetime.now(datetime.UTC).isoformat()
        assert lntx("down", root=root).code == 0
        # Runs that nobody starts become late; six are due meanwhile.
        time.sleep(6 * EVERY_S)
        back = datetime.datetime.now(datetime.UTC).isoformat()
        again = up(root, *settings, port=service.port)
        assert again.code == 0, again.err
        wait(lambda: len([run for run in _run(service) if run["expected_start_time"] > back]) >= 2)
        late = [run for run in _run(service) if down < run["expected_start_time"] < back]
        assert len(late) == 1, "of late runs one is of use"


def test_of_hundreds_of_late_runs_one_executes(tmp_path: Path) -> None:
    """More than what serves fetches at once: an outage of hours with a run a minute."""
    root = tmp_path / "root"
    settings = ("--interval", "3600", "--no-canary", "--data.num-rows", "200")
    with serving(root, *settings) as service:
        assert lntx("down", root=root).code == 0
        _insert_late(root, 300)
        again = up(root, *settings, port=service.port)
        assert again.code == 0, again.err
        wait(lambda: _late(root) == {"COMPLETED": 1, "CANCELLED": 299})


def _late(root: Path) -> dict[str, int]:
    """The number of late runs by type of state; one that has started has another name."""
    with sqlite3.connect(root / "artifacts" / ".prefect" / "prefect.db") as database:
        query = "SELECT state_type, count(*) FROM flow_run WHERE idempotency_key LIKE 'late-%' GROUP BY 1"
        return dict(database.execute(query).fetchall())


def _insert_late(root: Path, count: int) -> None:
    """Copy the next run of the schedule, a minute earlier each, into the database of a server that is down."""
    with sqlite3.connect(root / "artifacts" / ".prefect" / "prefect.db") as database:
        database.row_factory = sqlite3.Row
        query = (
            "SELECT flow_run.* FROM flow_run JOIN deployment ON deployment.id = deployment_id WHERE deployment.name = ?"
        )
        run = dict(database.execute(f"{query} LIMIT 1", ("pipeline-scheduled",)).fetchone())
        state = dict(database.execute("SELECT * FROM flow_run_state WHERE id = ?", (run["state_id"],)).fetchone())
        for k in range(count):
            due = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=k + 2)
            new, its_state = str(uuid.uuid4()), str(uuid.uuid4())
            details = {**json.loads(state["state_details"]), "scheduled_time": due.isoformat(), "flow_run_id": new}
            time_text = due.strftime("%Y-%m-%d %H:%M:%S.%f")
            times = {"expected_start_time": time_text, "next_scheduled_start_time": time_text}
            _insert(
                database,
                "flow_run",
                {**run, **times, "id": new, "state_id": None, "name": f"late-{k}", "idempotency_key": f"late-{k}"},
            )
            _insert(
                database,
                "flow_run_state",
                {**state, "id": its_state, "flow_run_id": new, "state_details": json.dumps(details)},
            )
            database.execute("UPDATE flow_run SET state_id = ? WHERE id = ?", (its_state, new))


def _insert(database: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    places = ", ".join("?" * len(row))
    database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", [*row.values()])


def test_what_runs_when_it_is_told_to_end_is_cancelled_and_blocks_nothing(tmp_path: Path) -> None:
    """Nobody is told of a crash, nothing stays pending or running for good, and the next run starts at once."""
    root = tmp_path / "root"
    with serving(root, "--interval", str(EVERY_S), "--no-canary", *LONG) as service:
        wait(lambda: len(service.runs("pipeline-scheduled", "RUNNING")) == 1)
        (running,) = service.runs("pipeline-scheduled", "RUNNING")
        assert lntx("down", root=root).code == 0
        assert (
            up(root, "--interval", str(EVERY_S), "--no-canary", "--data.num-rows", "200", port=service.port).code == 0
        )
        wait(lambda: len(service.runs("pipeline-scheduled", "COMPLETED")) >= 1)
        state = service.run(running["id"])["state"]
        assert (state["type"], state["message"]) == ("CANCELLED", "lntx down ended it")
        assert service.told_so_far() == []


def test_a_killed_server_comes_back_and_killed_watchers_leave_nothing(tmp_path: Path) -> None:
    """Nobody takes a server whose watcher was killed for up, and its processes and runs end with it."""
    root = tmp_path / "root"
    with serving(root, "--interval", str(EVERY_S), "--canary-cron", "0 3 * * *", *LONG) as service:
        state = Home(root).running()
        assert state is not None
        watched = children(state.pid)
        assert len(watched) == 2
        os.kill(watched[0], signal.SIGKILL)
        wait(lambda: len(children(state.pid)) == 2 and watched[0] not in children(state.pid))
        wait(lambda: httpx.get(f"{service.url}/api/health").status_code == 200)
        wait(lambda: len(service.runs("pipeline-scheduled", "RUNNING")) == 1)
        (running,) = service.runs("pipeline-scheduled", "RUNNING")
        left = [*children(state.pid), process_of(running["id"])]
        os.kill(state.pid, signal.SIGKILL)
        wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), 60)
        assert Home(root).running() is None, "a state that a killed one left is none"
        assert (
            up(
                root,
                "--interval",
                str(EVERY_S),
                "--canary-cron",
                "0 3 * * *",
                "--data.num-rows",
                "200",
                port=service.port,
            ).code
            == 0
        )
        wait(lambda: len(service.runs("pipeline-scheduled", "COMPLETED")) >= 1, 120)
        assert service.run(running["id"])["state"]["type"] in {"CRASHED", "CANCELLED"}


def _run(service: Service) -> list[dict[str, Any]]:
    """The scheduled runs that were begun."""
    return service.runs("pipeline-scheduled", "RUNNING", "COMPLETED", "FAILED", "CRASHED")
