"""A Prefect server that is killed in the middle of a run and brought back. Run: pytest tests/faults/test_server.py"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import Done, bits, command, damaged, lntx, states, until
from prefect_server import Server

pytestmark = [pytest.mark.slow, pytest.mark.flow, pytest.mark.timeout(600)]

SETTINGS = ("--data.num-rows", "20000", "--data.noise", "0.5", "--data.bias", "1", "--train.precondition", "none")
LONG = (*SETTINGS, "--train.tolerance", "0", "--train.max-epochs", "4000")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    found.start()
    yield found
    found.end(signal.SIGKILL)


@pytest.mark.parametrize("away_s", [0.5, 8.0])
def test_a_run_survives_its_server_or_says_so_and_comes_back(server: Server, tmp_path: Path, away_s: float) -> None:
    """Whatever Prefect makes of it: nothing that was stored is lost, and the next run ends in the right bits."""
    whole = bits(lntx("run", "--local", "--json", *LONG, root=tmp_path / "whole"))
    env = {**os.environ, **server.env}
    root = tmp_path / "root"
    process = subprocess.Popen(
        command("run", "--json", *LONG, root=root), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        # Not rglob: it fails on a folder that goes while it looks.
        until(lambda: any((root / "artifacts" / "train").glob(".staging-*")))
        server.end(signal.SIGKILL)
        time.sleep(away_s)
        server.start()
        out, err = process.communicate(timeout=400)
    finally:
        process.kill()
    done = Done(code=process.returncode, out=out, err=err)
    print(f"away for {away_s} s: exit code {done.code}")
    assert done.code in (0, 1)
    assert damaged(root) == []
    again = lntx("run", "--json", *LONG, root=root, env=server.env)
    assert bits(again) == whole
    assert damaged(root) == []
    assert set(states(lntx("run", "--local", "--json", *LONG, root=root)).values()) == {"cached"}
