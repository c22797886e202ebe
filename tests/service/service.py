"""A server that `lntx up` started, and how tests talk to it."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from driving import Done, lntx, until
from prefect_server import free_port

from flows.server.home import Home


@dataclass(frozen=True)
class Service:
    """A server that is up, and what its webhook got."""

    root: Path
    url: str
    told: dict[str, Any]
    alerts: queue.Queue[dict[str, Any]]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def secret(self) -> str:
        return Home(self.root).secret()

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the API, as its UI does: logged in, and with a CSRF token.

        Two of the server's own transactions can wait for each other in SQLite: for 60 seconds, then one gives up.
        """
        with httpx.Client(base_url=f"{self.url}/api", auth=(*self.secret.split(":"),), timeout=200) as client:
            token = _answer(lambda: client.get("/csrf-token", params={"client": "test"}))["token"]
            headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "test"}
            return _answer(lambda: client.post(path, json=body or {}, headers=headers))

    def deployment(self, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.ask("/deployments/filter") if one["name"] == name]
        assert isinstance(found, dict)
        return found

    def start(self, name: str, **parameters: Any) -> str:
        """Start a run of a deployment, as the form in the UI does."""
        found = self.ask(
            f"/deployments/{self.deployment(name)['id']}/create_flow_run",
            {"parameters": parameters, "state": {"type": "SCHEDULED"}},
        )
        return str(found["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        (found,) = self.ask("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        assert isinstance(found, dict)
        return found

    def wait(self, run_id: str, ready: Callable[[dict[str, Any]], bool], seconds: float = 300) -> dict[str, Any]:
        until(lambda: ready(self.run(run_id)), seconds=seconds, every=0.5)
        return self.run(run_id)

    def ended(self, run_id: str) -> dict[str, Any]:
        return self.wait(run_id, lambda run: run["end_time"] is not None)

    def told_until(self, kind: str, seconds: float = 300) -> list[dict[str, Any]]:
        """The alerts up to one of a kind."""
        told = [self.alerts.get(timeout=seconds)]
        while told[-1]["alert"] != kind:
            told.append(self.alerts.get(timeout=seconds))
        return told

    def told_so_far(self) -> list[dict[str, Any]]:
        """The alerts that nobody has taken yet."""
        return [self.alerts.get_nowait() for _ in range(self.alerts.qsize())]

    def tasks(self, run_id: str) -> dict[str, str]:
        """The state of each stage of a run, of its last try."""
        query = {"flow_runs": {"id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return {task["name"]: task["state"]["name"] for task in self.ask("/task_runs/filter", query)}

    def wait_for_tasks(self, run_id: str, states: dict[str, str]) -> None:
        """The server hears of tasks later than their run ends."""
        until(lambda: self.tasks(run_id) == states, every=0.5)

    def runs(self, deployment: str, *kinds: str) -> list[dict[str, Any]]:
        """The runs of a deployment, those whose state is of a type where some are named, the latest last."""
        query = {
            "deployments": {"id": {"any_": [self.deployment(deployment)["id"]]}},
            "flow_runs": {"state": {"type": {"any_": kinds or None}}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        found: list[dict[str, Any]] = self.ask("/flow_runs/filter", query)
        return found


def _answer(send: Callable[[], httpx.Response]) -> Any:
    """The server's answer; while SQLite is busy, ask again, as Prefect's own client does."""
    response = send()
    while response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        time.sleep(1)
        response = send()
    response.raise_for_status()
    return response.json()


def _receiver(alerts: queue.Queue[dict[str, Any]]) -> http.server.ThreadingHTTPServer:
    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            alerts.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)


@contextlib.contextmanager
def receiving() -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """A webhook's URL, and what is posted to it."""
    alerts: queue.Queue[dict[str, Any]] = queue.Queue()
    receiver = _receiver(alerts)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{receiver.server_port}/alerts", alerts
    finally:
        receiver.shutdown()
        receiver.server_close()


@contextlib.contextmanager
def serving(root: Path, *words: str) -> Iterator[Service]:
    """A server that is up for a while, and its webhook."""
    with receiving() as (url, alerts):
        done = up(root, "--webhook", url, *words)
        try:
            assert done.code == 0, done.err + _logs(root)
            yield Service(root, done.json["url"], done.json, alerts)
        finally:
            ended = lntx("down", root=root)
        assert (ended.code, Home(root).is_held()) == (0, False), ended.err


def up(root: Path, *words: str, port: int | None = None) -> Done:
    return lntx("up", "--json", "--port", str(port or free_port()), *words, root=root, env=environment())


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def _logs(root: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(Home(root).logs.glob("*.log")))


def commands() -> list[bytes]:
    """The command lines of this machine's processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found


def holders(root: Path, *secrets: bytes) -> list[Path]:
    """The files of a root that hold any of some texts."""
    found = []
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and any(secret in path.read_bytes() for secret in secrets):
                found.append(path)
    return found


def process_of(run_id: str) -> int:
    """The process of a flow run: its environment names the run."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"PREFECT__FLOW_RUN_ID={run_id}".encode() in path.read_bytes():
                return int(path.parent.name)
        except OSError:
            continue
    raise AssertionError("no process has that run")


def wait(done: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for what a server answers; while it restarts it answers nothing."""

    def is_done() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return done()
        return False

    until(is_done, seconds=seconds, every=0.5)


def children(pid: int) -> list[int]:
    words = ["ps", "-o", "pid=", "--ppid", str(pid)]
    listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return [int(word) for word in listed.split()]
