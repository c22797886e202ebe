"""torch.polygamma(1, 1.1348), float64: the gradient of digamma.

torch ends an asymptotic series after six terms. Run: python benchmarks/findings/trigamma.py
"""

import torch
from flint import arb


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and an error of 16 roundings of the argument and of the value."""
    x = 1.1348
    # The derivative of zeta(2, x) is -2 zeta(3, x).
    true, slope = float(arb(2).zeta(arb(x))), 2 * float(arb(3).zeta(arb(x)))
    found = torch.polygamma(1, torch.tensor([x], dtype=torch.float64)).item()
    return true, found, 16 * 2**-53 * (x * slope + true)


if __name__ == "__main__":
    print("true {:.16g}, torch {:.16g}, allowed error {:.2g}".format(*measure()))
