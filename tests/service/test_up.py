"""`lntx up` and `down`: a real server, its deployments, schedules and alerts. Run: pytest tests/service"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import queue
import re
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from driving import Done, lntx

from flows.home import Home

pytestmark = [pytest.mark.flow, pytest.mark.timeout(600)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Service:
    """A server that is up, and what its webhook got."""

    root: Path
    url: str
    told: dict[str, Any]
    alerts: queue.Queue[dict[str, Any]]

    @property
    def secret(self) -> str:
        return Home(self.root).secret()

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the API, as its UI does: logged in, and with a CSRF token."""
        with httpx.Client(base_url=f"{self.url}/api", auth=(*self.secret.split(":"),)) as client:
            token = client.get("/csrf-token", params={"client": "test"}).json()["token"]
            headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "test"}
            answer = client.post(path, json=body or {}, headers=headers)
            answer.raise_for_status()
            return answer.json()

    def deployment(self, name: str) -> dict[str, Any]:
        (found,) = [one for one in self.ask("/deployments/filter") if one["name"] == name]
        assert isinstance(found, dict)
        return found

    def start(self, name: str, **parameters: Any) -> str:
        """Start a run of a deployment, as the form in the UI does."""
        found = self.ask(
            f"/deployments/{self.deployment(name)['id']}/create_flow_run",
            {"parameters": {"root": str(self.root), **parameters}, "state": {"type": "SCHEDULED"}},
        )
        return str(found["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        (found,) = self.ask("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        assert isinstance(found, dict)
        return found

    def wait(self, run_id: str, until: Callable[[dict[str, Any]], bool], seconds: float = 150) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while not until(found := self.run(run_id)):
            assert time.monotonic() < deadline, found["state"]
            time.sleep(0.5)
        return found

    def ended(self, run_id: str) -> dict[str, Any]:
        return self.wait(run_id, lambda run: run["end_time"] is not None)

    def alert(self, kind: str, seconds: float = 90) -> dict[str, Any]:
        """The next alert of a kind; a loaded server may post one again."""
        while (told := self.alerts.get(timeout=seconds))["alert"] != kind:
            pass
        return told


def _receiver(alerts: queue.Queue[dict[str, Any]]) -> http.server.ThreadingHTTPServer:
    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            alerts.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("service") / "root"
    alerts: queue.Queue[dict[str, Any]] = queue.Queue()
    receiver = _receiver(alerts)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    done = _up(root, "--webhook", f"http://127.0.0.1:{receiver.server_port}/alerts", "--no-canary")
    try:
        assert done.code == 0, done.err + _logs(root)
        yield Service(root, done.json["url"], done.json, alerts)
    finally:
        lntx("down", root=root)
        receiver.shutdown()


def _up(root: Path, *words: str) -> Done:
    return lntx("up", "--json", "--port", str(_free_port()), *words, root=root, env=_environment())


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def _logs(root: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(Home(root).logs.glob("*.log")))


def test_it_is_hardened(service: Service) -> None:
    """Nobody gets in without the string, nor from another origin; and the string is in its file alone."""
    home = Home(service.root)
    assert stat.S_IMODE(home.secret_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    assert httpx.get(f"{service.url}/api/admin/version").status_code == 401
    assert httpx.get(f"{service.url}/api/health").status_code == 200
    auth = httpx.BasicAuth(*service.secret.split(":"))
    foreign = httpx.post(
        f"{service.url}/api/flow_runs/filter", json={}, auth=auth, headers={"Origin": "http://evil.example"}
    )
    assert foreign.status_code == 403
    preflight = httpx.options(
        f"{service.url}/api/flow_runs/filter",
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert preflight.status_code == 400
    secret = service.secret.split(":")[1].encode()
    holders = [path for path in service.root.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert holders == [home.secret_path]
    words = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [line for line in words if secret in line]


def test_the_deployments_are_there_and_what_is_kept_is_said(service: Service) -> None:
    names = {one["name"] for one in service.ask("/deployments/filter")}
    assert names == {"pipeline", "canary", "generate", "train", "evaluate", "export", "gc-scheduled"}
    assert service.told["limits"] == {"prefect_retention_days": 90.0, "keep_runs": 100, "keep_days": 30.0}
    assert service.deployment("train")["parameters"]["only"] == "train"
    schema = service.deployment("pipeline")["parameter_openapi_schema"]["definitions"]["Train"]["properties"]
    assert all(field.get("description") for field in schema.values()), "every field of the form is described"


def test_a_run_finds_the_server_by_itself(service: Service) -> None:
    done = lntx("run", "--json", root=service.root, env=_environment())
    assert done.code == 0, done.err
    assert done.json["flow_run_url"] == f"{service.url}/runs/flow-run/{done.json['flow_run_id']}"
    assert service.run(done.json["flow_run_id"])["state"]["name"] == "Completed"


def test_the_train_deployment_takes_generate_from_the_store(service: Service) -> None:
    """Started with another learning rate: generate is Cached, train is not, and nothing else runs."""
    lntx("run", "--local", root=service.root)
    run = service.ended(service.start("train", only="train", train={"learning_rate": 0.01}))
    assert run["state"]["name"] == "Completed"
    tasks = service.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert {task["name"]: task["state"]["name"] for task in tasks} == {"generate": "Cached", "train": "Completed"}


@pytest.mark.slow
def test_each_alert_comes_and_a_caught_fault_raises_none(service: Service) -> None:
    """Failed, wrong answer and crashed; the fourth, no passing canary, has a test of its own."""
    caught = service.ended(service.start("canary", inject="skipped-step"))
    assert caught["state"]["name"] == "FaultCaught"
    failed = service.ended(service.start("pipeline", data={"path": "/nowhere.csv", "target": "y"}))
    assert (failed["state"]["type"], failed["state"]["name"]) == ("FAILED", "BadInput")
    told = service.alerts.get(timeout=90)
    assert told["alert"] == "failed", "the first of all"
    assert (told["state"], told["flow"]) == ("BadInput", "lntx")
    assert "/nowhere.csv cannot be read" in told["message"]
    assert told["url"].endswith(failed["id"])
    wrong = service.ended(service.start("pipeline", train={"learning_rate": 0.001, "max_epochs": 3}))
    assert wrong["state"]["name"] == "WrongAnswer"
    assert service.alert("wrong answer")["url"].endswith(wrong["id"])
    long = {"tolerance": 0, "max_epochs": 10**6, "precondition": "none", "gradient": "autograd"}
    run_id = service.start("pipeline", data={"noise": 0.5, "bias": 1, "num_rows": 20_000}, train=long)
    service.wait(run_id, lambda run: run["state"]["name"] == "Running")
    time.sleep(3)
    killed_at = time.monotonic()
    os.kill(_process_of(run_id), signal.SIGKILL)
    assert service.ended(run_id)["state"]["name"] == "Crashed"
    assert time.monotonic() - killed_at < 120
    assert service.alert("crashed")["url"].endswith(run_id)


def _process_of(run_id: str) -> int:
    """The process of a flow run: its environment names the run."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"PREFECT__FLOW_RUN_ID={run_id}".encode() in path.read_bytes():
                return int(path.parent.name)
        except OSError:
            continue
    raise AssertionError("no process has that run")


def test_up_twice_a_taken_port_and_bad_options_are_said(service: Service, tmp_path: Path) -> None:
    again = lntx("up", root=service.root)
    assert again.code == 1
    assert f"is up already at {service.url}: lntx down ends it" in again.err
    port = service.url.rsplit(":", 1)[1]
    taken = lntx("up", "--port", port, root=tmp_path / "other")
    assert (taken.code, taken.err.strip()) == (
        1, f"lntx: port {port} is in use: choose another with --port, or end what listens there",
    )  # fmt: skip
    assert not Home(tmp_path / "other").is_held()
    for words, said in (
        (("--cron", "sometimes"), "--cron must be five fields"),
        (("--timezone", "Mars/Olympus"), "--timezone must be a name such as Europe/Berlin"),
        (("--cron", "0 6 * * *", "--interval", "5"), "drop one"),
        (("--interval", "-1"), "--interval must be greater than 0"),
        (("--data.num-rows", "-3"), "data.num_rows must be"),
    ):
        done = lntx("up", *words, root=tmp_path / "other")
        assert done.code == 2, words
        assert said in done.err


def test_a_systemd_unit_is_printed(tmp_path: Path) -> None:
    done = lntx("up", "--systemd", "--interval", "60", root=tmp_path)
    assert done.code == 0
    assert re.search(r"^ExecStart=.*flows\.cli up .*--interval 60 --foreground --root ", done.out, re.M)
    assert "loginctl enable-linger" in done.out
    assert "Restart=always" in done.out


@pytest.mark.slow
def test_schedules_fire_and_a_killed_server_comes_back(tmp_path: Path) -> None:
    """The server is started again when it dies; when its watcher is killed nobody takes it for up."""
    root = tmp_path / "root"
    done = _up(root, "--interval", "10", "--no-canary", "--data.num-rows", "200")
    assert done.code == 0, done.err
    try:
        service = Service(root, done.json["url"], done.json, queue.Queue())
        _wait(lambda: len(_scheduled_runs(service, "COMPLETED")) >= 2)
        state = Home(root).running()
        assert state is not None
        children = [int(word) for word in _children(state.pid)]
        assert len(children) == 2
        os.kill(children[0], signal.SIGKILL)
        _wait(lambda: len(_children(state.pid)) == 2 and children[0] not in map(int, _children(state.pid)))
        _wait(lambda: httpx.get(f"{service.url}/api/health").status_code == 200)
        left = [int(word) for word in _children(state.pid)]
        os.kill(state.pid, signal.SIGKILL)
        _wait(lambda: not Home(root).is_held())
        assert Home(root).running() is None, "a state that a killed one left is none"
        # Both are told to end; the runner was seen to hang about, with no server to say goodbye to.
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    finally:
        lntx("down", root=root)


@pytest.mark.slow
def test_no_passing_canary_is_told(tmp_path: Path) -> None:
    root, alerts = tmp_path / "root", queue.Queue[dict[str, Any]]()
    receiver = _receiver(alerts)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    words = ("--webhook", f"http://127.0.0.1:{receiver.server_port}", "--canary-cron", "0 3 1 1 *")
    done = _up(root, *words, "--dead-man-hours", "0.01")
    try:
        assert done.code == 0, done.err
        assert alerts.get(timeout=150)["alert"] == "no passing canary"
    finally:
        lntx("down", root=root)
        receiver.shutdown()


def _wait(done: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if done():
                return
        except httpx.HTTPError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.5)


def _scheduled_runs(service: Service, kind: str) -> list[dict[str, Any]]:
    deployment = service.deployment("pipeline-scheduled")["id"]
    query = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"state": {"type": {"any_": [kind]}}}}
    found: list[dict[str, Any]] = service.ask("/flow_runs/filter", query)
    return found


def _children(pid: int) -> list[str]:
    words = ["ps", "-o", "pid=", "--ppid", str(pid)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()


def test_down_without_a_server_is_fine(tmp_path: Path) -> None:
    assert lntx("down", "--json", root=tmp_path).json == {"was_up": False}
