"""Gradient of an embedding row, bfloat16: a sum of 16,384 ones.

torch adds in bfloat16, where 256 + 1 is 256. Run: python benchmarks/findings/embedding_gradient.py
"""

import math

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error that a float32 sum and one rounding to bfloat16 allow."""
    ones = torch.ones(16_384, 1, dtype=torch.bfloat16)
    rows = torch.zeros(16_384, dtype=torch.int64)
    true = math.fsum(ones.flatten().tolist())
    found = torch.ops.aten.embedding_dense_backward(ones, rows, 1, -1, False).item()
    return true, found, 2**-8 * true + 16_384 * 2**-24 * true


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
