"""nll_loss, the mean of 256 equal losses of 1.8125, bfloat16.

torch adds in bfloat16. Run: python benchmarks/findings/nll_loss.py
"""

import math

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error that a float32 sum and one rounding to bfloat16 allow."""
    log_probabilities = torch.full((256, 1), -1.8125, dtype=torch.bfloat16)
    true = -math.fsum(log_probabilities.flatten().tolist()) / 256
    found = torch.nn.functional.nll_loss(log_probabilities, torch.zeros(256, dtype=torch.int64)).item()
    return true, found, 2**-8 * true + 257 * 2**-24 * true


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
