"""When to stop: how far the weights still move, and what that means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lntx.config.schema import Train
from lntx.training.result import Epoch, Stop

COMPENSATE_BELOW = 64
"""Moves below this many units of rounding are decided by rounding in the residuals."""

EXACT_SCALE = 1e-12
"""Where gradients are exact, a coefficient matters down to this part of rms(y) / rms(column)."""

STALL_BELOW = 1000
"""Moves below this many units of rounding, and no longer falling, are rounding."""

STALL_EPOCHS = 50
"""Epochs over which moves have to fall."""

DIVERGED_GROWTH = 1e12
"""A loss this many times the first one is out of control."""

_PLATEAU_EPOCHS = 10
_PLATEAU_FALL = 0.99


class Stopping:
    """Follows a phase of the training, epoch by epoch.

    scale: size below which a coefficient does not matter, shape (p,). exact: the gradients are, so that even a
    coefficient far below its scale is worth waiting for. compensates: the last epoch must have had the rounding taken
    out of its residuals. batches: steps on random batches, which circle the solution in the end.
    """

    def __init__(
        self,
        train: Train,
        scale: torch.Tensor,
        *,
        exact: bool = False,
        compensates: bool = False,
        batches: bool = False,
    ) -> None:
        self._train = train
        self._eps = torch.finfo(getattr(torch, train.dtype)).eps
        self._scale = scale * (EXACT_SCALE if exact else 1.0)
        self._compensates = compensates
        self._batches = batches
        self._losses: list[float] = []
        self._moves: list[float] = []

    @property
    def last_move(self) -> float:
        """Largest change of a coefficient in the last epoch, relative to its size or its scale; infinite at first."""
        return self._moves[-1] if self._moves else math.inf

    @property
    def state(self) -> dict[str, list[float]]:
        """What has been taken note of."""
        return {"losses": [*self._losses], "moves": [*self._moves]}

    def restore(self, state: dict[str, list[float]]) -> None:
        """Go on from what had been taken note of."""
        self._losses, self._moves = [*state["losses"]], [*state["moves"]]

    @property
    def close(self) -> bool:
        """Whether the weights have come so near that rounding decides."""
        return self.last_move <= COMPENSATE_BELOW * self._eps

    def after(self, before: Epoch, epoch: Epoch) -> Stop | None:
        """Take note of an epoch; say whether, and why, it was the last one of its phase."""
        was_close, previous = self.close, self.last_move
        assert epoch.loss is not None
        self._losses.append(epoch.loss)
        self._moves.append(self._move(before, epoch))
        if epoch.loss > DIVERGED_GROWTH * max(self._losses[0], torch.finfo(torch.float32).tiny):
            return "diverged"
        tolerance = self._train.tolerance
        # With momentum the weights stand still for an epoch wherever they turn: it takes two to tell.
        move = max(self.last_move, previous) if self._train.momentum > 0 else self.last_move
        if tolerance != "auto":
            return "converged" if tolerance > 0 and move <= tolerance else None
        if move <= self._eps and (was_close or not self._compensates):
            return "converged"
        if self._stalled(self._moves) or (self._batches and self._circles()):
            return "stalled"
        return None

    def _stalled(self, moves: Sequence[float]) -> bool:
        recent, earlier = moves[-STALL_EPOCHS:], moves[-2 * STALL_EPOCHS : -STALL_EPOCHS]
        return bool(earlier) and 0.9 * max(earlier) < max(recent) <= STALL_BELOW * self._eps

    def _circles(self) -> bool:
        """Whether the loss of random batches has ceased to fall."""
        recent, earlier = self._losses[-_PLATEAU_EPOCHS:], self._losses[:-_PLATEAU_EPOCHS]
        return bool(earlier) and min(recent) > _PLATEAU_FALL * min(earlier)

    def _move(self, before: Epoch, after: Epoch) -> float:
        old, new = (torch.tensor(epoch.coefficients, dtype=torch.float64) for epoch in (before, after))
        reach = torch.maximum(new.abs(), self._scale).clamp_min(torch.finfo(torch.float64).tiny)
        return float(((new - old).abs() / reach).max())
