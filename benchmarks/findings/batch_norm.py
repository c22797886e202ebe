"""batch_norm of 100.5 among as many 100s, bfloat16.

torch computes αx + β with a mean and a β that are rounded to bfloat16. Run: python benchmarks/findings/batch_norm.py
"""

import math

import torch


def measure() -> tuple[float, float, float]:
    """The true value, torch's value, and the error that αx + β in float32 and one rounding to bfloat16 allow."""
    x = torch.full((4, 1, 8, 8), 100.0, dtype=torch.bfloat16)
    x[..., ::2] = 100.5
    true = 0.25 / math.sqrt(0.25**2 + 1e-5)
    found = torch.nn.functional.batch_norm(x, None, None, training=True)[0, 0, 0, 0].item()
    # αx and β are near 400; the mean, α and both of them are rounded.
    return true, found, 2**-8 * true + 8 * 2**-24 * 400


if __name__ == "__main__":
    print("true {:.6g}, torch {:.6g}, allowed error {:.2g}".format(*measure()))
