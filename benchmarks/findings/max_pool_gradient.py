"""Gradient of max_pool2d where nine windows have one maximum, bfloat16: 256 and eight ones.

torch adds in bfloat16, where 256 + 1 is 256. Run: python benchmarks/findings/max_pool_gradient.py
"""

import math

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error that a float32 sum and one rounding to bfloat16 allow."""
    image = torch.zeros(1, 1, 5, 5, dtype=torch.bfloat16)
    image[0, 0, 2, 2] = 1
    image.requires_grad_()
    gradient = torch.ones(1, 1, 3, 3, dtype=torch.bfloat16)
    gradient[0, 0, 0, 0] = 256
    y = torch.nn.functional.max_pool2d(image, 3, stride=1)
    (found,) = torch.autograd.grad(y, image, gradient)
    true = math.fsum(gradient.flatten().tolist())
    return true, found[0, 0, 2, 2].item(), 2**-8 * true + 9 * 2**-24 * true


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
