"""Gradient of a convolution's weight, bfloat16, 1,024 images of 3 × 3 ones: a sum of 1,024 ones.

torch adds the images in bfloat16, where 256 + 1 is 256, unless oneDNN computes the convolution.
Run: python benchmarks/findings/convolution_weight_gradient.py
"""

import math

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error that a float32 sum and one rounding to bfloat16 allow."""
    images = torch.ones(1024, 1, 3, 3, dtype=torch.bfloat16)
    weight = torch.ones(1, 1, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    # oneDNN takes bfloat16 only where the processor has AVX512; with it off, all processors run the same kernel.
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        y = torch.nn.functional.conv2d(images, weight)
        (found,) = torch.autograd.grad(y, weight, torch.ones_like(y))
    true = math.fsum(images[:, 0, 0, 0].tolist())
    return true, found[0, 0, 0, 0].item(), 2**-8 * true + 1024 * 2**-24 * true


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
