"""Seconds of runs on a Prefect server beside a bare flow of four empty tasks on the same server, as a Markdown table.

Run: make bench, or python -m benchmarks.service [--rounds 5] [--many 24]. Each round runs everything once, in order;
medians are shown. `--many` also starts that many runs at once, of the pipeline and of the bare flow, served the same
way. The goals of a run that computes are of the bare flow and `run --local` together.
"""

from __future__ import annotations

import argparse
import functools
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine import described
from flows.server.home import Home

_BARE = """
from prefect import flow, task
@task
async def empty(): pass
@flow
async def bare():
    for _ in range(4): await empty()
if __name__ == "__main__":
    import asyncio, sys
    if sys.argv[1:] == ["serve"]:
        from prefect import serve
        serve(bare.to_deployment("bare"), limit=4)
    else:
        asyncio.run(bare())
"""

Row = tuple[str, float, str, float, float]
"""A command, its seconds, what it is held against, the seconds of that, and the largest ratio that is the goal."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "bare.py"
        script.write_text(_BARE, encoding="utf-8")
        print(f"{described()} Medians of {asked.rounds} rounds.\n")
        print("| | seconds | beside | seconds | ratio | goal |")
        print("|---|---|---|---|---|---|", flush=True)
        _show(_on_a_server(Path(folder), script, asked.rounds))
        _show(_embedded(Path(folder), script, asked.rounds))
        _show(_ups(Path(folder), asked.rounds))
        if asked.many:
            _show(_many(Path(folder), script, asked.many))


def _show(rows: list[Row]) -> None:
    for name, ours, beside, other, goal in rows:
        missed = "" if ours / other <= goal else ", missed"
        line = f"| {name} | {ours:.2f} | {beside} | {other:.2f} | {ours / other:.2f} | ≤ {goal:g}{missed} |"
        print(line, flush=True)


def _on_a_server(folder: Path, script: Path, rounds: int) -> list[Row]:
    with _up(folder / "served") as environment:
        taken = _rounds(folder / "served", script, rounds, environment)
    return _compare("server up", taken, cached=1.25, cold=1.1)


def _embedded(folder: Path, script: Path, rounds: int) -> list[Row]:
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment.pop("PREFECT_API_URL", None)
    environment["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "true"
    taken = _rounds(folder / "embedded", script, rounds, environment)
    return _compare("embedded", taken, cached=1.05, cold=0.9)


def _rounds(root: Path, script: Path, rounds: int, environment: dict[str, str]) -> dict[str, float]:
    """Return the median seconds of each kind of run. The first round, which fills caches, does not count."""
    taken: dict[str, list[float]] = {"bare": [], "cached": [], "cold": [], "local": []}
    for number in range(rounds + 1):
        seed = ("--data.seed", str(number))
        for name, command in (
            ("bare", [sys.executable, str(script)]),
            ("cold", _lntx("run", *seed, root=root)),
            ("cached", _lntx("run", *seed, root=root)),
            ("local", _lntx("run", "--local", *seed, root=root.with_name(f"{root.name}-local"))),
        ):
            seconds = _seconds(command, environment)
            taken[name] += [seconds] if number else []
    return {name: statistics.median(values) for name, values in taken.items()}


def _compare(where: str, taken: dict[str, float], *, cached: float, cold: float) -> list[Row]:
    both = taken["bare"] + taken["local"]
    return [
        (f"run, {where}, cached", taken["cached"], "the bare flow", taken["bare"], cached),
        (f"run, {where}, cold", taken["cold"], "the bare flow and run --local, cold", both, cold),
    ]


def _ups(folder: Path, rounds: int) -> list[Row]:
    """Compare `lntx up` until its deployments are there with `prefect server start` until it is healthy."""
    ours, other = [], []
    for number in range(rounds):
        started = time.perf_counter()
        with _up(folder / f"up-{number}"):
            ours.append(time.perf_counter() - started)
        environment = {**os.environ, "PREFECT_HOME": str(folder / f"plain-{number}")}
        started = time.perf_counter()
        port = _free_port()
        with _running([sys.executable, "-m", "prefect", "server", "start", "--port", str(port)], environment):
            _until(functools.partial(_answers, f"http://127.0.0.1:{port}/api/health"))
            other.append(time.perf_counter() - started)
    beside = "prefect server start, until healthy"
    return [("up, until ready", statistics.median(ours), beside, statistics.median(other), 1.3)]


def _many(folder: Path, script: Path, count: int) -> list[Row]:
    """Start many runs at once: cached ones of the pipeline, and of the bare flow, four at a time."""
    with _up(folder / "many") as environment:
        subprocess.run(_lntx("run", root=folder / "many"), check=True, capture_output=True)
        ours = _until_completed(environment, "lntx/pipeline", count)
        with _running([sys.executable, str(script), "serve"], environment):
            _until(lambda: _deployment(environment, "bare/bare") is not None)
            other = _until_completed(environment, "bare/bare", count)
    return [(f"{count} runs at once, until all are completed", ours, f"{count} bare flows, served", other, 1.5)]


def _until_completed(environment: dict[str, str], name: str, count: int) -> float:
    code = (
        "import asyncio, sys\n"
        "from prefect.deployments import run_deployment\n"
        "async def main():\n"
        f"    runs = await asyncio.gather(*(run_deployment({name!r}, timeout=3600, poll_interval=1) "
        f"for _ in range({count})))\n"
        "    states = {run.state.type.value for run in runs}\n"
        "    assert states == {'COMPLETED'}, states\n"
        "asyncio.run(main())\n"
    )
    return _seconds([sys.executable, "-c", code], environment)


def _deployment(environment: dict[str, str], name: str) -> str | None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "deployment", "inspect", name],
        check=False,
        env=environment,
        capture_output=True,
    )
    return None if done.returncode else name


@contextmanager
def _up(root: Path) -> Iterator[dict[str, str]]:
    """Start `lntx up`, and yield the environment in which Prefect's clients find its server."""
    port = _free_port()
    # It returns once the deployments are served.
    subprocess.run(_lntx("up", "--no-canary", "--port", str(port), root=root), check=True, capture_output=True)
    try:
        url = f"http://127.0.0.1:{port}/api"
        yield {**os.environ, "PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": Home(root).secret()}
    finally:
        subprocess.run(_lntx("down", root=root), check=True, capture_output=True)


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _until(ready: Any, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come up")
        time.sleep(0.1)


def _lntx(*words: str, root: Path) -> list[str]:
    return [sys.executable, "-m", "flows.cli", *words, "--root", str(root)]


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
