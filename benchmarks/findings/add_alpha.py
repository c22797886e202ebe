"""torch.add(-1, 99, alpha=0.01), bfloat16: 0.01 · 99 − 1.

torch rounds alpha to bfloat16, 0.01001. Run: python benchmarks/findings/add_alpha.py
"""

from fractions import Fraction

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error that float32 and one rounding to bfloat16 allow."""
    # 64 elements: torch computes the last few of a tensor by another kernel.
    x = torch.full((64,), -1.0, dtype=torch.bfloat16)
    y = torch.full((64,), 99.0, dtype=torch.bfloat16)
    true = float(Fraction(x[0].item()) + Fraction(0.01) * Fraction(y[0].item()))
    return true, torch.add(x, y, alpha=0.01)[0].item(), 2**-8 * abs(true) + 3 * 2**-24


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
