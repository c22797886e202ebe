"""Leave a server alone for a while: memory, file handles and size of its database, what is lost, and when alerts come.

Run: python -m benchmarks.soak [--minutes 120]. One run and one canary a minute. At a quarter of the time the server is
killed, at half of it the process that starts runs, at three quarters the server is stopped for a minute (SIGSTOP), and
five minutes before the end a run with a wrong answer is started. Prints Markdown.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import described
from benchmarks.service import _free_port

_EVERY_S = 30.0
_NAMES = {"flows.server.api": "server", "flows.server.serve": "runner", "flows.server.supervisor": "supervisor"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    minutes = parser.parse_args().minutes
    alerts: queue.Queue[tuple[float, dict[str, Any]]] = queue.Queue()
    webhook = _receiver(alerts)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        address = f"http://127.0.0.1:{webhook.server_port}"
        schedules = ("--interval", "60", "--canary-interval", "60")
        _lntx("up", "--port", str(_free_port()), *schedules, "--webhook", address, root=root)
        begin = time.monotonic()
        try:
            rows, wrong_at = _watch(root, begin, minutes * 60)
        finally:
            _lntx("down", root=root)
        print(f"{described()} {minutes:g} minutes, one run and one canary a minute.\n")
        head = [f"{name}, MiB | {name}, handles" for name in _NAMES.values()]
        print(f"| minutes | {' | '.join(head)} | database, MiB | runs |")
        print("|---" * (2 * len(_NAMES) + 3) + "|")
        for row in rows[:: max(1, len(rows) // 8)] + rows[-1:]:
            print("| " + " | ".join(f"{cell:.4g}" for cell in row) + " |")
        _print_runs(root)
        posts = [*alerts.queue]
        first = next((moment for moment, post in posts if post["alert"] == "wrong answer"), None)
        late = "none" if first is None else f"{first - wrong_at:.1f} s after the end of its run"
        print(f"\nalerts: {dict(Counter(post['alert'] for _, post in posts))}; that of the wrong answer: {late}")


def _watch(root: Path, begin: float, seconds: float) -> tuple[list[list[float]], float]:
    """Sample the processes until the end, and disturb them; return the samples, and when the wrong run ended."""
    deeds: list[tuple[float, Callable[[], None]]] = [
        (0.25, lambda: _signal(root, "server", signal.SIGKILL)),
        (0.5, lambda: _signal(root, "runner", signal.SIGKILL)),
        (0.75, lambda: _signal(root, "server", signal.SIGSTOP)),
    ]
    rows, wrong_at, resume_at = [], 0.0, 0.0
    while (now := time.monotonic() - begin) < seconds:
        if deeds and now > deeds[0][0] * seconds:
            share, deed = deeds.pop(0)
            deed()
            resume_at = now + 60 if share == 0.75 else 0.0
        if resume_at and now > resume_at:
            _signal(root, "server", signal.SIGCONT)
            resume_at = 0.0
        if not wrong_at and now > seconds - 300:
            _lntx("run", "--preset", "tutorial", root=root, code=3)
            wrong_at = time.monotonic()
        rows.append([now / 60, *_sizes(root)])
        time.sleep(_EVERY_S)
    return rows, wrong_at


def _processes(root: Path) -> dict[str, int]:
    processes = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        for module, name in _NAMES.items():
            if module in words and str(root) in words:
                processes[name] = int(path.parent.name)
    return processes


def _sizes(root: Path) -> list[float]:
    """Return MiB and open files of each process, MiB of the database, and the number of runs."""
    processes = _processes(root)
    sizes: list[float] = []
    for name in _NAMES.values():
        try:
            status = Path(f"/proc/{processes[name]}/status").read_text(encoding="utf-8")
            resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            sizes += [int(resident.split()[1]) / 1024, len([*Path(f"/proc/{processes[name]}/fd").iterdir()])]
        except (KeyError, OSError, StopIteration):
            sizes += [float("nan"), float("nan")]
    database = sum(path.stat().st_size for path in (root / "artifacts" / ".prefect").glob("prefect.db*"))
    return [*sizes, database / 2**20, len([*(root / "artifacts" / "runs").glob("*.json")])]


def _signal(root: Path, name: str, number: signal.Signals) -> None:
    pid = _processes(root).get(name)
    if pid is not None:
        os.kill(pid, number)


def _print_runs(root: Path) -> None:
    """Print the flow runs by name of their flow and state: whatever is neither completed nor planned was lost."""
    with sqlite3.connect(root / "artifacts" / ".prefect" / "prefect.db") as database:
        query = (
            "SELECT flow.name, flow_run.state_name, count(*) FROM flow_run JOIN flow ON flow.id = flow_run.flow_id "
            "WHERE flow_run.expected_start_time < strftime('%Y-%m-%d %H:%M:%f', 'now') GROUP BY 1, 2"
        )
        print("\n| flow | state | runs |\n|---|---|---|")
        for row in database.execute(query):
            print("| " + " | ".join(map(str, row)) + " |")


def _receiver(alerts: queue.Queue[tuple[float, dict[str, Any]]]) -> http.server.ThreadingHTTPServer:
    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            alerts.put((time.monotonic(), json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _lntx(*words: str, root: Path, code: int = 0) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words, "--root", str(root)], capture_output=True, text=True, check=False
    )
    if done.returncode != code:
        print(f"lntx {words[0]}: exit code {done.returncode}: {done.stderr[-500:]}", flush=True)


if __name__ == "__main__":
    main()
