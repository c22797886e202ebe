"""Seconds of whole commands beside what a user would run instead, as a Markdown table with goals.

Run: make bench, or python benchmarks/startup.py [--rounds 5]. Each round runs everything once, in one order; medians
are shown. The plain script trains the same model in torch, exports it, and checks the export in a fresh process.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PLAIN = """
import subprocess, sys, torch
x = torch.randint(1, 11, (1000, 1), dtype=torch.float64); y = 3.7 * x
model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(1000):
    optimizer.zero_grad(); loss = torch.nn.functional.mse_loss(model(x), y); loss.backward(); optimizer.step()
torch.export.save(torch.export.export(model, (x[:2],)), sys.argv[1])
check = "import sys, torch; p = torch.export.load(sys.argv[1]).module(); p(torch.ones(2, 1, dtype=torch.float64))"
subprocess.run([sys.executable, "-c", check, sys.argv[1]], check=True)
"""
_BASE = "import pydantic, cyclopts; pydantic.BaseModel, cyclopts.App"
# Name, words of the command, what it is held against, and the largest ratio that is the goal.
_COMMANDS = (
    ("run --local, cold", ("run", "--local"), "plain", 0.70),
    ("run --local, cached", ("run", "--local"), "plain", 0.10),
    ("plan", ("plan",), "plain", 0.08),
    ("--help", ("--help",), "base", 2.0),
    ("runs", ("runs",), "base", 2.0),
    ("show", ("show",), "base", 2.0),
    ("predict 3", ("predict", "3"), "torch", 0.2),
)
_BESIDE = {
    "plain": "the plain script",
    "base": "import pydantic, cyclopts",
    "torch": "import torch",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "warm"
        _lntx(("run", "--local"), warm)
        for number in range(rounds):
            for name, code in (("plain", _PLAIN), ("base", _BASE), ("torch", "import torch")):
                command = [sys.executable, "-c", code, str(Path(folder) / f"{number}.pt2")]
                taken.setdefault(name, []).append(_seconds(command))
            for name, words, _, _ in _COMMANDS:
                root = Path(folder) / f"cold-{number}" if name.endswith("cold") else warm
                taken.setdefault(name, []).append(_lntx(words, root))
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, medians of {rounds}\n")
    print("| command | seconds | beside | seconds | ratio | goal |")
    print("|---|---|---|---|---|---|")
    for name, _, beside, goal in _COMMANDS:
        ours, other = statistics.median(taken[name]), statistics.median(taken[beside])
        missed = "" if ours / other <= goal else ", missed"
        print(f"| {name} | {ours:.2f} | {_BESIDE[beside]} | {other:.2f} | {ours / other:.2f} | ≤ {goal:g}{missed} |")


def _lntx(words: tuple[str, ...], root: Path) -> float:
    return _seconds([sys.executable, "-m", "flows.cli", *words, "--root", str(root)])


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
