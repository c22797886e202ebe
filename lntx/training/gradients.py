"""Gradients by torch: forward, nn.MSELoss and backward on parts of the rows, summed in float64.

Stores gradients in the parameters; takes no step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from lntx.numerics.compensated import rounding_error
from lntx.training.model import LNTXLinearModel


class Part(NamedTuple):
    """Rows as tensors, in the training dtype."""

    x: torch.Tensor
    """Terms, shape (n, num_terms)."""

    y: torch.Tensor
    """Target, shape (n, 1)."""

    low: torch.Tensor | None = None
    """Rounding error of x, float64, of the same shape; None if x is exact."""

    row_weights: torch.Tensor | None = None
    """Weight of each row, shape (n, 1); None: 1."""

    def rows(self, which: slice | torch.Tensor) -> Part:
        """Return some of the rows."""
        return Part(*(None if column is None else column[which] for column in self))  # type: ignore[arg-type]


FLOAT32_ROWS = 4096
"""Most rows in one float32 sum; these sums are added in float64. Torch sums row after row: 1e7 rows give an error of
3.6 %."""

# Rows for the test of the naive loop: more would not fit into memory at once.
_TRIED_ROWS = 2**22


def backward(
    model: LNTXLinearModel, parts: Iterable[Part], num_rows: int, *, weight: float = 1.0, compensate: bool = False
) -> float:
    """Store the gradient of the mean squared error, times `weight`, in the parameters; return that error.

    parts: num_rows rows, whose squared errors are multiplied by their weights. compensate: remove the rounding of the
    predictions from the residuals.
    """
    criterion, squared_errors = nn.MSELoss(), nn.MSELoss(reduction="none")
    parameters = list(model.parameters())
    total_loss = 0.0
    totals = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters]
    for part in _short(parts):
        x, target = part.x, part.y
        output = prediction = model(x)
        if compensate:
            # No gradient through the rounding error: it is not part of the model.
            with torch.no_grad():
                error = rounding_error(x, part.low, model.linear.weight[0], model.linear.bias, prediction)
            output, target = prediction - target, -error
        if part.row_weights is None:
            loss = criterion(output, target)
        else:
            loss = (part.row_weights * squared_errors(output, target)).mean()
        loss.backward()
        share = len(x) / num_rows
        total_loss += float(loss.detach()) * share
        for total, parameter in zip(totals, parameters, strict=True):
            total.add_(gradient(parameter).double() * share)
            parameter.grad = None
    for total, parameter in zip(totals, parameters, strict=True):
        parameter.grad = (total * weight).to(parameter.dtype)
    return total_loss


def naive_error(model: LNTXLinearModel, parts: Iterable[Part]) -> float:
    """Return the relative error of torch's float32 weight gradient of the first 2^22 rows in one batch."""
    rows: list[tuple[torch.Tensor, torch.Tensor]] = []
    for part in parts:
        rows.append((part.x.float(), part.y.float()))
        if sum(len(x) for x, _ in rows) >= _TRIED_ROWS:
            break
    x, y = (torch.cat(columns)[:_TRIED_ROWS] for columns in zip(*rows, strict=True))
    loss = nn.functional.mse_loss(model(x), y)
    (naive,) = torch.autograd.grad(loss, [model.linear.weight])
    with torch.no_grad():
        products = torch.split((model(x) - y).double() * x.double(), FLOAT32_ROWS)
        right = 2 / len(x) * sum((part.sum(dim=0) for part in products), torch.zeros(1))
        return float((naive[0] - right).abs().max() / right.abs().max().clamp_min(1e-300))


def gradient(parameter: torch.Tensor) -> torch.Tensor:
    """Return the gradient of a parameter; it must have one."""
    assert parameter.grad is not None
    return parameter.grad


def _short(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        size = FLOAT32_ROWS if part.x.dtype == torch.float32 else len(part.x)
        for start in range(0, len(part.x), size):
            yield part.rows(slice(start, start + size))
