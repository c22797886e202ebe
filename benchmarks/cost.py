"""Seconds of each stage and peak memory of `lntx run --local` by the number of rows and of features, as pictures.

Run: make bench, or python -m benchmarks.cost [--most 1000000000] [--into FOLDER]. Each size is one command in a fresh
process and an empty root. Memory beyond that of the smallest run is what the rows cost: the rest is imports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.machine import described

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STAGES = ("generate", "train", "evaluate", "export")
_FEATURES = (1, 3, 10, 30, 100, 300, 1000)
_WIDE_ROWS = 10**5
_BILLION, _SECONDS, _MEGABYTES = 10**9, 240.0, 150.0


class Cost(NamedTuple):
    """What one command cost."""

    num_rows: int
    num_features: int
    seconds: float
    stages: dict[str, float]
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=10**8, help="largest number of rows")
    parser.add_argument("--into", type=Path, default=Path("build/bench"), help="folder of the pictures")
    asked = parser.parse_args()
    print(f"{described()} One command each.\n")
    print("| rows | features | command, s | generate | train | evaluate | export | peak, MB | MB beyond 1,000 rows |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    measure(1000, 1)
    by_rows = [_shown(measure(10**power, 1), 0.0) for power in [3]]
    base = by_rows[0].megabytes
    by_rows += [_shown(measure(10**power, 1), base) for power in range(4, 10) if 10**power <= asked.most]
    by_features = [_shown(measure(_WIDE_ROWS, count), base) for count in _FEATURES]
    _draw(by_rows, "rows of one feature", asked.into / "cost_by_rows.svg", base)
    _draw(by_features, f"features, {_WIDE_ROWS:,} rows", asked.into / "cost_by_features.svg", base)
    last = by_rows[-1]
    if last.num_rows == _BILLION:
        beyond = last.megabytes - base
        met = "met" if last.seconds <= _SECONDS and beyond <= _MEGABYTES else "missed"
        print(f"\nGoal for 1e9 rows: {_SECONDS:.0f} s and {_MEGABYTES:.0f} MB beyond the imports: {met}.")


def measure(num_rows: int, num_features: int) -> Cost:
    """Run one command in an empty root."""
    with tempfile.TemporaryDirectory() as root:
        size = ["--data.num-rows", str(num_rows)]
        size += ["--data.num-features", str(num_features)] if num_features > 1 else []
        command = [sys.executable, "-m", "flows.cli", "run", "--local", "--json", "-q", "--root", root, *size]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        said: dict[str, Any] = json.loads(process.stdout.read())
        process.stdout.close()
        # The largest of the process and its helper, which share no memory that counts.
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert said["verdict"] == "pass", said.get("reason") or said
    stages = {name: float(said["stages"][name]["seconds"]) for name in _STAGES}
    return Cost(num_rows, num_features, seconds, stages, used.ru_maxrss / 1024)


def _shown(cost: Cost, base: float) -> Cost:
    stages = " | ".join(f"{cost.stages[name]:.2f}" for name in _STAGES)
    beyond = f"{cost.megabytes - base:.0f}" if base else ""
    line = f"| {cost.num_rows:,} | {cost.num_features:,} | {cost.seconds:.1f} | {stages} | {cost.megabytes:.0f} |"
    print(f"{line} {beyond} |", flush=True)
    return cost


def _draw(costs: list[Cost], across: str, path: Path, base: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left: Axes
    left, right = figure.subplots(1, 2)
    by_rows = len({cost.num_features for cost in costs}) == 1
    places = [cost.num_rows if by_rows else cost.num_features for cost in costs]
    for name in _STAGES:
        left.plot(places, [cost.stages[name] for cost in costs], marker="o", markersize=3, label=name)
    left.set(xscale="log", yscale="log", xlabel=across, ylabel="seconds")
    left.legend(frameon=False)
    right.plot(places, [cost.megabytes - base for cost in costs], marker="o", markersize=3, color="black")
    right.set(xscale="log", xlabel=across, ylabel="MB beyond a run of 1,000 rows")
    for axes in (left, right):
        axes.grid(alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
