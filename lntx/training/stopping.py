"""The stopping rules of training, based on the changes of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from lntx.config.schema import Train
from lntx.training.curvature import Curvature
from lntx.training.result import Epoch, Stop

COMPENSATE_BELOW = 64
"""Changes below this many units of rounding are dominated by rounding in the residuals."""

EXACT_SCALE = 1e-12
"""With exact gradients, a coefficient matters down to this fraction of rms(residuals) / rms(column)."""

STALL_BELOW = 1000
"""Changes below this many units of rounding that no longer decrease are only rounding."""

STALL_EPOCHS = 50
"""Epochs over which the changes have to decrease."""

DIVERGED_GROWTH = 1e12
"""A loss this many times the first one counts as diverged."""

# A coefficient that has shrunk to this part in each of so many epochs goes to 0.
_SHRUNK, _VANISHING_EPOCHS = 1e-3, 8
# With Newton's steps the changes decrease quickly; beside very large weights they end above rounding.
_NEWTON_STALL_EPOCHS, _NEWTON_STALL_BELOW = 5, 1e-9
_PLATEAU_EPOCHS = 10
_PLATEAU_FALL = 0.99


class Stopping:
    """Decides after each epoch whether a phase of the training has ended.

    exact: the gradients are exact, so that even a coefficient far below the others can converge. newton: each step goes
    the whole way. compensates: the last epoch must have residuals without rounding. batches: the steps use random
    batches, which only circle the solution.
    """

    def __init__(
        self,
        train: Train,
        curvature: Curvature,
        *,
        exact: bool = False,
        newton: bool = False,
        compensates: bool = False,
        batches: bool = False,
    ) -> None:
        self._train = train
        self._eps = torch.finfo(getattr(torch, train.dtype)).eps
        self._curvature = curvature
        self._exact = exact
        self._newton = newton
        self._compensates = compensates
        self._batches = batches
        self._losses: list[float] = []
        self._moves: list[float] = []
        self._shrinking: list[int] = [0] * len(curvature.factor)

    @property
    def last_move(self) -> float:
        """Largest change of a coefficient in the last epoch, relative to its size or its scale; infinite at first."""
        return self._moves[-1] if self._moves else math.inf

    @property
    def state(self) -> dict[str, list[Any]]:
        """The losses and changes so far."""
        return {"losses": [*self._losses], "moves": [*self._moves], "shrinking": [*self._shrinking]}

    def restore(self, state: dict[str, list[Any]]) -> None:
        """Restore a saved `state`."""
        self._losses, self._moves = [*state["losses"]], [*state["moves"]]
        self._shrinking = [*state["shrinking"]]

    @property
    def close(self) -> bool:
        """Whether the weights are so near the solution that rounding dominates."""
        return self.last_move <= COMPENSATE_BELOW * self._eps

    def after(self, before: Epoch, epoch: Epoch) -> Stop | None:
        """Record an epoch; return why it was the last one of its phase, or None to continue."""
        was_close, previous = self.close, self.last_move
        assert epoch.loss is not None
        self._losses.append(epoch.loss)
        self._moves.append(self._move(before, epoch))
        if epoch.loss > DIVERGED_GROWTH * max(self._losses[0], torch.finfo(torch.float32).tiny):
            return "diverged"
        tolerance = self._train.tolerance
        # With momentum the weights may pause for one epoch at a turning point: check two epochs.
        move = max(self.last_move, previous) if self._train.momentum > 0 else self.last_move
        if tolerance != "auto":
            return "converged" if tolerance > 0 and move <= tolerance else None
        if move <= self._eps and (was_close or not self._compensates):
            return "converged"
        if self._stalled(self._moves) or (self._batches and self._circles()):
            return "stalled"
        return None

    def _stalled(self, moves: Sequence[float]) -> bool:
        epochs = _NEWTON_STALL_EPOCHS if self._newton else STALL_EPOCHS
        recent, earlier = moves[-epochs:], moves[-2 * epochs : -epochs]
        below = max(_NEWTON_STALL_BELOW, STALL_BELOW * self._eps) if self._newton else STALL_BELOW * self._eps
        return bool(earlier) and 0.9 * max(earlier) < max(recent) <= below

    def _circles(self) -> bool:
        """Return whether the loss of random batches no longer decreases."""
        recent, earlier = self._losses[-_PLATEAU_EPOCHS:], self._losses[:-_PLATEAU_EPOCHS]
        return bool(earlier) and min(recent) > _PLATEAU_FALL * min(earlier)

    def _move(self, before: Epoch, after: Epoch) -> float:
        old, new = (torch.tensor(epoch.coefficients, dtype=torch.float64) for epoch in (before, after))
        reach = torch.maximum(new.abs(), self._scale(after)).clamp_min(torch.finfo(torch.float64).tiny)
        moves = (new - old).abs() / reach
        if self._exact:
            if after.loss == 0:
                # The predictions are the targets: what still moves is below them.
                return 0.0
            shrinks = (new.abs() <= _SHRUNK * old.abs()).tolist()
            self._shrinking = [count + 1 if still else 0 for count, still in zip(self._shrinking, shrinks, strict=True)]
            moves[torch.tensor(self._shrinking) >= _VANISHING_EPOCHS] = 0.0
        return float(moves.max())

    def _scale(self, epoch: Epoch) -> torch.Tensor:
        """Return the size below which a coefficient does not matter, shape (p,)."""
        if not self._exact:
            return self._curvature.scales
        # Not of y: a few large values would hide the other weights.
        return EXACT_SCALE * math.sqrt(max(epoch.loss or 0.0, 0.0)) / self._curvature.column_rms
