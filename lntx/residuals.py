"""The error that rounding puts into a model's predictions, computed in double-double arithmetic.

Near the solution the residual y - prediction is mostly rounding; what this module returns takes that part away.
Knows one formula; knows nothing of training.
"""

from __future__ import annotations

import torch

# Double-double here and in `reference` on purpose: what is checked shares no arithmetic with what checks it.
# 2^27 + 1 splits a float64 into two halves of 26 bits (Veltkamp; Dekker, A floating-point technique, 1971).
_SPLITTER = 134217729.0


def rounding_error(
    x: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None, prediction: torch.Tensor
) -> torch.Tensor:
    """What is missing from a prediction: the exact x · weights + bias, less the prediction.

    x: shape (n, d). weights: shape (d,). bias: shape (1,). prediction: shape (n, 1). All float64 or all float32.

    Returns: shape (n, 1), never more than rounding can explain, (d + 2) · eps · (|x| · |weights| + |bias|): a
    prediction that is wrong for another reason stays wrong.
    """
    # The products of two float32 are float64 numbers, and their sums nearly so: the same lines serve both.
    columns, factors = x.double(), weights.double()
    high = torch.zeros_like(columns[:, 0]) if bias is None else bias.double().expand(len(x)).clone()
    low = torch.zeros_like(high)
    magnitude = high.abs()
    for j, factor in enumerate(factors):
        product, product_error = _two_product(columns[:, j], factor)
        high, sum_error = _two_sum(high, product)
        low += product_error + sum_error
        magnitude += product.abs()
    error = (high - prediction[:, 0].double()) + low
    bound = (len(factors) + 2) * torch.finfo(prediction.dtype).eps * magnitude
    return error.clamp(-bound, bound).to(prediction.dtype).unsqueeze(1)


def _two_sum(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rounded sum and its error (Knuth, The Art of Computer Programming, volume 2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rounded product and its error (Dekker, 1971)."""
    product = a * b
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _split(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scaled = _SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high
