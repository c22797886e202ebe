"""Deploy flows, and have processes run them, as their users do."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun


def prefect(*words: str, env: Mapping[str, str], cwd: Path) -> None:
    command = [sys.executable, "-m", "prefect", *words]
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def beside(*words: str, env: Mapping[str, str], cwd: Path, log: Path) -> Iterator[None]:
    """Have Python run a module or a script meanwhile."""
    with log.open("w") as lines:
        # A worker that is told to end sends itself SIGINT, which is ignored if this process ignores it.
        hearing = "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
        command = [sys.executable, "-c", hearing, sys.executable, *words]
        process = subprocess.Popen(command, env=env, cwd=cwd, stdout=lines, stderr=lines)
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


def run_deployed(client: SyncPrefectClient, name: str, log: Path) -> FlowRun:
    """Run a deployment to its end. log: what to show if it does not end."""
    deployment = client.read_deployment_by_name(name)
    run = client.create_flow_run_from_deployment(deployment.id)
    deadline = time.monotonic() + 180
    while not (found := client.read_flow_run(run.id)).state or not found.state.is_final():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)
    return found
