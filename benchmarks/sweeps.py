"""Seconds of 1,000 small trainings side by side, beside a plain Python loop of the same trainings, as a Markdown table.

Run: make bench, or python -m benchmarks.sweeps [--rounds 5]. Each training: 1,000 rows of one feature, 200 epochs of
all rows at one learning rate, from its own seed. The loop is nn.Linear, MSELoss, backward and SGD in float64; a few
trainings are timed and multiplied. lntx also solves the rows exactly and judges every training.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.machine import described
from benchmarks.rows import seconds
from lntx.config.loading import settle
from lntx.data.synthetic import generate_blocks
from lntx.sweep import vectorized
from lntx.sweep.sweep import sweep

_TRAININGS, _TIMED, _EPOCHS = 1000, 5, 200
_TRAIN = {"learning_rate": 0.001, "max_epochs": _EPOCHS, "tolerance": 0, "precondition": "none", "bias": False}
_GOAL = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    config = settle(preset=None, file=None, environment={}, overrides={"train": _TRAIN})
    x, y = next(generate_blocks(config.data))
    rows = torch.from_numpy(x.astype("float64")), torch.from_numpy(y).unsqueeze(1)
    whole, alone, loop = [], [], []
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as folder:
            spent: list[float] = []
            together = vectorized.train_together
            vectorized.train_together = _timed(together, spent)
            try:
                whole.append(seconds(lambda: sweep(config, {"train.seed": [*range(_TRAININGS)]}, root=Path(folder))))
            finally:
                vectorized.train_together = together
            alone.append(sum(spent))
        loop.append(
            sum(seconds(functools.partial(_train, *rows, seed)) for seed in range(_TIMED)) * _TRAININGS / _TIMED
        )
    print(f"{described()} Medians of {asked.rounds} rounds.")
    print(f"The loop is {_TIMED} trainings, times {_TRAININGS // _TIMED}.\n")
    print("| 1,000 trainings | seconds | a Python loop of them | faster by | goal |")
    print("|---|---|---|---|---|")
    for name, taken in (("descents alone", alone), ("the whole sweep, judged and stored", whole)):
        ours, other = statistics.median(taken), statistics.median(loop)
        missed = "" if other / ours >= _GOAL else ", missed"
        print(f"| {name} | {ours:.3f} | {other:.1f} | {other / ours:,.0f} | ≥ {_GOAL:,}{missed} |")


def _timed(function: Any, spent: list[float]) -> Any:
    def timed(*args: Any, **options: Any) -> Any:
        found: list[Any] = []
        spent.append(seconds(lambda: found.append(function(*args, **options))))
        return found[0]

    return timed


def _train(x: torch.Tensor, y: torch.Tensor, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    criterion, optimizer = nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.001)
    for _ in range(_EPOCHS):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


if __name__ == "__main__":
    main()
