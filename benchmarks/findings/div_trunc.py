"""3.0625 / 1.0234375 cut off to a whole number, bfloat16.

torch cuts off the rounded quotient. Run: python benchmarks/findings/div_trunc.py
"""

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and half of the distance of two whole numbers."""
    # A single number goes to another kernel, which is right.
    numbers, divisors = torch.full((64,), 3.0625).bfloat16(), torch.full((64,), 1.0234375).bfloat16()
    return 2.0, torch.div(numbers, divisors, rounding_mode="trunc")[0].item(), 0.5


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
