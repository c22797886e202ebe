"""A million rows by ten columns from a data frame: seconds and peak memory, as a Markdown table.

Run: make bench, or python benchmarks/frames.py [--rows ROWS] [--rounds 5]. Each fit is a process of its own, which
makes the frame, imports its library, and then fits; rounds are interleaved, and medians are shown. Memory is that over
frame and imports. R reads the same rows from a CSV file, which is not timed.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_FRAME = """
import json, resource, sys, time, tempfile
import numpy as np, pandas as pd
rows = int(sys.argv[1])
draw = np.random.default_rng(0)
x = draw.normal(size=(rows, 10))
frame = pd.DataFrame(x, columns=[f"x{j}" for j in range(10)])
frame["y"] = x @ np.arange(1.0, 11.0) + 3 + draw.normal(size=rows)
names = [f"x{j}" for j in range(10)]
"""
_FITS = {
    "lntx.fit, trained and proved": (
        "import lntx; lntx.fit(pd.DataFrame({'x': [1.0, 2, 4], 'y': [1.0, 2, 3]}), target='y', until='evaluate', "
        "root=tempfile.mkdtemp()); root = tempfile.mkdtemp()",
        "lntx.fit(frame, target='y', until='evaluate', root=root).coefficients",
    ),
    "statsmodels OLS": (
        "import statsmodels.api as sm",
        "sm.OLS(frame['y'], sm.add_constant(frame[names])).fit().summary()",
    ),
    "scikit-learn LinearRegression": (
        "from sklearn.linear_model import LinearRegression",
        "LinearRegression().fit(frame[names], frame['y'])",
    ),
}
_MEASURE = """
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
{fit}
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, (peak - before) / 1024]))
"""
_R = """
d <- read.csv(commandArgs(TRUE)[1]); invisible(gc(reset = TRUE)); before <- sum(gc()[, 2])
took <- system.time(s <- summary(lm(y ~ ., d)))[["elapsed"]]
cat(sprintf("[%.6g, %.6g]", took, sum(gc()[, 6]) - before))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default="1000000")
    asked = parser.parse_args()
    rows = asked.rows
    found: dict[str, list[list[float]]] = {name: [] for name in _FITS}
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("Rscript"):
            found["R lm and summary"] = []
            path = Path(folder) / "table.csv"
            _run([sys.executable, "-c", f"{_FRAME}\nframe.to_csv(sys.argv[2], index=False)", rows, str(path)])
        for _ in range(asked.rounds):
            for name, (setup, fit) in _FITS.items():
                code = f"{_FRAME}\n{setup}\n{_MEASURE.format(fit=fit)}"
                found[name].append(json.loads(_run([sys.executable, "-c", code, rows])))
            if "R lm and summary" in found:
                found["R lm and summary"].append(json.loads(_run(["Rscript", "-e", _R, str(path)])))
    base = statistics.median(seconds for seconds, _ in found["statsmodels OLS"])
    print(f"{int(rows):,} rows × 10 columns, medians of {asked.rounds} rounds, {platform.machine()}, Python "
          f"{platform.python_version()}\n")  # fmt: skip
    print("| fit | seconds | by statsmodels | MB over the frame |")
    print("|---|---|---|---|")
    for name, values in found.items():
        seconds, memory = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| {name} | {seconds:.2f} | {seconds / base:.1f} | {memory:.0f} |")


def _run(command: list[str]) -> str:
    """The last line that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip().rpartition("\n")[2]


if __name__ == "__main__":
    main()
