"""Seconds of each stage on many rows beside reading the same files, and beside scikit-learn, as Markdown tables.

Run: make bench, or python -m benchmarks.rows [--rounds 5] [--rows 100000000]. Stages run in this process, warm, without
imports; each round runs everything once, in order; medians are shown. `read` is pyarrow's ParquetFile.iter_batches over
the same files, from the page cache, in one thread: more threads do not make it faster for a single file.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

import lntx.base.workers
from benchmarks.machine import described
from lntx.config.loading import settle
from lntx.data.dataset import Dataset, open_dataset, read_blocks
from lntx.data.shards import generate_parts
from lntx.evaluation.evaluate import evaluate
from lntx.training.fit import fit

_GOALS = {"generate": 5.0, "train": 4.0, "evaluate": 8.0}
_WIDE = (10**6, 100)
_SPEEDUP = 1.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=10**8)
    asked = parser.parse_args()
    print(f"{described()} Medians of {asked.rounds} rounds.")
    with tempfile.TemporaryDirectory() as folder:
        _stages(Path(folder), asked.rows, 1, asked.rounds)
        _stages(Path(folder), *_WIDE, asked.rounds)
        _against_others(Path(folder), asked.rows // 10, asked.rounds)


class _Stages:
    """The stages on one configuration, in a folder."""

    def __init__(self, folder: Path, num_rows: int, num_features: int) -> None:
        data: dict[str, Any] = {"num_rows": num_rows}
        if num_features > 1:
            data["num_features"] = num_features
        self.config = settle(preset=None, file=None, environment={}, overrides={"data": data})
        self._folder = folder / f"{num_rows}-{num_features}"
        self._figures: Any = None

    @property
    def dataset(self) -> Dataset:
        return open_dataset(*sorted(self._folder.glob("*.parquet")))

    def generate(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        (self._folder / "resume").mkdir(parents=True)
        generate_parts(self.config.data, self._folder, self._folder / "resume")

    def read(self) -> None:
        for path in self.dataset.paths:
            with pq.ParquetFile(path, memory_map=False) as file:
                for _ in file.iter_batches(batch_size=2**16, use_threads=False):
                    pass

    def train(self) -> None:
        _, self._figures, _ = fit(self.dataset, self.config.train, bias=self.config.learns_bias)

    def evaluate(self) -> None:
        found = evaluate(
            self.dataset, sha256="", data=self.config.data, fit=self._figures, settings=self.config.evaluate
        )
        assert found.verdict == "pass", found.reason


def _stages(folder: Path, num_rows: int, num_features: int, rounds: int) -> None:
    # The compiled loops, and what is imported late.
    warm = _Stages(folder, max(2**24 // (num_features + 1), 10**5), num_features)
    for work in (warm.generate, warm.train, warm.evaluate):
        work()
    stages, cores = _Stages(folder, num_rows, num_features), lntx.base.workers.cores()
    taken: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for count in sorted({1, cores}):
            with_cores(count)
            for name in ("generate", "read", "train", "evaluate"):
                taken.setdefault((name, count), []).append(seconds(getattr(stages, name)))
    size = sum(path.stat().st_size for path in stages.dataset.paths)
    features = f"{num_features} feature" + "s" * (num_features > 1)
    print(f"\n{num_rows:,} rows of {features}, {size / 1e6:,.0f} MB of files:\n")
    print(f"| stage | s, 1 core | s, {cores} cores | faster by | of a read, {cores} cores | goal |")
    print("|---|---|---|---|---|---|")
    read = statistics.median(taken["read", 1] + taken["read", cores])
    for name in ("read", *_GOALS):
        one, all_ = (statistics.median(taken[name, count]) for count in (1, cores))
        speedup = f"{one / all_:.2f}" if name != "read" else ""
        goal = ""
        if num_features == 1 and name != "read":
            missed = ("" if all_ / read <= _GOALS[name] else ", missed") if cores > 1 else ", on one core"
            slow = "" if cores == 1 or one / all_ >= _SPEEDUP else f"; faster by {_SPEEDUP} missed"
            goal = f"≤ {_GOALS[name]:g}{missed}{slow}"
        print(f"| {name} | {one:.2f} | {all_:.2f} | {speedup} | {all_ / read:.1f} | {goal} |", flush=True)


def _against_others(folder: Path, num_rows: int, rounds: int) -> None:
    from sklearn.linear_model import LinearRegression, SGDRegressor

    stages = _Stages(folder, num_rows, 1)
    stages.generate()
    blocks = list(read_blocks(stages.dataset))
    x, y = np.concatenate([block.x for block in blocks]), np.concatenate([block.y for block in blocks])
    integers = x[:, 0].astype(np.int8)
    schema = pa.schema([pa.field("x", pa.int8(), nullable=False), pa.field("y", pa.float64(), nullable=False)])

    def write() -> None:
        table = pa.table([pa.array(integers), pa.array(y)], schema=schema)
        pq.write_table(table, folder / "plain.parquet", compression="NONE", write_statistics=False)

    def learn_from_file(model: Any) -> Callable[[], None]:
        def work() -> None:
            table = pq.read_table(folder / "plain.parquet")
            model.fit(np.asarray(table["x"], dtype=np.float64)[:, None], np.asarray(table["y"]))

        return work

    write()
    works: dict[str, Callable[[], None]] = {
        "train": stages.train,
        "evaluate": stages.evaluate,
        "linear": lambda: LinearRegression().fit(x, y),
        "linear, from a file": learn_from_file(LinearRegression()),
        "SGD": lambda: SGDRegressor(max_iter=1, tol=None).fit(x, y),
        "generate": stages.generate,
        "write": write,
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(seconds(work))
    found = {name: statistics.median(values) for name, values in taken.items()}
    print(f"\n{num_rows:,} rows of 1 feature, the same for all:\n")
    print("| lntx | s | beside | s | ratio | goal |")
    print("|---|---|---|---|---|---|")
    for ours, beside, what, goal, least in (
        ("train", "linear", "LinearRegression.fit, rows in memory", 10.0, True),
        ("train", "linear, from a file", "read_table, LinearRegression.fit", 10.0, True),
        ("train", "SGD", "an epoch of SGDRegressor, rows in memory", 100.0, True),
        ("generate", "write", "pyarrow writes the same rows", 1.8, False),
    ):
        ratio = found[beside] / found[ours] if least else found[ours] / found[beside]
        missed = "" if (ratio >= goal) == least or ratio == goal else ", missed"
        sign = "≥" if least else "≤"
        said = "faster by " if least else ""
        times = f"| {ours} | {found[ours]:.3f} | {what} | {found[beside]:.3f} |"
        print(f"{times} {said}{ratio:.2f} | {sign} {goal:g}{missed} |", flush=True)


def with_cores(count: int) -> None:
    """Let passes over the rows use a number of cores."""
    lntx.base.workers.cores = lambda: count


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
