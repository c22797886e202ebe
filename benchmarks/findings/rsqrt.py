"""rsqrt, bfloat16: 1 / √x of single numbers, for the worst x from 1 to 4.

torch rounds the root, and rounds again after the division. Run: python benchmarks/findings/rsqrt.py
"""

import math

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error that float32 and one rounding to bfloat16 allow."""
    numbers = torch.arange(0x3F80, 0x4080, dtype=torch.int16).view(torch.bfloat16)
    # One by one: a long tensor goes to another kernel, which is right.
    found = [(x.item(), torch.rsqrt(x).item()) for x in numbers]
    x, value = max(found, key=lambda pair: abs(pair[1] * math.sqrt(pair[0]) - 1))
    true = 1 / math.sqrt(x)
    spacing = 2.0 ** (math.floor(math.log2(true)) - 7)
    return true, value, spacing / 2 + 5 * 2**-24 * true


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
