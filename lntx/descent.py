"""Settle how the descent takes its steps: coordinates, learning rate, batches. Takes no step itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from lntx import curvature as curves
from lntx.config import Train
from lntx.dataset import Block, block_rows
from lntx.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Descent:
    """What `Train` asks for, settled by the data."""

    precondition: curves.Precondition
    """Coordinates of the descent."""

    coordinates: torch.Tensor
    """S, float64, shape (p, p): weights = S · coordinates, the bias last."""

    learning_rate: float
    """Step size in those coordinates."""

    stable_limit: float
    """Learning rate from which full-batch descent does not converge."""

    batch_size: int | None
    """Rows per step; none: all."""

    condition_number: float
    """Of the Hessian in those coordinates."""


def plan_descent(curvature: curves.Curvature, train: Train, blocks: Callable[[], Iterable[Block]]) -> Descent:
    """Settle the coordinates, the batches and the learning rate.

    blocks: reads the rows again; called only for mini-batches with an automatic rate.

    Raises: BadInput: a learning rate at or over the stable limit, or a batch that cannot be held in memory.
    """
    precondition = curves.choose(curvature) if train.precondition == "auto" else train.precondition
    coordinates = curvature.coordinates(precondition)
    eigenvalues = curvature.eigenvalues(coordinates)
    limit = curves.stable_limit(eigenvalues, train.momentum)
    batch_size = _batch_size(train, curvature)
    if train.learning_rate == "auto":
        rate = curves.best_rate(eigenvalues, train.momentum)
        if batch_size is not None:
            largest = max(_largest_row(x, coordinates, curvature.has_bias) for x, _ in blocks())
            rate = curves.batch_rate(
                eigenvalues, largest_row=largest, num_rows=curvature.num_rows, batch_size=batch_size
            )
            # Momentum multiplies a steady gradient by 1 / (1 - momentum).
            rate *= 1 - train.momentum
    else:
        rate = train.learning_rate
        if rate >= limit:
            raise BadInput(
                f"train.learning_rate must be below the stable limit {limit:.6g} of these rows "
                f"(precondition {precondition}), got {rate:g}: lower it or use auto"
            )
    return Descent(
        precondition=precondition,
        coordinates=coordinates,
        learning_rate=rate,
        stable_limit=limit,
        batch_size=batch_size,
        condition_number=curves.condition(eigenvalues),
    )


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


def _largest_row(x: np.ndarray, coordinates: torch.Tensor, has_bias: bool) -> float:
    columns = np.hstack([x, np.ones((len(x), 1))]) if has_bias else x
    return float(((columns @ coordinates.numpy()) ** 2).sum(axis=1).max())
