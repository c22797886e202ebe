"""The results of training: the figures of a fit, its history by epoch, and their files.

Holds results; trains nothing and does not need torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lntx.config.schema import Section, Train

Stop = Literal["converged", "stalled", "max_epochs", "diverged"]


class Epoch(Section):
    """The end of one pass over the rows; epoch 0 is the start."""

    weights: tuple[float, ...]
    """Weights at the end."""

    bias: float | None
    """Bias at the end; None if the model has no bias."""

    loss: float | None
    """Mean squared error over the epoch, each row at the weights before its step; None for epoch 0."""

    @property
    def coefficients(self) -> tuple[float, ...]:
        """Weights and, if the model has one, the bias."""
        return self.weights if self.bias is None else (*self.weights, self.bias)


class Fit(Section):
    """The learned model, and how it was trained."""

    weights: tuple[float, ...]
    """Learned weights in the order of the features, each as the float64 of the same value."""

    bias: float | None
    """Learned bias; None if the model has no bias."""

    dtype: Literal["float64", "float32"]
    """Type of the weights."""

    device: str
    """Type of the training device."""

    epochs: int
    """Number of epochs done."""

    stop: Stop
    """Why training ended: the weights no longer change, or only by rounding; the epochs ran out; the loss grew."""

    last_move: float | None
    """Largest change of a coefficient in the last epoch, relative to its scale; None if it was not finite."""

    learning_rate: float
    """Learning rate used, in the coordinates of `precondition`."""

    stable_limit: float
    """Learning rate from which full-batch descent does not converge."""

    momentum: float
    """Momentum used."""

    batch_size: int | None
    """Rows per step; None: all rows."""

    finishing_epochs: int
    """Epochs on all rows after those on batches; 0 without batches."""

    gradient: Literal["autograd", "moments"]
    """How gradients over all rows were computed: by loss.backward() on rows, or from sums over them."""

    naive_gradient_error: float | None
    """Relative error of the first gradient of the same loop in plain torch, which sums float32 row after row; None if
    the settings differ from that loop, or the rows are too few to matter."""

    precondition: Literal["none", "standardize", "qr"]
    """Coordinates of the descent."""

    condition_number: float
    """Condition number of the Hessian in the weights themselves."""

    descent_condition_number: float
    """Condition number of the Hessian in the coordinates of the descent."""

    rows_sha256: tuple[str, ...] = ()
    """Digest of the rows at each reading by training; empty if they were read again in each epoch."""

    history_sha256: str | None = None
    """Digest of the history, as `history_digest` returns it."""

    asked: Train
    """The requested settings, with `auto` unresolved."""


def history_digest(history: Sequence[Epoch]) -> str:
    """Return the sha256 of the coefficients and the loss of every epoch, exact to the last bit."""
    numbers = [(epoch.coefficients, epoch.loss) for epoch in history]
    return hashlib.sha256(repr(numbers).encode()).hexdigest()


def write_history(history: Sequence[Epoch], path: Path) -> None:
    """Write a history to Parquet: columns epoch, loss, weights (a list per epoch) and bias."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "epoch": pa.array(range(len(history)), pa.int32()),
        "loss": pa.array([epoch.loss for epoch in history], pa.float64()),
        "weights": pa.array([epoch.weights for epoch in history], pa.list_(pa.float64())),
        "bias": pa.array([epoch.bias for epoch in history], pa.float64()),
    }
    pq.write_table(pa.table(columns), path, compression="NONE")


def read_history(path: Path) -> list[Epoch]:
    """Read what `write_history` wrote."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    return [Epoch(weights=row["weights"], bias=row["bias"], loss=row["loss"]) for row in rows]
