"""The training loop with its history, and the checkpoints from which it resumes after an interruption."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch

from lntx.base.progress import report_progress
from lntx.config.schema import MAX_MAGNITUDE
from lntx.training.checkpoints import Checkpoints
from lntx.training.model import LNTXLinearModel
from lntx.training.result import Epoch, Stop
from lntx.training.steps import Steps, coefficients_of
from lntx.training.stopping import Stopping

logger = logging.getLogger(__name__)


class TrainingLoop:
    """How far a training has come, and the checkpoints of it."""

    def __init__(self, model: LNTXLinearModel, generator: torch.Generator, checkpoints: Checkpoints) -> None:
        self._model = model
        self._generator = generator
        self._checkpoints = checkpoints
        self._saved = checkpoints.load()
        self._finishing_from: int | None = None
        self.is_polishing = False
        """Whether exact steps follow steps that have settled elsewhere."""
        self.history = [_epoch(model, None)]
        if self._saved is not None:
            self.history = [
                Epoch(weights=row["weights"], bias=row["bias"], loss=row["loss"]) for row in self._saved["history"]
            ]
            self._finishing_from = self._saved["finishing_from"]
            self.is_polishing = self._saved["is_polishing"]
            _set_coefficients(model, self.history[-1])
            generator.set_state(self._saved["generator"])
            logger.info("train: goes on from epoch %d", len(self.history) - 1)

    @property
    def is_finishing(self) -> bool:
        """Whether the steps on all rows have begun."""
        return self._finishing_from is not None

    @property
    def finishing_epochs(self) -> int:
        """Number of epochs on all rows."""
        return 0 if self._finishing_from is None else len(self.history) - self._finishing_from

    def finish(self) -> None:
        """Switch to steps on all rows."""
        if self._finishing_from is None:
            self._finishing_from = len(self.history)

    def descend(self, steps: Steps, stopping: Stopping, max_epochs: int) -> Stop | None:
        """Train until a stopping rule applies, or until `max_epochs` epochs are done in total (then return None)."""
        if self._saved is not None:
            steps.optimizer.load_state_dict(self._saved["optimizer"])
            stopping.restore(self._saved["stopping"])
            if steps.moments is not None:
                steps.moments.restore(self._saved["moments"])
            self._saved = None
        while len(self.history) <= max_epochs:
            loss = steps.epoch(stopping.close)
            finite = all(abs(value) < MAX_MAGNITUDE for value in coefficients_of(self._model).tolist())
            if not math.isfinite(loss) or not finite:
                _set_coefficients(self._model, self.history[-1])
                return "diverged"
            self.history.append(_epoch(self._model, loss))
            report_progress(len(self.history) - 1, max_epochs, "epochs, at most")
            stop = stopping.after(*self.history[-2:])
            if stop is not None:
                return stop
            if self._checkpoints.due:
                self._checkpoints.save(self._state(steps, stopping))
        return None

    def _state(self, steps: Steps, stopping: Stopping) -> dict[str, Any]:
        return {
            "history": [epoch.model_dump() for epoch in self.history],
            "finishing_from": self._finishing_from,
            "is_polishing": self.is_polishing,
            "generator": self._generator.get_state(),
            "optimizer": steps.optimizer.state_dict(),
            "stopping": stopping.state,
            "moments": None if steps.moments is None else steps.moments.state,
        }


def _set_coefficients(model: LNTXLinearModel, epoch: Epoch) -> None:
    """Reset a model to the coefficients at the end of an epoch."""
    with torch.no_grad():
        for parameter, values in zip(model.parameters(), (epoch.weights, [epoch.bias]), strict=False):
            parameter.copy_(torch.tensor(values, dtype=torch.float64).reshape(parameter.shape))


def _epoch(model: LNTXLinearModel, loss: float | None) -> Epoch:
    return Epoch(weights=model.weights, bias=model.bias, loss=loss)
