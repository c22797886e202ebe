"""Explain in one sentence for beginners why a training missed the known answer, and what to change.

Reads the figures of the fit; measures nothing.
"""

from __future__ import annotations

import math

from lntx.training.result import Fit

_MANY_EPOCHS = 1000


def why_training_missed(fit: Fit, *, missed: str) -> str:
    """Return the likeliest cause and the next step.

    missed: a clause that compares the worst coefficient with the exact solution.
    """
    rate = f"learning rate {fit.learning_rate:.6g}"
    if fit.stop == "diverged":
        return (
            f"{missed}: the loss grew without bound and training stopped in epoch {fit.epochs}; {rate} is too large "
            f"for {_steps(fit)}: " + _against_divergence(fit)
        )
    if fit.batch_size is not None and fit.stop == "max_epochs":
        return (
            f"{missed}: steps on {fit.batch_size} rows only circle the solution of all rows, and the "
            f"{fit.finishing_epochs} epochs on all rows that were left after them did not reach it; raise "
            f"--train.max-epochs to {max(2 * fit.asked.max_epochs, 1000)}, or drop --train.batch-size"
        )
    if fit.stop == "converged" and fit.asked.tolerance != "auto" and (fit.last_move or 0) > 1e-12:
        return (
            f"{missed}: --train.tolerance {fit.asked.tolerance:g} ended training after {fit.epochs} epochs, with the "
            "weights still moving; add --train.tolerance auto"
        )
    if (
        fit.asked.gradient == "autograd"
        and fit.descent_condition_number * fit.condition_number > 1e4
        and (fit.precondition == "qr" or fit.stop in ("converged", "stalled"))
    ):
        return (
            f"{missed}: gradients from rows in {fit.dtype} lose these digits at condition number "
            f"{fit.condition_number:.3g}; add --train.gradient auto"
        )
    needed = _epochs_needed(fit)
    if needed is not None and needed > fit.epochs and fit.stop in ("converged", "stalled"):
        return (
            f"{missed}: after {fit.epochs} epochs at {rate} the steps were too small to change a {fit.dtype} weight, "
            f"and about {needed:,} epochs are needed; {_advice(fit, needed)}"
        )
    if needed is not None and needed <= fit.epochs:
        needed = None
    is_exact = fit.gradient == "moments" and fit.precondition == "qr"
    if fit.stop == "max_epochs" and is_exact and fit.epochs >= _MANY_EPOCHS:
        return (
            f"{missed}: exact steps come no nearer after {fit.epochs} epochs; rounding the weights of very large "
            "values moves the others: leave out or rescale the values that the warnings name"
        )
    if fit.stop == "max_epochs":
        about = f", and about {needed:,} epochs are needed at this rate" if needed else ""
        return (
            f"{missed}: too few steps; {fit.epochs} epochs at {rate} ended with the weights still moving{about}; "
            f"{_advice(fit, needed)}"
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
    options = [
        f"--train.{name.replace('_', '-')} auto"
        for name in ("gradient", "precondition", "learning_rate", "tolerance")
        if getattr(fit.asked, name) != "auto"
    ]
    if options:
        return (
            f"{missed}, although the descent had settled after {fit.epochs} epochs: with these settings rounding may "
            f"hide it; add {' '.join(options)}, and if that misses it too, suspect the torch build"
        )
    return (
        f"{missed}, although the descent had settled after {fit.epochs} epochs: the settings do not explain it; "
        "suspect the torch build, the device or the driver, and compare with another machine"
    )


def _against_divergence(fit: Fit) -> str:
    if fit.asked.learning_rate != "auto":
        return "add --train.learning-rate auto"
    return "drop --train.batch-size" if fit.batch_size is not None else "rescale the columns to like sizes"


def _steps(fit: Fit) -> str:
    return "full-batch steps" if fit.batch_size is None else f"steps on {fit.batch_size} rows"


def _advice(fit: Fit, needed: int | None) -> str:
    """Return the options to add to the command; options already in effect are left out."""
    settings = fit.asked
    options = [
        f"--train.{name.replace('_', '-')} auto"
        for name in ("precondition", "learning_rate", "tolerance")
        if getattr(settings, name) != "auto"
    ]
    if options:
        if settings.max_epochs < _MANY_EPOCHS:
            options.append(f"--train.max-epochs {_MANY_EPOCHS}")
        return f"let the data choose the steps: add {' '.join(options)}"
    if fit.momentum > 0:
        return f"momentum {fit.momentum:g} swings about the solution for long: drop --train.momentum"
    # A weight that is a hundred times as small as another needs a quarter more.
    return f"add --train.max-epochs {max(math.ceil(1.25 * (needed or 0)), 2 * fit.epochs)}"


def _epochs_needed(fit: Fit) -> int | None:
    """Return the epochs until the error in the slowest direction has shrunk by 1e8; None if it does not shrink."""
    largest = 2 * (1 + fit.momentum) / fit.stable_limit
    slowest = max(
        _contraction(fit.learning_rate * value, fit.momentum)
        for value in (largest, largest / fit.descent_condition_number)
    )
    if not 0 < slowest < 1:
        return None
    epochs = math.ceil(math.log(1e8) / -math.log(slowest))
    unit: int = 10 ** max(0, len(str(epochs)) - 2)
    return math.ceil(epochs / unit) * unit


def _contraction(step: float, momentum: float) -> float:
    """Return the factor per epoch in one eigendirection: the spectral radius of the heavy-ball step (Polyak, 1964).

    step: learning rate times eigenvalue.
    """
    trace = 1 + momentum - step
    root = trace**2 - 4 * momentum
    return math.sqrt(momentum) if root < 0 else (abs(trace) + math.sqrt(root)) / 2
