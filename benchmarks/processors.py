"""Canaries, proofs and findings with the kernels of other processors. Run: python benchmarks/processors.py [--tests]

torch and oneDNN choose their kernels by these variables. A build may lack kernels there; no verdict may change.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROCESSORS = (
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
)
"""Variables that choose kernels, for processors without AVX2 and without AVX-512."""

SEEDS = (1,)
TESTS = ("tests/canary", "tests/core/test_prove.py", "tests/core/test_formulas.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", action="store_true", help="run the tests of proof and canary too")
    options = parser.parse_args()
    settings = [{**kernels, "OMP_NUM_THREADS": str(threads)} for kernels in PROCESSORS for threads in (1, 2)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        wrong = [line for lines in pool.map(_run, settings) for line in lines]
    if options.tests:
        for kernels in PROCESSORS:
            words = ["-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-m", "not slow", "-p", "no:cacheprovider"]
            environment = {**os.environ, **kernels}
            done = subprocess.run([sys.executable, *words, *TESTS], cwd=ROOT, env=environment, check=False)
            wrong += [f"tests: exit code {done.returncode}"] if done.returncode else []
    sys.exit("\n".join(wrong) or None)


def _run(settings: dict[str, str]) -> list[str]:
    """Run both canaries and the findings with variables of the environment; return what is wrong."""
    name = " ".join(settings.values())
    command = [sys.executable, __file__, "--child"]
    environment = {**os.environ, **settings}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    print(f"== {name}\n{done.stdout}{done.stderr}", flush=True)
    return [] if done.returncode == 0 else [f"{name}: exit code {done.returncode}"]


def _child() -> None:
    """Run the canaries in this process, and print a line for each."""
    from lntx.canary.run import run_canary
    from lntx.canary.suite.options import CanaryOptions

    wrong = []
    for seed in SEEDS:
        for name, is_deep in (("canary", False), ("deep canary", True)):
            canary = run_canary(CanaryOptions(deep=is_deep, seed=seed))
            not_run = [case.sentence for case in canary.not_run]
            reason = [] if canary.reason is None else [canary.reason]
            print(f"{name}, seed {seed}: {canary.verdict}", *reason, *not_run, sep="\n  ")
            wrong += [name] if canary.verdict != "pass" else []
    found = subprocess.run([sys.executable, "benchmarks/findings", "--json"], capture_output=True, check=True)
    rows = json.loads(found.stdout)
    print(f"findings: {len(rows['rows'])} measured, not run: {rows['not_run'] or 'none'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    if sys.argv[1:] == ["--child"]:
        _child()
    else:
        main()
