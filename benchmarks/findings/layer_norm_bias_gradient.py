"""Gradient of layer_norm's bias, bfloat16: a sum of 4,096 ones.

torch adds in bfloat16, where 256 + 1 is 256. Run: python benchmarks/findings/layer_norm_bias_gradient.py
"""

import math

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error that a float32 sum and one rounding to bfloat16 allow."""
    # Each thread adds its share of the rows.
    torch.set_num_threads(1)
    ones = torch.ones(4096, 16, dtype=torch.bfloat16)
    bias = torch.zeros(16, dtype=torch.bfloat16, requires_grad=True)
    y = torch.nn.functional.layer_norm(ones, (16,), bias=bias)
    (found,) = torch.autograd.grad(y, bias, ones)
    true = math.fsum(ones[:, 0].tolist())
    return true, found[0].item(), 2**-8 * true + 4096 * 2**-24 * true


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
