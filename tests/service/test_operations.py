"""A server that is left alone: its load, what dies under it, and what it tells. Run: pytest tests/service"""

from __future__ import annotations

import json
import re
import resource
import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from driving import command, lntx, until
from prometheus_client.parser import text_string_to_metric_families
from service import Service, children, environment, receiving, serving, wait

from flows.server.home import Home
from lntx.base.stages import STAGES
from lntx.store.leases import killed_flows
from lntx.store.store import Store

pytestmark = [pytest.mark.flow, pytest.mark.timeout(600)]


def _login(service: Service) -> httpx.BasicAuth:
    return httpx.BasicAuth(*service.secret.split(":"))


def _numbers(service: Service) -> dict[tuple[str, str], float]:
    """The figures of /metrics, by name and kind."""
    page = httpx.get(f"{service.url}/metrics", auth=_login(service), timeout=60)
    assert page.status_code == 200, page.text
    families = text_string_to_metric_families(page.text)
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, sample.labels.get("kind", "")): sample.value for sample in samples}


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/metrics", "/lntx/reports/x.html", "/api/docs"])
def test_no_page_but_the_ui_is_shown_without_the_password(service: Service, path: str) -> None:
    assert httpx.get(f"{service.url}{path}", timeout=60).status_code == 401


@pytest.mark.slow
@pytest.mark.parametrize(("host", "status"), [("evil.example", 400), ("localhost", 200), ("127.0.0.1", 200)])
def test_requests_under_another_name_of_the_host_are_refused(service: Service, host: str, status: int) -> None:
    """Else a page of a browser could reach the server under a name of its own."""
    for path in ("/", "/api/health"):
        headers = {"Host": f"{host}:{service.port}"}
        assert httpx.get(f"{service.url}{path}", headers=headers, timeout=60).status_code == status


@pytest.mark.slow
def test_submissions_of_many_clients_at_once_wait_for_each_other(service: Service) -> None:
    """Not one is refused: SQLite's writers wait."""
    deployment = service.deployment("pipeline")["id"]

    def submit(number: int) -> int:
        with httpx.Client(base_url=f"{service.url}/api", auth=_login(service), timeout=100) as client:
            name = f"client-{number}"
            token = client.get("/csrf-token", params={"client": name}).json()["token"]
            headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": name}
            due = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2100-01-01T00:00:00Z"}}
            body = {"parameters": {"data": {"seed": number}}, "state": due}
            path = f"/deployments/{deployment}/create_flow_run"
            return client.post(path, json=body, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(submit, range(48))] == [201] * 48


@pytest.mark.slow
def test_what_ran_is_told_by_names_metrics_artifacts_and_a_page(service: Service) -> None:
    done = lntx("run", "--json", "--data.noise", "0.5", root=service.root, env=environment())
    assert done.code == 0, done.err
    flow_run = done.json["flow_run_id"]
    assert service.run(flow_run)["name"] == f"y = [3.7]·x, 1,000 rows · noise 0.5 · PASS {done.json['digits']:.4g}"
    again = lntx("run", "--json", "--data.noise", "0.5", root=service.root, env=environment()).json
    assert service.run(again["flow_run_id"])["name"].endswith(f"PASS {again['digits']:.4g} · cached")
    query = {"artifacts": {"flow_run_id": {"any_": [flow_run]}}}
    artifacts = {artifact["key"]: artifact["data"] for artifact in service.ask("/artifacts/filter", query)}
    assert set(artifacts) >= {"lntx-report", "lntx-coefficients", "lntx-page"}
    (row,) = json.loads(artifacts["lntx-coefficients"])
    assert (row["coefficient"], row["true"]) == ("x", "3.7")
    (link,) = re.findall(r"\((http[^)]*)\)", artifacts["lntx-page"])
    page = httpx.get(link, auth=_login(service), timeout=100)
    assert (page.status_code, done.json["run"] in page.text) == (200, True)
    assert "script" not in page.headers["Content-Security-Policy"]
    table = service.root / "canary, level 9.csv"
    table.write_text("x,y\n1,2\n2,4.5\n3,6\n4,7\n")
    assert lntx("fit", str(table), "--target", "y", root=service.root, env=environment()).code == 0
    assert ("lntx_passed", "canary") not in _numbers(service), "its name alone makes no canary"
    assert lntx("canary", root=service.root, env=environment()).code == 0
    numbers = _numbers(service)
    assert [numbers["lntx_passed", kind] for kind in ("run", "canary")] == [1, 1]
    assert lntx("run", "--preset", "tutorial", root=service.root, env=environment()).code == 3
    failed = _numbers(service)
    assert failed["lntx_passed", "run"] == 0
    assert failed["lntx_last_pass_timestamp_seconds", "run"] == numbers["lntx_last_pass_timestamp_seconds", "run"]
    for kind in ("run", "canary"):
        assert 0 <= time.time() - numbers["lntx_last_pass_timestamp_seconds", kind] < 600
    assert lntx("canary", "--inject", "skipped-step", root=service.root, env=environment()).code == 3
    assert _numbers(service)["lntx_passed", "canary"] == 1, "a planted fault that is caught is no verdict"


@pytest.mark.slow
def test_a_run_reads_no_file_of_the_server(service: Service) -> None:
    """Else a message would hold its password."""
    for path in ("artifacts/.server/auth", "artifacts/.prefect/prefect.db", "\0"):
        run = service.ended(service.start("pipeline", data={"path": path, "target": "y"}))
        assert run["state"]["name"] == "BadInput"
        assert service.secret.split(":")[1] not in run["state"]["message"]


@pytest.mark.slow
def test_each_stage_has_a_form_of_what_it_reads_and_a_description(service: Service) -> None:
    shown = {"generate": ["data"], "train": ["train", "data"], "evaluate": ["evaluate", "data", "train"]}
    shown["export"] = ["export", "evaluate", "data", "train"]
    descriptions = set()
    for stage in STAGES:
        deployment = service.deployment(stage)
        schema = deployment["parameter_openapi_schema"]
        properties = sorted(schema["properties"], key=lambda name: schema["properties"][name]["position"])
        assert properties == ["force", *shown[stage], "only"]
        assert schema["properties"]["only"]["enum"] == [stage]
        descriptions.add(deployment["description"])
    assert len(descriptions) == len(STAGES)
    schema = service.deployment("pipeline")["parameter_openapi_schema"]
    properties = sorted(schema["properties"], key=lambda name: schema["properties"][name]["position"])
    assert properties[:4] == ["only", "from_stage", "until", "force"]
    for name in properties[:4]:
        assert "anyOf" not in schema["properties"][name], "no field needs a toggle"


def _kill_in_training(root: Path) -> None:
    """Start a long run by the command, and kill it while it trains."""
    train = ["--train.tolerance", "0", "--train.max-epochs", "100000000", "--train.gradient", "autograd"]
    words = [*command("run", root=root), *train, "--data.noise", "1", "--data.num-rows", "20000"]
    process = subprocess.Popen(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    locks = Store(root).locks
    until(lambda: any(locks.glob("flow-*.using")), seconds=200, every=0.2)
    time.sleep(2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: len([*killed_flows(locks)]) == 1, seconds=60, every=0.2)


@pytest.mark.slow
def test_a_killed_run_is_marked_as_crashed_by_doctor(service: Service) -> None:
    _kill_in_training(service.root)
    (flow_run,) = killed_flows(Store(service.root).locks)
    assert service.run(flow_run)["state"]["name"] == "Running"
    done = lntx("doctor", "--json", root=service.root, env=environment())
    (finding,) = [finding for finding in done.json["findings"] if finding["name"] == "killed runs"]
    assert (finding["state"], finding["said"]) == ("ok", "1 marked as crashed")
    state = service.run(flow_run)["state"]
    assert (state["name"], state["message"]) == ("Crashed", "its process was killed")
    assert not [*killed_flows(Store(service.root).locks)]


@pytest.mark.slow
def test_a_killed_run_is_marked_as_crashed_by_the_next_run_without_a_server(tmp_path: Path) -> None:
    """Its server died with it; the next run starts another on the same database."""
    _kill_in_training(tmp_path)
    (flow_run,) = killed_flows(Store(tmp_path).locks)
    done = lntx("doctor", "--json", root=tmp_path, env=environment())
    (finding,) = [finding for finding in done.json["findings"] if finding["name"] == "killed runs"]
    assert (finding["state"], finding["cure"]) == ("note", "lntx run (it marks them as crashed)")
    assert lntx("run", root=tmp_path, env=environment()).code == 0
    with sqlite3.connect(tmp_path / "artifacts" / ".prefect" / "prefect.db") as database:
        query = "SELECT state_name FROM flow_run WHERE id = ?"
        assert database.execute(query, (flow_run,)).fetchall() == [("Crashed",)]
    assert not [*killed_flows(Store(tmp_path).locks)]


@pytest.mark.slow
def test_dropped_events_raise_an_alert(service: Service) -> None:
    Home(service.root).count_dropped_events(25)
    alert = service.told_until("events dropped")[-1]
    assert "lntx doctor" in alert["message"]
    assert _numbers(service)["lntx_events_dropped", ""] == 25
    done = lntx("doctor", "--json", root=service.root, env=environment())
    (finding,) = [finding for finding in done.json["findings"] if finding["name"] == "events"]
    assert finding["cure"].startswith("lntx down && lntx up --database postgresql+asyncpg://")


@pytest.mark.slow
def test_a_lost_database_is_made_again_and_runs_go_on(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with serving(root, "--no-canary") as service:
        for path in (root / "artifacts" / ".prefect").glob("prefect.db*"):
            path.unlink()
        wait(lambda: "was removed or replaced" in (Home(root).logs / "supervisor.log").read_text())
        done = lntx("run", "--json", root=root, env=environment())
        assert done.code == 0, done.err
        assert service.run(done.json["flow_run_id"])["state"]["name"] == "Completed"
        assert service.deployment("pipeline")["description"].startswith("All stages")


@pytest.mark.slow
def test_alerts_go_to_an_address_of_apprise(tmp_path: Path) -> None:
    with receiving() as (url, posts):
        address = url.replace("http://", "json://")
        with serving(tmp_path / "root", "--no-canary", "--notify", address) as service:
            wrong = service.ended(service.start("pipeline", train={"learning_rate": 0.001, "max_epochs": 3}))
            post = posts.get(timeout=200)
        assert (post["title"], post["type"]) == ("lntx: wrong answer", "failure")
        assert f"{service.url}/v2/runs/flow-run/{wrong['id']}" in post["message"]
    again = lntx("up", "--notify", "foo://bar", root=tmp_path / "root", env=environment())
    assert (again.code, "--notify is no address that Apprise knows" in again.err) == (2, True), again.err


def test_a_settings_file_of_prefect_that_is_broken_is_named(tmp_path: Path) -> None:
    home = tmp_path / "prefect"
    home.mkdir()
    (home / "profiles.toml").write_text("active = [broken")
    done = lntx("run", root=tmp_path, env={**environment(), "PREFECT_HOME": str(home)})
    assert (done.code, f"mend or remove {home}/profiles.toml" in done.err) == (2, True), done.err


@pytest.mark.slow
def test_a_full_disk_under_the_server_is_said_and_it_goes_on_afterwards(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with serving(root, "--no-canary") as service:
        (server,) = (pid for pid in children(service.told["pid"]) if "flows.server.api" in _command_line(pid))
        resource.prlimit(server, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        full = lntx("run", root=root, env=environment())
        assert full.code == 1
        assert re.search(r"the Prefect server at .* (fails|does not answer)", full.err.splitlines()[-1]), full.err
        assert "csrf" not in full.err.splitlines()[-1]
        resource.prlimit(server, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait(lambda: lntx("run", root=root, env=environment()).code == 0)


def _command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
