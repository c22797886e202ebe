"""Training on a GPU: the same weights as on the CPU, and the share of the card's bandwidth that a pass reaches.

Run: make bench, or python -m benchmarks.gpu [--rounds 5] [--device cuda]. Without a CUDA device it says so and ends.
`--device cpu` runs the same on the processor.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.machine import described
from benchmarks.rows import seconds
from lntx.config.loading import settle
from lntx.data.dataset import open_dataset
from lntx.data.shards import generate_parts
from lntx.training.fit import fit
from lntx.training.gradients import Part
from lntx.training.moments import sums_of_rows

_SIZES = ((2**24, 1), (2**16, 1000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("Not measured: torch finds no CUDA device here.")
        return
    device = torch.device(asked.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the processor"
    print(f"{described()} On {name}. Medians of {asked.rounds} rounds.\n")
    print("| rows | features | weights as on the CPU | again the same | a pass, GB/s | a copy, GB/s | share |")
    print("|---|---|---|---|---|---|---|")
    for num_rows, num_features in _SIZES:
        same, again = _trained(num_rows // 8, num_features, device)
        passed, copied = _bandwidth(num_rows, num_features, device, asked.rounds)
        line = f"| {num_rows:,} | {num_features:,} | {same} | {again} | {passed:.0f} | {copied:.0f} |"
        print(f"{line} {passed / copied:.0%} |", flush=True)


def _trained(num_rows: int, num_features: int, device: torch.device) -> tuple[str, str]:
    """Train on the CPU and twice on the device; return whether the weights have the same bits."""
    data = {"num_rows": num_rows, "num_features": num_features, "noise": 0.5}
    config = settle(preset=None, file=None, environment={}, overrides={"data": data, "train": {"gradient": "moments"}})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "resume").mkdir()
        generate_parts(config.data, folder, folder / "resume")
        dataset = open_dataset(*sorted(folder.glob("*.parquet")))
        found = []
        for kind in ("cpu", device.type, device.type):
            train = config.train.model_copy(update={"device": kind})
            model, _, _ = fit(dataset, train, bias=config.learns_bias)
            found.append((model.weights, model.bias))
    return ("yes" if found[0] == found[1] else "no"), ("yes" if found[1] == found[2] else "no")


def _bandwidth(num_rows: int, num_features: int, device: torch.device, rounds: int) -> tuple[float, float]:
    """Return the GB/s of a pass of moments over rows on the device, and those of a copy of the rows."""
    x = torch.rand((num_features, num_rows), dtype=torch.float64, device=device).T
    y = torch.rand((num_rows, 1), dtype=torch.float64, device=device)
    weights = torch.rand(num_features, dtype=torch.float64, device=device)
    taken = [_median(lambda: sums_of_rows([Part(x, y)], weights), device, rounds)]
    taken.append(_median(x.clone, device, rounds))
    size = 8e-9 * num_rows * num_features
    return size / taken[0], 2 * size / taken[1]


def _median(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    def whole() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    whole()
    return statistics.median(seconds(whole) for _ in range(rounds))


if __name__ == "__main__":
    main()
