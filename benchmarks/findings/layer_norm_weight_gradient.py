"""Relative error of the gradient of layer_norm's weight, bfloat16, 4,096 rows drawn from N(0, 1).

torch adds in bfloat16. Run: python benchmarks/findings/layer_norm_weight_gradient.py
"""

import torch


def measure() -> tuple[float, float, float]:
    """No error, torch's error in the 2-norm, and what float32 sums and one rounding to bfloat16 allow."""
    # Each thread adds its share of the rows.
    torch.set_num_threads(1)
    x, dy = torch.randn(2, 4096, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight = torch.ones(64, dtype=torch.bfloat16, requires_grad=True)
    (found,) = torch.autograd.grad(torch.nn.functional.layer_norm(x, (64,), weight), weight, dy)
    centred = x.double() - x.double().mean(1, keepdim=True)
    terms = dy.double() * centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    size = terms.sum(0).norm()
    error = (found.double() - terms.sum(0)).norm() / size
    return 0.0, error.item(), 2**-8 + 4096 * 2**-24 * (terms.abs().sum(0).norm() / size).item()


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
