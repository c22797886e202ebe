"""What training leaves behind: the figures of a fit and its history by epoch, and their files.

Holds results; trains nothing and needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from lntx.config.schema import Section, Train

Stop = Literal["converged", "stalled", "max_epochs", "diverged"]


class Epoch(Section):
    """The end of one pass over the rows; epoch 0 is the start."""

    weights: tuple[float, ...]
    """Weights at the end."""

    bias: float | None
    """Bias at the end; none where the model has none."""

    loss: float | None
    """Mean squared error over the epoch, each row at the weights it met; none at the start."""

    @property
    def coefficients(self) -> tuple[float, ...]:
        """Weights and, where there is one, the bias."""
        return self.weights if self.bias is None else (*self.weights, self.bias)


class Fit(Section):
    """What was learned, and how."""

    weights: tuple[float, ...]
    """Learned weights in the order of the features, each as the float64 that it equals."""

    bias: float | None
    """Learned bias; none where the model has none."""

    dtype: Literal["float64", "float32"]
    """Type of the weights."""

    device: str
    """Kind of device that trained."""

    epochs: int
    """Epochs done."""

    stop: Stop
    """Why training ended: the weights no longer move, or only by rounding; the epochs ran out; the loss grew."""

    last_move: float | None
    """Largest move of a coefficient in the last epoch, relative to its scale; none if it was not finite."""

    learning_rate: float
    """Learning rate used, in the coordinates of `precondition`."""

    stable_limit: float
    """Learning rate from which full-batch descent does not converge."""

    momentum: float
    """Momentum used."""

    batch_size: int | None
    """Rows per step; none: all."""

    finishing_epochs: int
    """Epochs on all rows that came after those on batches; 0 without batches."""

    gradient: Literal["autograd", "moments"]
    """How gradients over all rows were made: by loss.backward() on rows, or from sums over them."""

    naive_gradient_error: float | None
    """Relative error of the first gradient of the same loop in plain torch, which adds up float32 row after row;
    none where the settings are not that loop's, or the rows too few to matter."""

    precondition: Literal["none", "standardize", "qr"]
    """Coordinates of the descent."""

    condition_number: float
    """Of the Hessian in the weights themselves."""

    descent_condition_number: float
    """Of the Hessian in the coordinates of the descent."""

    rows_sha256: tuple[str, ...] = ()
    """Digest of the rows at each of training's readings; empty where they were read again each epoch."""

    history_sha256: str | None = None
    """Digest of the history, as `history_digest` takes it."""

    asked: Train
    """What was asked for, `auto` included."""


def history_digest(history: Sequence[Epoch]) -> str:
    """sha256 of the weights and the loss of every epoch, to the last bit."""
    numbers = [(epoch.coefficients, epoch.loss) for epoch in history]
    return hashlib.sha256(repr(numbers).encode()).hexdigest()


def write_history(history: Sequence[Epoch], path: Path) -> None:
    """Write a history to Parquet: columns epoch, loss, weights (a list per epoch) and bias."""
    columns = {
        "epoch": pa.array(range(len(history)), pa.int32()),
        "loss": pa.array([epoch.loss for epoch in history], pa.float64()),
        "weights": pa.array([epoch.weights for epoch in history], pa.list_(pa.float64())),
        "bias": pa.array([epoch.bias for epoch in history], pa.float64()),
    }
    pq.write_table(pa.table(columns), path, compression="NONE")


def read_history(path: Path) -> list[Epoch]:
    """Read what `write_history` wrote."""
    rows = pq.read_table(path).to_pylist()
    return [Epoch(weights=row["weights"], bias=row["bias"], loss=row["loss"]) for row in rows]
