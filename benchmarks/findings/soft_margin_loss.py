"""soft_margin_loss of the score −12 for the class 1, float16.

torch computes exp(12) in float16, which ends at 65,504. Run: python benchmarks/findings/soft_margin_loss.py
"""

import math

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and one rounding to float16."""
    score, one = torch.tensor([-12.0]).half(), torch.tensor([1.0]).half()
    true = math.log1p(math.exp(12))
    return true, torch.nn.functional.soft_margin_loss(score, one).item(), 2.0**-11 * 2 * true


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
