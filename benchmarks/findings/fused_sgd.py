"""Fused SGD, bfloat16: 1 − 0.125 · 1, in a tensor of 64 elements.

torch does not change the first elements of the parameter at all. Run: python benchmarks/findings/fused_sgd.py
"""

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error that float32 and one rounding to bfloat16 allow."""
    weight = torch.nn.Parameter(torch.ones(64, dtype=torch.bfloat16))
    weight.grad = torch.ones_like(weight)
    torch.optim.SGD([weight], lr=0.125, fused=True).step()
    true = 1 - 0.125 * 1
    return true, weight[0].item(), 2**-8 * true + 3 * 2**-24


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
