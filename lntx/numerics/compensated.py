"""The predictions of a model, and their rounding errors, beyond the digits of float64 in double-double arithmetic.

Near the solution the residual y - prediction is mostly rounding; these functions compute that part, to remove it.
Independent of training.
"""

from __future__ import annotations

import torch

from lntx.numerics.doubledouble import two_product, two_sum

Pair = tuple[torch.Tensor, torch.Tensor]
"""A number as the unevaluated sum of two float64."""


def rounding_error(
    x: torch.Tensor,
    low: torch.Tensor | None,
    weights: torch.Tensor,
    bias: torch.Tensor | None,
    prediction: torch.Tensor,
) -> torch.Tensor:
    """Return the rounding error of a prediction: the exact (x + low) · weights + bias, minus the prediction.

    x: shape (n, d). low: rounding error of x, of the same shape. weights: shape (d,). bias: shape (1,).
    prediction: shape (n, 1). All float64 or all float32.

    Returns: shape (n, 1), limited to what rounding can cause, (d + 2) · eps · (|x| · |weights| + |bias|), so that a
    prediction that is wrong for another reason stays wrong.
    """
    # Products of two float32 are exact in float64, and their sums nearly so: the same code works for both dtypes.
    high, error = exact_predictions(x.double(), low, weights.double(), bias)
    magnitude = x.double().abs() @ weights.double().abs() + (0.0 if bias is None else bias.double().abs())
    missing = (high - prediction[:, 0].double()) + error
    bound = (weights.numel() + 2) * torch.finfo(prediction.dtype).eps * magnitude
    return missing.clamp(-bound, bound).to(prediction.dtype).unsqueeze(1)


def exact_predictions(
    x: torch.Tensor, low: torch.Tensor | None, weights: torch.Tensor, bias: torch.Tensor | None
) -> Pair:
    """Return (x + low) · weights + bias, shape (n,), to about 31 digits. x, low and weights are float64."""
    products, errors = two_product(x, weights)
    if low is not None:
        errors = errors + low * weights
    high, error = sum_pairs(products.T, errors.T)
    if bias is not None:
        high, more = two_sum(high, bias.double())
        error = error + more
    return high, error


def exact_transform(matrix: torch.Tensor, vector: Pair) -> torch.Tensor:
    """Return matrixᵀ · vector, shape (columns,), rounded once even if terms cancel. matrix: shape (rows, columns)."""
    high, low = vector
    products, errors = two_product(matrix, high.unsqueeze(1))
    total, error = sum_pairs(products, errors + matrix * low.unsqueeze(1))
    return total + error


def sum_pairs(high: torch.Tensor, low: torch.Tensor) -> Pair:
    """Return the sums of pairs along the first dimension, by pairwise summation."""
    while len(high) > 1:
        half = len(high) // 2
        total, error = two_sum(high[:half], high[half : 2 * half])
        rest = low[:half] + low[half : 2 * half] + error
        if len(high) % 2:
            total, rest = torch.cat([total, high[-1:]]), torch.cat([rest, low[-1:]])
        high, low = total, rest
    return high[0], low[0]
