"""torch.special.bessel_j0(5.000375), float64.

From 5 on, torch's series has nine digits less than float64. Run: python benchmarks/findings/bessel_j0.py
"""

import torch
from flint import arb


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and an error of 16 roundings of the argument and of the value."""
    x = 5.000375
    true = float(arb(x).bessel_j(0))
    slope = float(arb(x).bessel_j(1))
    found = torch.special.bessel_j0(torch.tensor([x], dtype=torch.float64)).item()
    return true, found, 16 * 2**-53 * (abs(x * slope) + abs(true))


if __name__ == "__main__":
    print("true {:.16g}, torch {:.16g}, allowed error {:.2g}".format(*measure()))
