"""A real Prefect server: a process, a port, a database and a password of its own, which a test may kill."""

from __future__ import annotations

import os
import random
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import httpx
from driving import until


def free_port() -> int:
    """One that stays free while a server is down: below those that outgoing connections get."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """A server that can be killed and brought back on the same port and database."""

    def __init__(self, home: Path, database: Mapping[str, str] | None = None) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/api"
        self.auth = f"lntx:{secrets.token_hex(8)}"
        self._home = home
        self._env = {
            **os.environ,
            **(database or {}),
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_API_AUTH_STRING": self.auth,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": self.auth}

    def start(self) -> None:
        """Return once it answers."""
        command = [sys.executable, "-m", "prefect", "server", "start"]
        with (self._home / "server.log").open("a") as log:
            self._process = subprocess.Popen(command, env=self._env, stdout=log, stderr=log, cwd=self._home)
        until(self._answers, seconds=300)

    def end(self, signal_number: int = signal.SIGTERM) -> None:
        self._process.send_signal(signal_number)
        self._process.wait(timeout=120)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._home / "server.log").read_text()
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health").status_code == httpx.codes.OK
        return False
