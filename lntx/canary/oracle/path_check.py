"""What comparing a training with the closed form gives. Needs no torch, so that results can be read without it."""

from __future__ import annotations

from lntx.config.schema import Section


class Departure(Section):
    """The first epoch that deviates from the closed form."""

    epoch: int
    """The epoch, from 1."""

    what: str
    """What deviates: the feature of a weight, "bias" or "loss"."""

    found: float | None
    """Its value in the history of training; None if it is not a finite number."""

    expected: float
    """Its value in the closed form."""

    allowed: float
    """Largest distance that rounding explains."""


class PathCheck(Section):
    """The outcome of comparing a training with the closed form."""

    epochs: int
    """Number of epochs in the history."""

    departure: Departure | None
    """Where training left the path; None if it did not."""

    worst: float
    """Largest distance up to there, divided by what rounding explains, at most 1e300; below 1 for correct training."""

    visible: float
    """Smallest error of the first step that is certainly detected, relative to the size of the weights: twice the
    bound. Bounds grow from epoch to epoch."""

    rate_is_right: bool
    """Whether the stable limit that training used is 2 · (1 + momentum) / λ_max(H), and its rate 2 · (1 + momentum) /
    (λ_max(H) + λ_min(H))."""

    loss: float
    """Mean squared error at the end of the path."""

    allowed_loss: float
    """Largest error of the loss that rounding explains."""

    residual_sd: float | None
    """sqrt(RSS / (N − p)) of w*; None if N = p, or if the residual of y is 0 to 40 digits."""

    standard_errors: tuple[float, ...] | None
    """Standard errors of w*, the bias last; None if residual_sd is None."""

    solution: tuple[float, ...]
    """w*, the limit of the path: the least-squares solution for the rows in the dtype of training, the bias last."""
