"""How often the joint test against the truth raises a false alarm, and the smallest fault that it catches.

Run: make bench, or python benchmarks/false_alarms.py. Thousands of datasets are batched in one tensor; the test is the
one that `lntx.evaluation.evaluate` applies.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from lntx.config.schema import Evaluate
from lntx.evaluation.chi2 import chance_of_gaps

DATASETS = 10_000
ROWS = 100
NOISE = 0.5
WEIGHTS = torch.tensor([3.7, -1.2, 2.0], dtype=torch.float64)
"""The truth; the last one is the bias."""


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    chances = simulate(DATASETS, ROWS, torch.zeros(3, dtype=torch.float64), generator)
    print(f"False alarms: {DATASETS:,} datasets of {ROWS} rows, 2 features and a bias, noise {NOISE}\n")
    print("| stated rate | alarms | observed rate | 95 % interval of the observed rate |")
    print("|---|---|---|---|")
    for rate in (0.5, 0.1, 0.05, 0.01, 0.001):
        alarms = int((chances < rate).sum())
        half = 1.96 * math.sqrt(rate * (1 - rate) / DATASETS)
        print(f"| {rate:g} | {alarms} | {alarms / DATASETS:.4f} | {max(rate - half, 0):.4f} to {rate + half:.4f} |")

    rate = Evaluate().false_alarm_rate
    print(f"\nPower: the smallest error of the first weight that is caught at the stated rate {rate:g}\n")
    print("| rows | caught in half of the datasets | in 99 % of them | the latter, in noise / (√rows · rms(x)) |")
    print("|---|---|---|---|")
    for num_rows in (10, 100, 1000, 10_000):
        count = min(2000, 10**7 // num_rows)
        half, most = (smallest_caught(num_rows, rate, share, count) for share in (0.5, 0.99))
        # The mean square of a uniform 1 to 10 is (10³ - 1³) / 27.
        error = NOISE / math.sqrt(num_rows * 37)
        print(f"| {num_rows:,} | {half:.2g} | {most:.2g} | {most / error:.1f} |")


def simulate(datasets: int, num_rows: int, fault: torch.Tensor, generator: torch.Generator) -> np.ndarray:
    """Chances that the joint test gives to datasets made with weights that are off the truth by `fault`.

    fault: shape (3,).

    Returns: shape (datasets,).
    """
    x = torch.rand(datasets, num_rows, 2, dtype=torch.float64, generator=generator) * 9 + 1
    columns = torch.cat([x, torch.ones(datasets, num_rows, 1, dtype=torch.float64)], dim=2)
    noise = NOISE * torch.randn(datasets, num_rows, dtype=torch.float64, generator=generator)
    y = columns @ (WEIGHTS + fault) + noise
    q, r = torch.linalg.qr(columns)
    solutions = torch.linalg.solve_triangular(r, q.mT @ y.unsqueeze(2), upper=True).squeeze(2)
    return chance_of_gaps(r.numpy(), (solutions - WEIGHTS).numpy(), NOISE)


def smallest_caught(num_rows: int, rate: float, share: float, datasets: int) -> float:
    """Smallest fault of the first weight that is caught in that share of the datasets, by bisection on a log scale."""
    low, high = 1e-6, 1e2
    while high / low > 1.02:
        middle = math.sqrt(low * high)
        fault = torch.tensor([middle, 0.0, 0.0], dtype=torch.float64)
        # The same draws for every fault: what is caught can only grow with it.
        chances = simulate(datasets, num_rows, fault, torch.Generator().manual_seed(1))
        low, high = (low, middle) if float((chances < rate).mean()) >= share else (middle, high)
    return high


if __name__ == "__main__":
    main()
