"""Many small trainings at once: the same descents as in `training`, batched in one tensor.

Only full batches, with gradients from sums over the rows, which all trainings on the same rows share. Nothing is
stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lntx.config.schema import MAX_MAGNITUDE, Data, Pipeline, Train
from lntx.data.dataset import Dataset, fits_in_memory, open_dataset, read_blocks
from lntx.data.importing import import_as_told
from lntx.data.synthetic import generate_dataset
from lntx.evaluation.evaluate import UNIT
from lntx.evaluation.least_squares import Reference, exact_sums, solve
from lntx.evaluation.rounding import Rounding
from lntx.numerics.gram import Gram
from lntx.training import curvature as curves
from lntx.training.fit import fit, read_parts, refuse_beyond_float32, sums_over, threads
from lntx.training.hyperparameters import Descent, Frame, choose_frame, plan_descent
from lntx.training.model import draw_start
from lntx.training.moments import Moments
from lntx.training.stopping import DIVERGED_GROWTH, EXACT_SCALE, STALL_BELOW, STALL_EPOCHS

_LOOK_FOR_STALLS_EVERY = 10
_TAME = 1e-6


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Rows, the quantities that descents on them need, and their exact solution."""

    dataset: Dataset
    """The rows."""

    curvature: curves.Curvature
    """Their second moments."""

    sums: Gram
    """Exact sums of the products of their columns."""

    reference: Reference
    """Their least-squares solution."""

    anchor: torch.Tensor
    """Coefficients near the solution, float64, shape (p,)."""

    gradient: torch.Tensor
    """Gradient of the mean squared error at the anchor, shape (p,)."""

    loss: float
    """Mean squared error at the anchor."""

    frames: dict[str, Frame] = field(default_factory=dict)
    """Coordinates computed so far, by `precondition` setting."""

    roundings: dict[str, Rounding] = field(default_factory=dict)
    """What rounding the rows to a dtype can change, by dtype."""

    def frame(self, train: Train) -> Frame:
        """Return the coordinates of a training."""
        if train.precondition not in self.frames:
            self.frames[train.precondition] = choose_frame(self.curvature, train.precondition)
        return self.frames[train.precondition]

    def rounding(self, dtype: str) -> Rounding:
        """Return what rounding the rows to a dtype can change."""
        if dtype not in self.roundings:
            self.roundings[dtype] = Rounding(self.dataset, self.sums, self.reference, unit=UNIT[dtype])
        return self.roundings[dtype]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training of many."""

    problem: Problem
    """Its rows and their exact solution."""

    pipeline: Pipeline
    """Its configuration."""

    descent: Descent
    """Its settings, resolved for the rows."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The outcome of a trial."""

    weights: tuple[float, ...] | None
    """Learned weights; None if they diverged."""

    bias: float | None
    """Learned bias."""

    epochs: int
    """Epochs trained."""

    loss: float | None
    """Mean squared error at the end; None if the weights diverged."""


def problem_of(data: Data, *, bias: bool, folder: Path) -> Problem:
    """Generate or import the rows, measure their curvature, and solve them.

    Raises: BadInput: dependent columns, too few rows, a file that cannot be used.
    """
    path = folder / "dataset.parquet"
    if data.path is None:
        generate_dataset(data, path)
    else:
        import_as_told(data, path)
    dataset = open_dataset(path)
    with threads(1):
        curvature = curves.combine(curves.measured_parts(dataset, bias=bias), dataset.terms, bias=bias)
        # A separate training finds the anchor, from which every gradient is accurate to the last digits.
        _, problem, _ = fit(dataset, Train(precondition="qr", gradient="moments"), bias=bias)
        anchor = torch.tensor(
            [*problem.weights, *([] if problem.bias is None else [problem.bias])], dtype=torch.float64
        )
        rows = read_parts(dataset, torch.float64, torch.device("cpu"), lambda: read_blocks(dataset))
        sums = sums_over(dataset, rows, compiled=not fits_in_memory(dataset))
        gradient, loss = Moments(curvature, rows, sums).gradient(anchor, torch.eye(len(anchor), dtype=torch.float64))
    exact = exact_sums(dataset)
    return Problem(
        dataset=dataset,
        curvature=curvature,
        sums=exact,
        reference=solve(exact, dataset.terms, bias=bias),
        anchor=anchor,
        gradient=gradient,
        loss=loss,
    )


def is_tame(problem: Problem) -> bool:
    """Whether float64 matrices give accurate gradients for these rows; if not, each training must run separately."""
    return problem.curvature.scaled_condition**2 * torch.finfo(torch.float64).eps < _TAME


def limit_of(problem: Problem, pipeline: Pipeline) -> float | None:
    """Return the learning rate from which full-batch descent does not converge, or None if it is unknown."""
    try:
        return curves.stable_limit(problem.frame(pipeline.train).eigenvalues, pipeline.train.momentum)
    except ValueError:
        return None


def plan_trial(problem: Problem, pipeline: Pipeline) -> Trial:
    """Resolve the settings of one training.

    Raises: BadInput: a learning rate at or over the stable limit, or values beyond float32.
    """
    refuse_beyond_float32(problem.curvature, pipeline.train)
    descent = plan_descent(
        problem.curvature,
        problem.frame(pipeline.train),
        pipeline.train,
        list,
        in_memory=fits_in_memory(problem.dataset),
    )
    return Trial(problem=problem, pipeline=pipeline, descent=descent)


def train_together(trials: Sequence[Trial]) -> list[Trained]:
    """Train models of one size and dtype on full batches, all at once. Results have the order of the trials."""
    with threads(1):
        return _BatchedDescent(trials).train()


class _BatchedDescent:
    """The trainings in progress; each is one row of every tensor."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        settings = [trial.pipeline.train for trial in trials]
        num_rows = _column([trial.problem.curvature.num_rows for trial in trials])
        factors = torch.stack([trial.problem.curvature.bias_last for trial in trials])
        coordinates = torch.stack([trial.descent.coordinates for trial in trials])
        self.dtype = getattr(torch, settings[0].dtype)
        self.eps = torch.finfo(self.dtype).eps
        self.place = torch.arange(len(trials))
        self.state = {
            "coefficients": torch.stack([_start(trial) for trial in trials]),
            "velocity": torch.zeros(len(trials), factors.shape[-1], dtype=torch.float64),
            "anchor": torch.stack([trial.problem.anchor for trial in trials]),
            "gradient": torch.stack([trial.problem.gradient for trial in trials]),
            "hessian": 2 / num_rows.unsqueeze(2) * factors.mT @ factors,
            "step": coordinates @ coordinates.mT,
            "rate": _column([trial.descent.full_batch_rate for trial in trials]),
            "momentum": _column([train.momentum for train in settings]),
            "scale": torch.stack([EXACT_SCALE * trial.problem.curvature.scales for trial in trials]),
            "tolerance": _column([self.eps if train.tolerance == "auto" else train.tolerance for train in settings]),
            "stalls": _column([float(train.tolerance == "auto") for train in settings]),
            "epochs": _column([train.max_epochs for train in settings]),
            "anchor_loss": _column([trial.problem.loss for trial in trials]),
            "first_loss": torch.full((len(trials), 1), math.inf, dtype=torch.float64),
        }
        self.moves: list[torch.Tensor] = []
        self.found: list[Trained | None] = [None] * len(trials)
        self.has_bias = trials[0].problem.curvature.has_bias

    def train(self) -> list[Trained]:
        epoch = 0
        while len(self.place):
            loss = self._step()
            epoch += 1
            if epoch == 1:
                self.state["first_loss"] = loss
            self._end(epoch, loss)
        return [trained for trained in self.found if trained is not None]

    def _step(self) -> torch.Tensor:
        """Do one epoch; return the mean squared error before it, shape (trials, 1)."""
        now = self.state
        loss, bent = self._loss()
        gradient = (now["step"] @ (now["gradient"] + bent).unsqueeze(2)).squeeze(2)
        now["velocity"] = now["momentum"] * now["velocity"] + gradient
        before = now["coefficients"]
        now["coefficients"] = (before - now["rate"] * now["velocity"]).to(self.dtype).double()
        reach = torch.maximum(now["coefficients"].abs(), now["scale"])
        self.moves.append(((now["coefficients"] - before).abs() / reach).amax(dim=1, keepdim=True))
        del self.moves[: -2 * STALL_EPOCHS]
        return loss

    def _loss(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean squared error, shape (trials, 1), and the Hessian times the offset from the anchor."""
        now = self.state
        moved = now["coefficients"] - now["anchor"]
        bent = (now["hessian"] @ moved.unsqueeze(2)).squeeze(2)
        return now["anchor_loss"] + ((now["gradient"] + bent / 2) * moved).sum(dim=1, keepdim=True), bent

    def _end(self, epoch: int, loss: torch.Tensor) -> None:
        """Remove the trainings that have ended, and keep their results."""
        now, move = self.state, self.moves[-1]
        lost = ~(now["coefficients"].abs() < MAX_MAGNITUDE).all(dim=1, keepdim=True)
        lost |= loss > DIVERGED_GROWTH * now["first_loss"].clamp_min(torch.finfo(torch.float32).tiny)
        # With momentum, weights stop for an epoch when they turn back: two epochs are needed to detect convergence.
        turning = (now["momentum"] > 0) & ((self.moves[-2] if epoch > 1 else torch.inf) > now["tolerance"])
        converged = (move <= now["tolerance"]) & (now["tolerance"] > 0) & ~turning
        stalled = torch.zeros_like(converged)
        if len(self.moves) == 2 * STALL_EPOCHS and epoch % _LOOK_FOR_STALLS_EVERY == 0:
            recent = torch.stack(self.moves[-STALL_EPOCHS:]).amax(dim=0)
            earlier = torch.stack(self.moves[:STALL_EPOCHS]).amax(dim=0)
            stalled = (now["stalls"] > 0) & (recent <= STALL_BELOW * self.eps) & (recent > 0.9 * earlier)
        ended = (lost | converged | stalled | (now["epochs"] <= epoch)).squeeze(1)
        if not ended.any():
            return
        final, _ = self._loss()
        for row in ended.nonzero().squeeze(1).tolist():
            values = now["coefficients"][row].tolist()
            self.found[int(self.place[row])] = Trained(
                weights=None if lost[row] else tuple(values[:-1] if self.has_bias else values),
                bias=None if lost[row] or not self.has_bias else values[-1],
                epochs=epoch,
                loss=None if lost[row] else max(float(final[row]), 0.0),
            )
        self.place = self.place[~ended]
        self.state = {name: values[~ended] for name, values in now.items()}
        self.moves = [values[~ended] for values in self.moves]


def _start(trial: Trial) -> torch.Tensor:
    """Return the initial coefficients of a training, shape (p,): those of the model that `fit` makes."""
    train, num_terms = trial.pipeline.train, len(trial.problem.dataset.terms)
    sizes = (num_terms, 1) if trial.problem.curvature.has_bias else (num_terms,)
    # A module for each of many trainings would take longer than the trainings.
    parameters = [torch.empty(size, dtype=getattr(torch, train.dtype)) for size in sizes]
    draw_start(parameters, num_terms, torch.Generator().manual_seed(train.seed))
    return torch.cat([parameter.double() for parameter in parameters])


def _column(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)
