"""Supervise a Prefect server and the process that serves the deployments: start, restart, stop, rotate their logs.

`python -m flows.server.supervisor ROOT`. Imports no Prefect, so that a failure of Prefect cannot stop the supervisor.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import logging.handlers
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from flows.server.home import Home, ServerState
from flows.server.settings import (
    HOST,
    LAST_WORDS_S,
    ServerOptions,
    client_environment,
    database_path,
    is_healthy,
    server_environment,
)
from lntx.base.errors import LntxError

logger = logging.getLogger("lntx.supervisor")

_LOG_BYTES, _LOG_FILES = 10_000_000, 5
_HEALTHY_WITHIN_S = 180.0
# Long after an outage: each late run is cancelled first.
_SERVED_WITHIN_S = 600.0
_END_WITHIN_S = LAST_WORDS_S + 5
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_BACK_OFF_S = (1.0, 2.0, 5.0, 15.0, 60.0)
# A process that ran this long before it failed is restarted with the shortest delay.
_STEADY_S = 300.0


class _Ended(Exception):
    """The supervisor was asked to stop."""


def main(root: Path, options: ServerOptions) -> int:
    """Run until asked to stop, and return the exit code."""
    home = Home(root)
    home.prepare()
    _log_to(home.logs / "supervisor.log", logger)
    for number in _ENDINGS:
        signal.signal(number, _end)
    try:
        supervise(home, options)
    except _Ended:
        return 0
    except LntxError as error:
        logger.error("%s", error)
        print(f"lntx: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        logger.exception("the supervisor died")
        print(f"lntx: {type(error).__name__}: {error} (see {home.logs}/supervisor.log)", file=sys.stderr)
        return 1
    return 0


def supervise(home: Home, options: ServerOptions) -> None:
    """Start both processes, and restart them when they fail.

    Raises: LntxError: the port is taken, or a process does not start.
    """
    with home.held():
        # Under the lock: of two that start at once, the options of the one that runs are kept.
        home.write_options(options.model_dump(mode="json"))
        _refuse_taken_port(options.port)
        server = _Child("server", ["flows.server.api", str(home.root)], server_environment(home, options), home)
        runner = _Child("runner", ["flows.server.serve", str(home.root)], client_environment(home, options), home)
        try:
            while True:
                _start(server, runner, home, options)
                _revive(server, runner, home, options)
                # Runs wait for a server without a state.
                home.remove_state()
                logger.error("%s was removed or replaced: the server starts again", database_path(home))
                runner.end()
                server.end()
        finally:
            for number in _ENDINGS:
                signal.signal(number, signal.SIG_IGN)
            # The runner first: it needs the server to record how its runs end.
            runner.end()
            server.end()
            logger.info("down")


def _start(server: _Child, runner: _Child, home: Home, options: ServerOptions) -> None:
    """Start both processes, and record that they are up."""
    home.served_mark.unlink(missing_ok=True)
    server.start()
    # It imports while the server starts, and waits for it.
    runner.start()
    _wait_until(lambda: is_healthy(options.api_url), server, _HEALTHY_WITHIN_S)
    _wait_until(home.served_mark.exists, runner, _SERVED_WITHIN_S)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    home.write_state(ServerState(pid=os.getpid(), url=options.url, started_at=now))
    logger.info("up at %s", options.url)


def _revive(server: _Child, runner: _Child, home: Home, options: ServerOptions) -> None:
    """Restart a process that ends. Returns when the server has lost its database: it would fail each request."""
    path = database_path(home)
    number = None if options.database is not None else _file_number(path)
    while number is None or _file_number(path) == number:
        for child in (server, runner):
            child.revive()
        time.sleep(0.5)


def _file_number(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


class _Child:
    """A process that is restarted whenever it ends."""

    def __init__(self, name: str, words: list[str], environment: dict[str, str], home: Home) -> None:
        self.name = name
        self._words, self._environment, self._home = words, environment, home
        self._process: subprocess.Popen[str] | None = None
        self._deaths = 0
        self._started = 0.0
        self._again_at: float | None = None
        self._log = logging.getLogger(f"lntx.supervisor.{name}")
        self._log.propagate = False
        _log_to(home.logs / f"{name}.log", self._log, plain=True)

    def start(self) -> None:
        """Start the process, and copy its output to its log."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flows.server.die_with_parent", *self._words],
            env=self._environment,
            cwd=self._home.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Only the supervisor gets Ctrl-C; it stops them in order.
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._started, self._again_at = time.monotonic(), None
        threading.Thread(target=self._pump, args=(self._process,), daemon=True).start()
        logger.info("%s: process %d", self.name, self._process.pid)

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def revive(self) -> None:
        """Restart the process if it has ended, with a longer delay each time."""
        if self.is_alive:
            return
        now = time.monotonic()
        if self._again_at is None:
            self._deaths = 0 if now - self._started > _STEADY_S else self._deaths + 1
            delay = _BACK_OFF_S[min(self._deaths, len(_BACK_OFF_S) - 1)]
            assert self._process is not None
            logger.error("%s ended with status %s; again in %g s", self.name, self._process.returncode, delay)
            self._again_at = now + delay
        elif now >= self._again_at:
            self.start()

    def end(self) -> None:
        """Ask the process to stop; kill it if it does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            logger.warning("%s does not end: killed", self.name)
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """Return the last line of its output and the path of its log."""
        path = self._home.logs / f"{self.name}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        return f"{next((line.strip() for line in reversed(lines) if line.strip()), 'it said nothing')} (see {path})"

    def _pump(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in process.stdout:
                self._log.info("%s", line.rstrip("\n"))


def _wait_until(is_done: Callable[[], bool], child: _Child, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_done():
        if not child.is_alive:
            raise LntxError(f"the {child.name} did not come up: {child.last_words()}")
        if time.monotonic() > deadline:
            raise LntxError(f"the {child.name} did not come up within {seconds:g} s: see its log")
        time.sleep(0.2)


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise LntxError(f"port {port} is in use: choose another with --port, or end what listens there") from None


def _end(_number: int, _frame: FrameType | None) -> None:
    raise _Ended


def _log_to(path: Path, log: logging.Logger, *, plain: bool = False) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s" if plain else "%(asctime)s %(levelname)s %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), ServerOptions.model_validate_json(sys.stdin.read())))
