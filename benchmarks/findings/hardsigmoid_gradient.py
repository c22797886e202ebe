"""The gradient of hardsigmoid at 0, float64.

torch's constant 1/6 is one of float32. Run: python benchmarks/findings/hardsigmoid_gradient.py
"""

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error of two roundings."""
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(torch.nn.functional.hardsigmoid(x).sum(), x)
    return 1 / 6, grad.item(), 2 * 2**-53 / 6


if __name__ == "__main__":
    print("true {:.16g}, torch {:.16g}, allowed error {:.2g}".format(*measure()))
