"""Choose the hyperparameters of the descent: coordinates, gradient, learning rate, batches. Takes no step itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from lntx.base.errors import BadInput
from lntx.config.schema import Train
from lntx.data.dataset import Block, block_rows
from lntx.training import curvature as curves

Gradient = Literal["autograd", "moments"]

AUTOGRAD_ROWS = 10**6
"""Maximum number of rows, kept in memory, for which every epoch by default goes through all rows."""

AUTOGRAD_CONDITION = {"float64": 30.0, "float32": 5.0}
"""Largest condition number of the columns, scaled to equal length, for which gradients from rows of that dtype reach
the last digits: with noise they lose about twice its logarithm of their 16 (or 7) digits."""

_MOST_FINISHING_EPOCHS = 500


@dataclass(frozen=True, kw_only=True)
class Descent:
    """The settings of `Train` with `auto` resolved for the data."""

    precondition: curves.Precondition
    """Coordinates of the descent."""

    coordinates: torch.Tensor
    """S, float64, shape (p, p): weights = S · coordinates, the bias last."""

    gradient: Gradient
    """How gradients over all rows are computed."""

    learning_rate: float
    """Step size in those coordinates."""

    full_batch_rate: float
    """Step size for steps on all rows; differs from `learning_rate` if there are batches."""

    finishing_epochs: int
    """Epochs on all rows that are needed to reach the solution after the batches; 0 without batches."""

    stable_limit: float
    """Learning rate from which full-batch descent does not converge."""

    batch_size: int | None
    """Rows per step; None: all rows."""

    condition_number: float
    """Condition number of the Hessian in those coordinates."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The coordinates of the descent, and the curvature in them."""

    precondition: curves.Precondition
    """Name of the coordinates."""

    coordinates: torch.Tensor
    """S, float64, shape (p, p): weights = S · coordinates, the bias last."""

    eigenvalues: torch.Tensor
    """Eigenvalues of the Hessian in the coordinates, largest first, shape (p,)."""


def choose_frame(curvature: curves.Curvature, choice: Literal["auto"] | curves.Precondition) -> Frame:
    """Return the requested coordinates; for "auto", the simplest ones in which descent is fast."""
    precondition = curves.choose(curvature) if choice == "auto" else choice
    coordinates = curvature.coordinates(precondition)
    return Frame(precondition=precondition, coordinates=coordinates, eigenvalues=curvature.eigenvalues(coordinates))


def plan_descent(
    curvature: curves.Curvature, frame: Frame, train: Train, blocks: Callable[[], Iterable[Block]], *, in_memory: bool
) -> Descent:
    """Choose the batches and the learning rate.

    blocks: reads the rows again; called only for mini-batches with an automatic rate. in_memory: whether the rows are
    kept, so that an epoch need not read them.

    Raises: BadInput: a learning rate at or above the stable limit, or a batch that does not fit into memory.
    """
    precondition, coordinates, eigenvalues = frame.precondition, frame.coordinates, frame.eigenvalues
    limit = curves.stable_limit(eigenvalues, train.momentum)
    full_batch_rate = curves.best_rate(eigenvalues, train.momentum)
    batch_size = _batch_size(train, curvature)
    if train.learning_rate == "auto":
        rate = full_batch_rate
        if batch_size is not None:
            largest = max(_largest_row(block, coordinates, curvature.has_bias) for block in blocks())
            rate = curves.batch_rate(
                eigenvalues, largest_row=largest, num_rows=curvature.num_rows, batch_size=batch_size
            )
            # Momentum multiplies a constant gradient by 1 / (1 - momentum).
            rate *= 1 - train.momentum
    else:
        rate = train.learning_rate
        if rate >= limit:
            raise BadInput(
                f"train.learning_rate must be below the stable limit {limit:.6g} of these rows "
                f"(precondition {precondition}), got {rate:g}: lower it or use auto"
            )
        full_batch_rate = rate if batch_size is None else full_batch_rate
    condition = curves.condition(eigenvalues)
    return Descent(
        precondition=precondition,
        coordinates=coordinates,
        gradient=_gradient(curvature, train, batch_size, in_memory=in_memory),
        learning_rate=rate,
        full_batch_rate=full_batch_rate,
        finishing_epochs=0 if batch_size is None else _finishing_epochs(condition, train.momentum),
        stable_limit=limit,
        batch_size=batch_size,
        condition_number=condition,
    )


def exact_descent(curvature: curves.Curvature, descent: Descent) -> Descent:
    """Return the descent by Newton's steps on exact sums, without momentum: it goes the whole way in each direction."""
    coordinates = curvature.coordinates("qr")
    eigenvalues = curvature.eigenvalues(coordinates)
    rate = curves.best_rate(eigenvalues, 0.0)
    return dataclasses.replace(
        descent,
        precondition="qr",
        coordinates=coordinates,
        gradient="moments",
        learning_rate=descent.learning_rate if descent.batch_size is not None else rate,
        full_batch_rate=rate,
        stable_limit=curves.stable_limit(eigenvalues, 0.0),
        condition_number=curves.condition(eigenvalues),
    )


def _finishing_epochs(condition: float, momentum: float) -> int:
    """Return the epochs in which all errors shrink by 1e16 at the best rate (Polyak, 1964), plus some for rounding."""
    # log1p: at a condition number of 1e16 the factor itself rounds to 1.
    shrinks = [-math.log1p(-2 / (condition + 1))] if condition > 1.001 else []
    shrinks += [-math.log(momentum) / 2] if momentum > 0 else []
    steps = math.log(1e16) / min(shrinks) if shrinks else 0.0
    return math.ceil(min(5 + steps, _MOST_FINISHING_EPOCHS))


def _gradient(curvature: curves.Curvature, train: Train, batch_size: int | None, *, in_memory: bool) -> Gradient:
    if train.gradient != "auto":
        if train.gradient == "moments" and batch_size is not None:
            raise BadInput(
                f"train.gradient moments is of all rows, and train.batch_size is {batch_size}: drop one of them"
            )
        return train.gradient
    is_cheap = in_memory and curvature.num_rows <= AUTOGRAD_ROWS
    reached = curvature.scaled_condition <= AUTOGRAD_CONDITION[train.dtype]
    return "autograd" if is_cheap and reached else "moments"


def _batch_size(train: Train, curvature: curves.Curvature) -> int | None:
    if train.batch_size is None or train.batch_size >= curvature.num_rows:
        return None
    num_features = len(curvature.factor) - curvature.has_bias
    largest = block_rows(num_features + 1)
    if train.batch_size > largest:
        raise BadInput(
            f"train.batch_size must be at most {largest} with {num_features} features, or at least all "
            f"{curvature.num_rows} rows, got {train.batch_size}"
        )
    return train.batch_size


def _largest_row(block: Block, coordinates: torch.Tensor, has_bias: bool) -> float:
    columns = np.hstack([block.x, np.ones((len(block.x), 1))]) if has_bias else block.x
    # In torch, which uses one thread here: the order of sums in BLAS may depend on the number of threads.
    squares = ((torch.from_numpy(columns) @ coordinates) ** 2).sum(dim=1)
    return float((squares if block.row_weights is None else squares * torch.from_numpy(block.row_weights)).max())
