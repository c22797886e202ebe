"""gelu(−5.6), float32.

torch computes 1 + erf(x/√2), which cancels. Run: python benchmarks/findings/gelu.py
"""

import math

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error that erfc(−x/√2) in float32 allows."""
    x = torch.full((64,), -5.6)
    z = -x[0].item() / math.sqrt(2)
    true = -z / math.sqrt(2) * math.erfc(z)
    # Two roundings of z change erfc(z) by 2 · 2z² of their size; erfc and two products round four times.
    return true, torch.nn.functional.gelu(x)[0].item(), (4 + 4 * z * z) * 2**-24 * abs(true)


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
