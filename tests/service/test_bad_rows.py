"""What a client of the API can store to keep the service down: refused, and where it is there, survived.

Run: pytest tests/service/test_bad_rows.py
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from driving import lntx
from service import Service, serving, up

from flows.server.home import Home

pytestmark = [pytest.mark.flow, pytest.mark.timeout(600)]

_HUGE = '{"train": {"max_epochs": 1000000000000000000000000000000}}'
_BROKEN = '{"data": {"path": "\\ud800"}}'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deployment", "parameters"),
    [
        ("pipeline", {"train": {"max_epochs": 10**30}}),
        ("pipeline", {"data": {"bias": 10**30}}),
        ("pipeline", {"data": {"weights": [10**30]}}),
        ("pipeline", {"data": {"path": "x" * 5000, "target": "y"}}),
        ("pipeline", {"evaluate": {"shift_limit": 10**30}}),
        ("pipeline", {"force": ["train"] * 6}),
        ("pipeline", {"root": "/"}),
        ("pipeline", {"evil": 10**30}),
        ("train", {"train": {"max_epochs": 3.5}}),
        ("canary", {"repeat": 10**30}),
        ("canary", {"seed": 10**30}),
        ("canary", {"inject": "x" * 200}),
        ("canary", {"root": "/"}),
        ("gc-scheduled", {"keep": 10**30}),
        ("gc-scheduled", {"keep": -1}),
        ("gc-scheduled", {"older_than_days": 10**30}),
        ("gc-scheduled", {"root": "/"}),
    ],
)
def test_the_server_refuses_what_it_could_not_give_back(
    service: Service, deployment: str, parameters: dict[str, Any]
) -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        service.start(deployment, **parameters)
    assert caught.value.response.status_code == 409
    assert isinstance(service.ask("/flow_runs/filter"), list)


@pytest.mark.slow
def test_a_table_outside_the_root_is_not_read(service: Service, tmp_path: Path) -> None:
    """Its content is not in the state's message either, nor by way of a link."""
    outside = tmp_path / "secret.csv"
    outside.write_text("s3cr3t,y\n1,2\n")
    link = service.root / "data" / "link.csv"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    for path in (outside, link, "/etc/shadow", "../../../../etc/passwd"):
        run = service.ended(service.start("pipeline", data={"path": str(path), "target": "y"}))
        assert run["state"]["name"] == "BadInput"
        assert "--allow-folder" in run["state"]["message"]
        assert "s3cr3t" not in str(run)
    link.unlink()


@pytest.mark.slow
def test_up_and_down_go_on_with_a_run_that_cannot_be_read(tmp_path: Path) -> None:
    """In the database in states of every kind: each is named, ended, and no bar to the others."""
    root = tmp_path / "root"
    later = "2100-01-01T00:00:00+00:00"
    with serving(root, "--no-canary") as service:
        pipeline = service.deployment("pipeline")["id"]
        made = {
            kind: service.ask(
                f"/deployments/{pipeline}/create_flow_run",
                {"state": {"type": "SCHEDULED", "state_details": {"scheduled_time": later}}},
            )["id"]
            for kind in ("huge and running", "broken and running", "broken and scheduled", "huge and scheduled")
        }
        for kind, run_id in made.items():
            if kind.endswith("running"):
                service.ask(f"/flow_runs/{run_id}/set_state", {"state": {"type": "RUNNING"}, "force": True})
        database = root / "artifacts" / ".prefect" / "prefect.db"
        with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            for kind, run_id in made.items():
                row = _HUGE if kind.startswith("huge") else _BROKEN
                connection.execute("UPDATE flow_run SET parameters = ? WHERE id = ?", (row, run_id))
        port = service.port
        assert lntx("down", root=root).code == 0
        again = up(root, "--no-canary", port=port)
        assert again.code == 0, again.err
        log = (Home(root).logs / "runner.log").read_text()
        for kind, run_id in made.items():
            assert kind.endswith("running") or f"flow run {run_id} cannot be read" in log or kind.startswith("huge")
        assert f"prefect flow-run delete {made['broken and scheduled']}" in log
        with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
            states = dict(connection.execute("SELECT id, state_type FROM flow_run"))
        ended = {kind: states[run_id] for kind, run_id in made.items()}
        assert ended == {
            "huge and running": "CANCELLED",
            "broken and running": "CANCELLED",
            "broken and scheduled": "CANCELLED",
            "huge and scheduled": "CANCELLED",
        }
        assert service.ended(service.start("pipeline"))["state"]["name"] == "Completed"


def test_a_database_that_is_none_is_said_before_anything_starts(tmp_path: Path) -> None:
    root = tmp_path / "root"
    home = root / "artifacts" / ".prefect"
    home.mkdir(parents=True)
    (home / "prefect.db").write_bytes(b"not a database" * 100)
    for words in (("run", "--json"), ("up", "--no-canary")):
        done = lntx(*words, root=root, env={"PREFECT_HOME": ""} if words[0] == "run" else None)
        assert done.code == 1
        assert "is not a database: move it away" in done.err
        assert "Traceback" not in done.err
    assert (home / "prefect.db").read_bytes() == b"not a database" * 100
