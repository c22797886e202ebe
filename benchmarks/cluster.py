"""A Ray cluster of two nodes on this machine beside one process: the same digests, and what the cluster costs.

Run: make bench, or python -m benchmarks.cluster [--rounds 3] [--rows 100000000]. Each node has one processor, so the
rows are worked on by as many processors as in one process of a machine with two cores. Each round runs both once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.machine import described

_STAGES = ("generate", "train", "evaluate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=10**8)
    asked = parser.parse_args()
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        print("Not measured: Ray is not installed: pip install 'lntx[ray]'")
        return
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        where = {"one process": (), "two nodes": ("--engine", "ray", "--ray-address", str(cluster.address))}
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in where}
        for _ in range(asked.rounds):
            for name, options in where.items():
                found[name].append(_run(asked.rows, options))
    finally:
        cluster.shutdown()
    digests = {json.dumps(one["digests"]) for runs in found.values() for one in runs}
    assert len(digests) == 1, "the digests differ"
    print(f"{described()} {asked.rows:,} rows of one feature, medians of {asked.rounds} rounds; the same digests.\n")
    print("| | the command, s | " + " | ".join(_STAGES) + " |")
    print("|---|---|---|---|---|")
    for name, runs in found.items():
        stages = " | ".join(f"{statistics.median(one[stage] for one in runs):.2f}" for stage in _STAGES)
        print(f"| {name} | {statistics.median(one['command'] for one in runs):.1f} | {stages} |")


def _run(rows: int, options: tuple[str, ...]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "flows.cli", "run", "--local", "--json", "-q", "--root", root]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--data.num-rows", str(rows), *options], check=True, capture_output=True, text=True
        )
        seconds = time.perf_counter() - started
    stages = json.loads(done.stdout)["stages"]
    return {
        "command": seconds,
        "digests": {name: [file["sha256"] for file in stages[name]["files"]] for name in stages},
        **{name: stages[name]["seconds"] for name in _STAGES},
    }


if __name__ == "__main__":
    main()
