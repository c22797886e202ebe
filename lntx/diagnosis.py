"""Say why a training missed the known answer, and what to do about it, in a sentence for a newcomer.

Reads what training said of itself; measures nothing.
"""

from __future__ import annotations

import math

from lntx.fitting import Fit

LET_THE_DATA_CHOOSE = (
    "--train.precondition auto --train.learning-rate auto --train.tolerance auto --train.max-epochs 1000"
)


def why_training_missed(fit: Fit, *, missed: str) -> str:
    """The likeliest cause and the next step.

    missed: the worst coefficient against the exact solution, as a clause.
    """
    rate = f"learning rate {fit.learning_rate:.6g}"
    if fit.stop == "diverged":
        return (
            f"{missed}: the loss grew without bound and training stopped in epoch {fit.epochs}; {rate} is too large "
            f"for {_steps(fit)}: lower --train.learning-rate or add --train.learning-rate auto"
        )
    if fit.batch_size is not None:
        return (
            f"{missed}: steps on {fit.batch_size} rows at a constant rate keep circling the solution of all rows; "
            "drop --train.batch-size (full batch), or lower --train.learning-rate and raise --train.max-epochs"
        )
    if fit.stop == "max_epochs":
        needed = _epochs_needed(fit)
        return (
            f"{missed}: too few steps; {fit.epochs} epochs at {rate} ended with the weights still moving"
            + (f", and about {needed:,} epochs are needed at this rate" if needed else "")
            + f"; let the data choose the steps: add {LET_THE_DATA_CHOOSE}"
        )
    if fit.dtype == "float32":
        return (
            f"{missed}: the descent settled as near as float32 allows at condition number "
            f"{fit.condition_number:.3g}; add --train.dtype float64"
        )
    if fit.descent_condition_number > 1e6:
        return (
            f"{missed}: the descent settled as near as float64 allows at condition number "
            f"{fit.descent_condition_number:.3g}; add --train.precondition auto --train.learning-rate auto"
        )
    return (
        f"{missed}, although the descent had settled after {fit.epochs} epochs: the settings do not explain it; "
        "suspect the torch build, the device or the driver, and compare with another machine"
    )


def _steps(fit: Fit) -> str:
    return "full-batch steps" if fit.batch_size is None else f"steps on {fit.batch_size} rows"


def _epochs_needed(fit: Fit) -> int | None:
    """Epochs until the slowest direction has shrunk by 1e8; none with momentum, whose rate is another."""
    if fit.momentum:
        return None
    largest = 2 / fit.stable_limit
    slowest = max(abs(1 - fit.learning_rate * value) for value in (largest, largest / fit.descent_condition_number))
    if not 0 < slowest < 1:
        return None
    epochs = math.ceil(math.log(1e8) / -math.log(slowest))
    unit: int = 10 ** max(0, len(str(epochs)) - 2)
    return math.ceil(epochs / unit) * unit
