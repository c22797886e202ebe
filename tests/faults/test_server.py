"""A Prefect server that is killed in the middle of a run and brought back. Run: pytest tests/faults/test_server.py"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from driving import Done, bits, command, damaged, lntx, states, until

pytestmark = [pytest.mark.slow, pytest.mark.flow, pytest.mark.timeout(600)]

SETTINGS = ("--data.num-rows", "20000", "--data.noise", "0.5", "--data.bias", "1", "--train.precondition", "none")
LONG = (*SETTINGS, "--train.tolerance", "0", "--train.max-epochs", "4000")


class _Server:
    """A server that can be killed and brought back on the same port and database."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {
            **os.environ,
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        with (self.home / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start"], env=env, stdout=log, stderr=log, cwd=self.home
            )
        until(self._answers, seconds=180)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health").status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    found = _Server(tmp_path)
    found.start()
    yield found
    found.kill()


@pytest.mark.parametrize("away_s", [0.5, 8.0])
def test_a_run_survives_its_server_or_says_so_and_comes_back(server: _Server, tmp_path: Path, away_s: float) -> None:
    """Whatever Prefect makes of it: nothing that was stored is lost, and the next run ends in the right bits."""
    whole = bits(lntx("run", "--local", "--json", *LONG, root=tmp_path / "whole"))
    env = {**os.environ, "PREFECT_API_URL": server.url}
    root = tmp_path / "root"
    process = subprocess.Popen(
        command("run", "--json", *LONG, root=root), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(lambda: bool(list(root.rglob("artifacts/train/.staging-*"))), seconds=120)
    server.kill()
    time.sleep(away_s)
    server.start()
    out, err = process.communicate(timeout=400)
    done = Done(code=process.returncode, out=out, err=err)
    print(f"away for {away_s} s: exit code {done.code}")
    assert done.code in (0, 1)
    assert damaged(root) == []
    again = lntx("run", "--json", *LONG, root=root, env={"PREFECT_API_URL": server.url})
    assert bits(again) == whole
    assert damaged(root) == []
    assert set(states(lntx("run", "--local", "--json", *LONG, root=root)).values()) == {"cached"}
