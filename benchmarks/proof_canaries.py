"""Blind deep canaries: false alarms, and the share of the bound that each operator takes, as a Markdown page.

Run: python -m benchmarks.proof_canaries [NUMBER [SEED]]. One in thirty also checks compiled code, another one also two
processes; the number of threads is 1 or 2. Each has its own networks. Writes benchmarks/results/proof_canaries.md.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.machine import described
from lntx.canary.run import run_canary
from lntx.canary.suite.options import CanaryOptions
from lntx.canary.suite.results import Canary, OperatorReport

PAGE = Path(__file__).parent / "results" / "proof_canaries.md"


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    rows: dict[tuple[str, str, str], list[OperatorReport]] = defaultdict(list)
    alarms: list[str] = []
    calls = elements = compiled = processes = 0
    started = time.perf_counter()
    seeds = range(first, first + number)
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        for seed, found in zip(seeds, workers.map(_run, seeds), strict=True):
            calls += sum(case.calls or 0 for case in found.cases)
            elements += sum(row.elements for row in found.operators)
            compiled += seed % 30 == 0
            processes += seed % 30 == 15
            alarms += [f"seed {seed}: {case.name}: {case.reason}" for case in found.cases if case.verdict == "fail"]
            for row in found.operators:
                rows[row.operator, row.dtype, row.phase].append(row)
            if seed % 20 == 0:
                print(f"{seed - first + 1} of {number}, {len(alarms)} alarms", file=sys.stderr)
    minutes = (time.perf_counter() - started) / 60
    said = [
        "# Blind deep canaries",
        f"{number} canaries (seeds {first} to {first + number - 1}; {compiled} with compiled code, {processes} with "
        f"two processes), {calls:,} operator calls, {elements:,} elements, {minutes:.0f} minutes. {described()}",
        f"**{len(alarms)} false alarms.**" + "".join(f"\n- {alarm}" for alarm in alarms),
        "The share of the rounding bound: the largest of all calls, and the median over the canaries of their median. "
        "*Strict*: the largest with sums in float32, where the kernel adds in its own format of 16 bits. A share that "
        "is always 0 is that of an exact operator. A bound whose largest share is below 0.001 proves little.",
        _table(rows),
    ]
    weak = [name for name, found in rows.items() if 0 < max(row.largest for row in found) < 1e-3]
    said.append(f"Never above 0.001: {', '.join(' '.join(name) for name in sorted(weak)) or 'none'}.")
    PAGE.parent.mkdir(exist_ok=True)
    text = "\n\n".join(said) + "\n"
    PAGE.write_text(text, encoding="utf-8")
    print(text)


def _run(seed: int) -> Canary:
    return run_canary(CanaryOptions(deep=True, seed=seed, compiled=seed % 30 == 0, processes=seed % 30 == 15))


def _table(rows: dict[tuple[str, str, str], list[OperatorReport]]) -> str:
    lines = ["| operator | format | phase | calls | largest | median | strict |", "|---|---|---|---|---|---|---|"]
    for (operator, dtype, phase), found in sorted(rows.items()):
        largest = max(row.largest for row in found)
        strict = max(row.strict for row in found)
        median = statistics.median(row.median for row in found)
        calls = sum(row.calls for row in found)
        beside = f"{strict:.3g}" if strict > largest else ""
        lines.append(f"| {operator} | {dtype} | {phase} | {calls:,} | {largest:.2g} | {median:.2g} | {beside} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
