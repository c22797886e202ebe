"""`lntx up` and `down`: a real server, hardened, and its deployments. Run: pytest tests/service"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from driving import lntx, lntx_here
from hypothesis import given
from hypothesis import strategies as st
from prefect_server import free_port
from service import Service, commands, environment, holders, process_of, up, wait

from flows.server.home import Home
from flows.server.schedule_checks import canary_alert_hours
from flows.server.settings import MAX_HOURS, ServerOptions, is_healthy
from flows.server.unit import unit
from lntx.base.errors import BadInput

pytestmark = [pytest.mark.flow, pytest.mark.timeout(600)]


def test_it_is_hardened(service: Service) -> None:
    """Nobody gets in without the string, nor from another origin; and the string is in its file alone."""
    home = Home(service.root)
    assert stat.S_IMODE(home.secret_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    assert httpx.get(f"{service.url}/api/admin/version", timeout=60).status_code == 401
    assert httpx.get(f"{service.url}/api/health", timeout=60).status_code == 200
    auth = httpx.BasicAuth(*service.secret.split(":"))
    filtered = f"{service.url}/api/flow_runs/filter"
    foreign = httpx.post(filtered, json={}, timeout=60, auth=auth, headers={"Origin": "http://evil.example"})
    assert foreign.status_code == 403, "it cannot know the token"
    assert isinstance(service.ask("/flow_runs/filter"), list), "which is all that is missing"
    preflight = httpx.options(
        f"{service.url}/api/flow_runs/filter",
        timeout=60,
        headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert preflight.status_code == 400
    secret = service.secret.split(":")[1].encode()
    sent = base64.b64encode(service.secret.encode())
    assert holders(service.root, secret, sent) == [home.secret_path]
    assert not [line for line in commands() if secret in line or sent in line]


def test_the_deployments_are_there_and_what_is_kept_is_said(service: Service) -> None:
    names = {one["name"] for one in service.ask("/deployments/filter")}
    assert names == {"pipeline", "canary", "canary-deep", "generate", "train", "evaluate", "export", "gc-scheduled"}
    assert service.told["limits"] == {"prefect_retention_days": 90.0, "keep_runs": 100, "keep_days": 30.0}
    assert service.deployment("train")["parameters"]["only"] == "train"
    schema = service.deployment("pipeline")["parameter_openapi_schema"]["definitions"]["Train"]["properties"]
    assert all(field.get("description") for field in schema.values()), "every field of the form is described"


def test_a_run_finds_the_server_by_itself(service: Service) -> None:
    done = lntx("run", "--json", root=service.root, env=environment())
    assert done.code == 0, done.err
    assert done.json["flow_run_url"] == f"{service.url}/v2/runs/flow-run/{done.json['flow_run_id']}"
    run = service.run(done.json["flow_run_id"])
    assert (run["state"]["name"], run["tags"]) == ("Completed", ["lntx"])


def test_the_train_deployment_takes_generate_from_the_store(service: Service) -> None:
    """Started with another learning rate: generate is Cached, train is not, and nothing else runs."""
    lntx_here("run", "--local", root=service.root)
    run = service.ended(service.start("train", only="train", train={"learning_rate": 0.01}))
    assert run["state"]["name"] == "Completed"
    service.wait_for_tasks(run["id"], {"generate": "Cached", "train": "Completed"})


@pytest.mark.slow
def test_a_killed_run_is_retried_from_where_it_was(service: Service) -> None:
    """As with the Retry of the UI: what was finished is Cached, and what was not goes on."""
    train = {"tolerance": 0, "max_epochs": 30_000, "precondition": "none", "gradient": "autograd"}
    run_id = service.start("pipeline", data={"noise": 0.5, "num_rows": 20_000}, train=train)
    service.wait(run_id, lambda _run: service.tasks(run_id).get("train") == "Running")
    os.kill(process_of(run_id), signal.SIGKILL)
    assert service.ended(run_id)["state"]["name"] == "Crashed"
    service.ask(f"/flow_runs/{run_id}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}})
    service.wait(run_id, lambda run: run["run_count"] == 2 and run["state"]["type"] not in ("SCHEDULED", "PENDING"))
    assert service.ended(run_id)["state"]["name"] == "Completed"
    ended = {"generate": "Cached", "train": "Completed", "evaluate": "Completed", "export": "Completed"}
    service.wait_for_tasks(run_id, ended)


@pytest.mark.slow
def test_up_twice_a_taken_port_and_bad_options_are_said(service: Service, tmp_path: Path) -> None:
    again = lntx("up", root=service.root)
    assert again.code == 1
    assert f"is up already at {service.url}: lntx down ends it" in again.err
    taken = lntx("up", "--port", str(service.port), root=tmp_path / "other")
    assert (taken.code, taken.err.strip()) == (
        1, f"lntx: port {service.port} is in use: choose another with --port, or end what listens there",
    )  # fmt: skip
    assert not Home(tmp_path / "other").is_held()
    for words, said in (
        (("--cron", "sometimes"), "--cron must be five fields"),
        (("--timezone", "Mars/Olympus"), "--timezone must be a name such as Europe/Berlin"),
        (("--cron", "0 6 * * *", "--interval", "5"), "drop one"),
        (("--cron", ""), "--cron must be five fields"),
        (("--cron", "0 6 * * * *"), "--cron must be five fields"),
        (("--timezone", "posix/Europe/Berlin"), "--timezone must be a name"),
        (("--interval", "-1"), "--interval must be greater than or equal to 1"),
        (("--canary-interval", "0"), "--canary-interval must be greater than or equal to 1"),
        (("--no-canary", "--canary-cron", "0 6 * * *"), "drop one"),
        (("--webhook", "example.org"), "--webhook must begin with http:// or https://, got 'example.org'"),
        (
            ("--database", "mysql://me:geheim@somewhere"),
            "--database must begin with postgresql+asyncpg://, got 'mysql'",
        ),
        (("--dead-man-hours", "1e15"), "--dead-man-hours must be less than or equal to 8784"),
        (("--data.num-rows", "-3"), "data.num_rows must be"),
    ):
        done = lntx("up", *words, root=tmp_path / "other")
        assert done.code == 2, words
        assert said in done.err


@pytest.mark.slow
def test_up_after_a_killed_supervisor_says_what_is_true(tmp_path: Path) -> None:
    """The state of the killed one is there, and the lock of the new one: up waits until the new one answers."""
    root = tmp_path / "root"
    first = up(root, "--no-canary")
    assert first.code == 0, first.err
    os.kill(first.json["pid"], signal.SIGKILL)
    wait(lambda: not is_healthy(f"{first.json['url']}/api"))
    again = up(root, "--no-canary", port=int(first.json["url"].rsplit(":", 1)[1]))
    try:
        assert again.code == 0, again.err
        assert is_healthy(f"{again.json['url']}/api")
        assert again.json["pid"] != first.json["pid"]
    finally:
        lntx("down", root=root)


@pytest.mark.slow
def test_of_two_ups_at_once_one_wins_with_its_own_options(tmp_path: Path) -> None:
    root = tmp_path / "root"
    ports = [free_port(), free_port()]
    with ThreadPoolExecutor(2) as pool:
        results = [*pool.map(lambda port: up(root, "--no-canary", port=port), ports)]
    try:
        assert sorted(result.code for result in results) == [0, 1], [result.err for result in results]
        (won,) = [place for place, result in enumerate(results) if result.code == 0]
        url = f"http://127.0.0.1:{ports[won]}"
        assert results[won].json["url"] == url
        assert is_healthy(f"{url}/api")
        assert Home(root).read_options()["port"] == ports[won]
        message = results[1 - won].json["error"]["message"]
        assert re.fullmatch(
            r"a server of this root is (up already.*: lntx down ends it|starting or stopping: .*)", message
        )
    finally:
        lntx("down", root=root)


def test_a_systemd_unit_is_printed(tmp_path: Path) -> None:
    done = lntx("up", "--systemd", "--interval", "60", root=tmp_path)
    assert done.code == 0
    assert re.search(r"^ExecStart=.*flows\.cli up .*--interval 60 --foreground --root ", done.out, re.M)
    assert "loginctl enable-linger" in done.out
    assert "Restart=on-failure" in done.out, "lntx down is the end of it"
    assert "KillMode=mixed" in done.out, "the supervisor ends the others in order"


_WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), max_size=4)


@given(_WORDS, st.text(" abc\"'\\\\%$;\n\u202e#", min_size=1, max_size=10))
def test_a_unit_says_what_was_said_or_nothing(words: list[str], folder: str) -> None:
    """Read back by systemd's rules for quoting, every word is what it was; what no unit can hold is refused."""
    try:
        text = unit(Home(Path("/srv") / folder), ["up", *words], {})
    except BadInput:
        return
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    said = [_unquoted(word) for word in re.findall(r'"(?:[^"\\]|\\.)*"|[^" ]+', lines["ExecStart"])]
    kept = [word for word in words if word not in ("--systemd", "--foreground") and not word.startswith("--root=")]
    if "--root" not in words:
        assert said[3:] == ["up", *kept, "--foreground", "--root", str(Path("/srv") / folder)]


def _unquoted(word: str) -> str:
    if word.startswith('"'):
        word = re.sub(r"\\(.)", r"\1", word[1:-1])
    return word.replace("%%", "%").replace("$$", "$")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd: apt-get install systemd")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """Names with spaces, quotes, specifiers and dollars."""
    for name in ("plain", "two words", "50% off", "$HOME", 'a "quoted" one', "it's", "back\\slash;", "数据"):
        # The path of the file of secrets can hold no quotes.
        secrets = {} if set(name) & set("\"'\\") else {"LNTX_WEBHOOK": "https://x"}
        text = unit(Home(tmp_path / name), ["up", "--data.target", name, "--cron", "0 6 * * *"], secrets)
        path = tmp_path / "lntx.service"
        path.write_text(text)
        done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
        assert "lntx.service" not in done.stderr, (name, done.stderr)


def test_options_of_a_unit_are_as_they_were_said(tmp_path: Path) -> None:
    words = ("--systemd", "--data.path", str(tmp_path), "--data.target", "100%", "--port", "4201")
    done = lntx("up", *words, root=tmp_path)
    (line,) = re.findall(r"^ExecStart=.* up (.*)$", done.out, re.M)
    assert line == f"--data.path {tmp_path} --data.target 100%% --port 4201 --foreground --root {tmp_path}"


def test_addresses_with_passwords_stand_in_no_unit(tmp_path: Path) -> None:
    """In a file of their owner alone, whether they came as options or as variables."""
    webhook, database = 'https://hooks.example.org/T"\\$x', "postgresql+asyncpg://me:geheim@db/prefect"
    for words, variables in (
        (("--webhook", webhook, f"--database={database}"), {}),
        ((), {"LNTX_WEBHOOK": webhook, "LNTX_DATABASE": database}),
    ):
        done = lntx("up", "--systemd", *words, root=tmp_path, env=variables)
        assert done.code == 0, done.err
        assert "geheim" not in done.out
        assert "hooks" not in done.out
        (path,) = re.findall(r"^EnvironmentFile=(.*)$", done.out, re.M)
        assert Path(path).stat().st_mode & 0o777 == 0o600
        lines = dict(line.split("=", 1) for line in Path(path).read_text().splitlines())
        assert {name: re.sub(r"\\(.)", r"\1", value[1:-1]) for name, value in lines.items()} == {
            "LNTX_WEBHOOK": webhook,
            "LNTX_DATABASE": database,
        }


def test_the_dead_man_waits_for_two_canaries() -> None:
    for asked, hours in (
        ({}, 6),
        ({"canary_interval_s": 86400}, 48),
        ({"canary_cron": "0 3 * * *"}, 48),
        ({"canary_cron": "0 3 * * 1-5"}, 144),
        ({"canary_cron": "0 0 1 1 *"}, MAX_HOURS),
        ({"canary_interval_s": 366 * 86400}, MAX_HOURS),
    ):
        assert canary_alert_hours(ServerOptions.model_validate(asked)) == hours


def test_down_without_a_server_is_fine(tmp_path: Path) -> None:
    assert lntx("down", "--json", root=tmp_path).json == {"was_up": False}
