"""log_softmax of (0, −6), its first value, bfloat16.

torch rounds the sum 1 + exp(−6) to bfloat16, 1. Run: python benchmarks/findings/log_softmax.py
"""

import math

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error that float32 and one rounding to bfloat16 allow."""
    logits = torch.tensor([[0.0, -6.0]], dtype=torch.bfloat16)
    true = -math.log1p(math.exp(-6))
    # A float32 sum near 1 is off by 2^-24, and so is its logarithm; exp and log may be off by a few more.
    return true, torch.log_softmax(logits, 1)[0, 0].item(), 2**-8 * abs(true) + 4 * 2**-24


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
