"""Many clients submit runs at once: what is accepted, how they end, how long the API takes, the memory of each process.

Run: python -m benchmarks.load [--runs 200] [--clients 8] [--database postgresql+asyncpg://USER@HOST/NAME]. Meanwhile
the page of the UI and the list of the last 20 runs are asked for, again and again. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine import described
from benchmarks.service import _free_port
from benchmarks.soak import processes
from flows.server.home import Home

_LIMIT_S = 1800.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--database")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, words = Path(folder), ["--port", str(_free_port()), "--no-canary"]
        words += [] if options.database is None else ["--database", options.database]
        _lntx("up", *words, root=root)
        try:
            rows = _measure(root, options.runs, options.clients)
        finally:
            _lntx("down", root=root)
    print(f"{described()} {options.runs} runs, {options.clients} clients.\n")
    print(f"| | {'SQLite' if options.database is None else 'PostgreSQL'} |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


def _measure(root: Path, runs: int, clients: int) -> list[tuple[str, str]]:
    home = Home(root)
    state = home.running()
    assert state is not None
    user, _, password = home.secret().partition(":")
    api = httpx.Client(base_url=state.api_url, auth=(user, password), timeout=300)
    token = api.get("/csrf-token", params={"client": "load"}).json()["token"]
    api.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "load"})
    deployments = api.post("/deployments/filter", json={}).json()
    (pipeline,) = [entry["id"] for entry in deployments if entry["name"] == "pipeline"]
    answers: Counter[int] = Counter()
    idle = {name: _memory(process, "VmRSS") for name, process in processes(root).items()}

    def submit(number: int) -> None:
        # One in 15 has a path that does not exist: it must fail, and nothing else.
        data = {"seed": number, "num_rows": 100} if number % 15 else {"path": "missing.csv", "target": "y"}
        body = {"parameters": {"data": data}, "state": {"type": "SCHEDULED"}}
        answers[api.post(f"/deployments/{pipeline}/create_flow_run", json=body).status_code] += 1

    begin, seconds = time.monotonic(), {"page": list[float](), "list": list[float]()}
    is_over = threading.Event()
    query = {"limit": 20, "sort": "START_TIME_DESC"}
    asked: dict[str, Callable[[], Any]] = {
        "page": lambda: api.get(f"{state.url}/v2/"),
        "list": lambda: api.post("/flow_runs/filter", json=query),
    }

    def look(name: str) -> None:
        while not is_over.wait(0.5):
            started = time.monotonic()
            asked[name]()
            seconds[name].append(time.monotonic() - started)

    lookers = [threading.Thread(target=look, args=(name,)) for name in asked]
    for thread in lookers:
        thread.start()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(submit, range(runs)))
    submitted = time.monotonic() - begin
    ends: Counter[str] = Counter()
    while sum(ends.values()) < runs and time.monotonic() - begin < _LIMIT_S:
        time.sleep(2)
        states = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        for kind in states:
            body = {"flow_runs": {"state": {"type": {"any_": [kind]}}}}
            ends[kind] = api.post("/flow_runs/count", json=body).json()
    ended = time.monotonic() - begin
    is_over.set()
    for thread in lookers:
        thread.join()
    peaks = {name: _memory(process, "VmHWM") for name, process in processes(root).items()}
    outcome = ", ".join(f"{number} {kind.lower()}" for kind, number in ends.items() if number)
    return [
        ("submitted", f"{runs} in {submitted:.3g} s"),
        ("answers", ", ".join(f"{number} of {code}" for code, number in answers.items())),
        (
            "ended",
            f"{outcome} in {ended:.3g} s",
        ),
        ("events dropped", str(home.dropped_events())),
        ("page of the UI, median and 95 %", _spread(seconds["page"])),
        ("list of the last 20 runs, median and 95 %", _spread(seconds["list"])),
        *((f"memory of the {name}, before and at most", f"{idle[name]:.0f}, {peaks[name]:.0f} MiB") for name in peaks),
    ]


def _memory(process: int, field: str) -> float:
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:"))) / 1024


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2g} s, {statistics.quantiles(seconds, n=20)[-1]:.2g} s"


def _lntx(*words: str, root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words, "--json", "--root", str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(json.loads(done.stdout)["error"]["message"] if done.stdout else done.stderr)


if __name__ == "__main__":
    main()
