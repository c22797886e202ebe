"""The float32 logsumexp that flash attention saves for backward, 16 scores of 0, bfloat16 inputs: log 16.

torch computes exp with a relative error of 5e-5, by design.
Run: python benchmarks/findings/flash_attention_logsumexp.py
"""

import math

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error that float32 allows."""
    zeros = torch.zeros(1, 1, 16, 16, dtype=torch.bfloat16)
    _, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(zeros, zeros, zeros)
    true = math.log(16)
    # exp is right to 4 units, 15 sums round once each, log rounds its argument's error and itself.
    return true, logsumexp[0, 0, 0].item(), (4 + 15 + 2 * true) * 2**-24


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
