"""The steps of training: the tutorial's loop on all rows, on sums over the rows, and on batches.

Each variant runs one epoch at a time; the caller decides on the number of epochs and when to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from lntx.config.schema import Train
from lntx.numerics.doubledouble import two_sum
from lntx.training.gradients import Part, backward, gradient
from lntx.training.hyperparameters import Descent
from lntx.training.model import LNTXLinearModel
from lntx.training.moments import Moments


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps of a training phase, and their state."""

    epoch: Callable[[bool], float]
    """Runs one epoch; the argument says whether to remove rounding from the residuals. Returns the mean loss."""

    optimizer: torch.optim.Optimizer
    """Holds the velocity."""

    moments: Moments | None = None
    """Holds the last pass over the rows; None if gradients come from the rows."""


def full_batch(
    model: LNTXLinearModel, rows: Callable[[], Iterator[Part]], descent: Descent, train: Train, num_rows: int
) -> Steps:
    """Return the steps of the tutorial's loop: zero_grad, forward, loss, backward, step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=descent.full_batch_rate, momentum=train.momentum)

    def epoch(compensate: bool) -> float:
        optimizer.zero_grad()
        loss = backward(model, rows(), num_rows, compensate=compensate)
        _precondition(model, descent.coordinates)
        optimizer.step()
        return loss

    return Steps(epoch=epoch, optimizer=optimizer)


def by_moments(
    model: LNTXLinearModel, moments: Moments, descent: Descent, train: Train, *, keeps_rest: bool = False
) -> Steps:
    """Return the steps of the same loop with the gradient from sums over the rows instead of the rows.

    keeps_rest: what rounding takes from the weights in a step is kept for the next one; without momentum.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=descent.full_batch_rate, momentum=train.momentum)
    metric = moments.metric(descent.coordinates) if descent.precondition == "qr" else None

    def epoch(_compensate: bool) -> float:
        optimizer.zero_grad()
        before = coefficients_of(model)
        step, loss = moments.gradient(before, descent.coordinates)
        change = -descent.full_batch_rate * (descent.coordinates @ (step if metric is None else metric @ step))
        if keeps_rest:
            change = change + moments.rest
        _set_gradient(model, change / -descent.full_batch_rate)
        optimizer.step()
        if keeps_rest:
            high, low = two_sum(before, change)
            moments.rest = (high - coefficients_of(model)) + low
        return loss

    return Steps(epoch=epoch, optimizer=optimizer, moments=moments)


def mini_batches(
    model: LNTXLinearModel,
    rows: Callable[[], Iterator[Part]],
    descent: Descent,
    train: Train,
    generator: torch.Generator,
    num_rows: int,
) -> Steps:
    """Return the steps of the same loop on batches of shuffled rows (shuffled within each part that is read)."""
    batch_size = descent.batch_size
    assert batch_size is not None
    optimizer = torch.optim.SGD(model.parameters(), lr=descent.learning_rate, momentum=train.momentum)

    def epoch(_compensate: bool) -> float:
        epoch_loss = 0.0
        for part in rows():
            order = torch.randperm(len(part.x), generator=generator).to(part.x.device)
            for indices in torch.split(order, batch_size):
                optimizer.zero_grad()
                # Weight a short last batch by its size: the rate was derived for full batches.
                weight = len(indices) / batch_size
                loss = backward(model, [part.rows(indices)], len(indices), weight=weight)
                _precondition(model, descent.coordinates)
                optimizer.step()
                epoch_loss += loss * len(indices) / num_rows
        return epoch_loss

    return Steps(epoch=epoch, optimizer=optimizer)


def _precondition(model: LNTXLinearModel, coordinates: torch.Tensor) -> None:
    """Replace the gradient by S Sᵀ · gradient, so that the step in the weights is a descent step in the coordinates."""
    total = torch.cat([gradient(parameter).reshape(-1).double().cpu() for parameter in model.parameters()])
    _set_gradient(model, coordinates @ (coordinates.T @ total))


def _set_gradient(model: LNTXLinearModel, values: torch.Tensor) -> None:
    # The weights are first; the bias, if any, is last.
    parameters = list(model.parameters())
    for parameter, part in zip(parameters, values.tensor_split([parameters[0].numel()]), strict=False):
        parameter.grad = part.reshape(parameter.shape).to(parameter.device, parameter.dtype)


def coefficients_of(model: LNTXLinearModel) -> torch.Tensor:
    """Return the current weights and, last, the bias: float64, shape (p,)."""
    return torch.cat([parameter.detach().reshape(-1).double().cpu() for parameter in model.parameters()])
