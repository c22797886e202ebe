"""Leave a server alone for a while: memory, file handles and size of its database, what is lost, and when alerts come.

Run: python -m benchmarks.soak [--minutes 120]. One run and one canary a minute. At equal distances something is done to
it: SIGKILL of the server, of the process that starts runs, of the supervisor (and `lntx up` again); SIGSTOP of the
server for a minute; a full disk for a minute (as root: the root is then on a disk in memory); the clock goes an hour
forward (with a C compiler). Five minutes before the end a run with a wrong answer is started. Prints Markdown.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import described
from benchmarks.service import _free_port

_EVERY_S = 30.0
_PAUSE_S = 60.0
_HOUR_S = 3600
_DISK_BYTES = 3_000_000_000
# libfaketime breaks the sleep of Python 3.11: it knows no absolute times of another clock.
_CLOCK = r"""
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long *ahead;
__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_AHEAD"), O_RDONLY);
    ahead = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead;
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec, now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *out) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (out) *out = exact.tv_sec;
    return exact.tv_sec;
}
"""
NAMES = {"flows.server.api": "server", "flows.server.serve": "runner", "flows.server.supervisor": "supervisor"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    minutes = parser.parse_args().minutes
    alerts: queue.Queue[tuple[float, dict[str, Any]]] = queue.Queue()
    webhook = _receiver(alerts)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir()
        address = f"http://127.0.0.1:{webhook.server_port}"
        schedules = ("--interval", "60", "--canary-interval", "60")
        up = ("up", "--port", str(_free_port()), *schedules, "--webhook", address)
        with _small_disk(root) as is_small, _clock(Path(folder)) as clock:
            _lntx(*up, root=root)
            deeds = _deeds(root, up, is_small=is_small, clock=clock)
            try:
                rows, wrong_at = _watch(root, minutes * 60, deeds)
            finally:
                _lntx("down", root=root)
            runs = _runs(root)
        print(f"{described()} {minutes:g} minutes, one run and one canary a minute.\n")
        head = [f"{name}, MiB | {name}, handles" for name in NAMES.values()]
        print(f"| minutes | {' | '.join(head)} | database, MiB | runs |")
        print("|---" * (2 * len(NAMES) + 3) + "|")
        for row in rows[:: max(1, len(rows) // 8)] + rows[-1:]:
            print("| " + " | ".join(f"{cell:.4g}" for cell in row) + " |")
        print("\n| flow | state | runs |\n|---|---|---|")
        for name, state, number in runs:
            print(f"| {name} | {state} | {number} |")
        posts = [*alerts.queue]
        first = next((moment for moment, post in posts if post["alert"] == "wrong answer"), None)
        late = "none" if first is None else f"{first - wrong_at:.1f} s after the end of its run"
        print(f"\nalerts: {dict(Counter(post['alert'] for _, post in posts))}; that of the wrong answer: {late}")


@contextmanager
def _small_disk(root: Path) -> Iterator[bool]:
    """Put a root on a disk of its own; yield whether that worked."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(root)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        print("no disk of its own: the disk is not filled", flush=True)
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(root)], check=False)


@contextmanager
def _clock(folder: Path) -> Iterator[Path | None]:
    """Add to the clock of the processes started here the seconds in a file; yield its path, None without a compiler."""
    library, ahead = folder / "clock.so", folder / "ahead"
    try:
        build = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
        subprocess.run(build, input=_CLOCK, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        print("no C compiler: the clock is not changed", flush=True)
        yield None
        return
    ahead.write_bytes(bytes(8))
    variables = {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(ahead)}
    os.environ.update(variables)
    try:
        yield ahead
    finally:
        for name in variables:
            del os.environ[name]


def _deeds(
    root: Path, up: tuple[str, ...], *, is_small: bool, clock: Path | None
) -> list[tuple[str, Callable[[], None]]]:
    """Return what is done to the server, by name."""
    ballast = root / "ballast"

    def restart() -> None:
        _signal(root, "supervisor", signal.SIGKILL)
        time.sleep(5)
        _lntx(*up, root=root)

    def stop() -> None:
        _signal(root, "server", signal.SIGSTOP)
        time.sleep(_PAUSE_S)
        _signal(root, "server", signal.SIGCONT)

    def fill() -> None:
        try:
            with ballast.open("wb") as handle:
                while True:
                    handle.write(bytes(1_000_000))
        except OSError:
            time.sleep(_PAUSE_S)
        ballast.unlink()

    def advance() -> None:
        assert clock is not None
        with clock.open("r+b") as handle:
            handle.write(_HOUR_S.to_bytes(8, sys.byteorder))

    return [
        ("SIGKILL of the server", lambda: _signal(root, "server", signal.SIGKILL)),
        ("SIGKILL of the runner", lambda: _signal(root, "runner", signal.SIGKILL)),
        ("SIGKILL of the supervisor", restart),
        ("SIGSTOP of the server", stop),
        *([("full disk", fill)] if is_small else []),
        *([("clock an hour forward", advance)] if clock is not None else []),
    ]


def _watch(root: Path, seconds: float, deeds: list[tuple[str, Callable[[], None]]]) -> tuple[list[list[float]], float]:
    """Sample the processes until the end, and disturb them; return the samples, and when the wrong run ended."""
    begin, count = time.monotonic(), len(deeds)
    rows, wrong_at = [], 0.0
    while (now := time.monotonic() - begin) < seconds:
        if deeds and now > (count - len(deeds) + 1) / (count + 2) * seconds:
            name, deed = deeds.pop(0)
            print(f"minute {now / 60:.0f}: {name}\n", flush=True)
            deed()
        if not wrong_at and now > seconds - 300:
            _lntx("run", "--preset", "tutorial", root=root, code=3)
            wrong_at = time.monotonic()
        rows.append([now / 60, *_sizes(root)])
        time.sleep(_EVERY_S)
    return rows, wrong_at


def processes(root: Path) -> dict[str, int]:
    """Return the numbers of the processes of a root's server, by name."""
    numbers = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        for module, name in NAMES.items():
            if module in words and str(root) in words:
                numbers[name] = int(path.parent.name)
    return numbers


def _sizes(root: Path) -> list[float]:
    """Return MiB and open files of each process, MiB of the database, and the number of runs."""
    numbers = processes(root)
    sizes: list[float] = []
    for name in NAMES.values():
        try:
            status = Path(f"/proc/{numbers[name]}/status").read_text(encoding="utf-8")
            resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            sizes += [int(resident.split()[1]) / 1024, len([*Path(f"/proc/{numbers[name]}/fd").iterdir()])]
        except (KeyError, OSError, StopIteration):
            sizes += [float("nan"), float("nan")]
    database = sum(path.stat().st_size for path in (root / "artifacts" / ".prefect").glob("prefect.db*"))
    return [*sizes, database / 2**20, len([*(root / "artifacts" / "runs").glob("*.json")])]


def _signal(root: Path, name: str, number: signal.Signals) -> None:
    pid = processes(root).get(name)
    if pid is not None:
        os.kill(pid, number)


def _runs(root: Path) -> list[tuple[str, str, int]]:
    """Return the number of flow runs by flow and state: whatever is neither completed nor planned was lost."""
    with sqlite3.connect(root / "artifacts" / ".prefect" / "prefect.db") as database:
        query = (
            "SELECT flow.name, flow_run.state_name, count(*) FROM flow_run JOIN flow ON flow.id = flow_run.flow_id "
            "WHERE flow_run.state_name != 'Scheduled' GROUP BY 1, 2"
        )
        return [*database.execute(query)]


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
