"""torch's own float32 weight gradient over many rows, beside the one that lntx takes steps with.

Run: make bench, or python benchmarks/float32_sums.py [most rows, 1e8 by default].
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from lntx.training.gradients import Part, backward, gradient
from lntx.training.model import LNTXLinearModel


def main() -> None:
    most = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10**8
    torch.set_num_threads(1)
    print("Relative error of the first float32 weight gradient; y = 3.7 x, x uniform in 1..10, one feature\n")
    print("| rows | plain torch: loss.backward() over all rows | lntx |")
    print("|---|---|---|")
    num_rows = 10**5
    while num_rows <= most:
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(num_rows, 1, generator=generator) * 9 + 1
        y = 3.7 * x
        model = LNTXLinearModel(dtype=torch.float32)
        with torch.no_grad():
            model.linear.weight.fill_(1.0)
        loss = nn.functional.mse_loss(model(x), y)
        naive = float(torch.autograd.grad(loss, [model.linear.weight])[0])
        backward(model, [Part(x, y)], num_rows)
        ours = float(gradient(model.linear.weight))
        exact = _exact(x, y)
        print(f"| {num_rows:,} | {abs(naive / exact - 1):.1e} | {abs(ours / exact - 1):.1e} |", flush=True)
        num_rows *= 10


def _exact(x: torch.Tensor, y: torch.Tensor) -> float:
    """The gradient at weight 1, added up in float64."""
    total = 0.0
    for start in range(0, len(x), 2**20):
        part = x[start : start + 2**20]
        residual = (part - y[start : start + 2**20]).double()
        total += float((residual * part.double()).sum())
    return 2 * total / len(x)


if __name__ == "__main__":
    main()
