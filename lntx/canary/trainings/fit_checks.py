"""Check a training against its known start, path, settings and end.

Uses figures only; reads no file.
"""

from __future__ import annotations

import math

import torch

from lntx.canary.oracle.path_check import PathCheck
from lntx.canary.suite.findings import Finding, finding
from lntx.config.schema import Pipeline
from lntx.runs.run import Run
from lntx.training.model import LNTXLinearModel
from lntx.training.result import Epoch, Fit

_START_APART = 1e-9
# In float32 the rows themselves are rounded.
_SAME_SOLUTION = {"float64": 1e-13, "float32": 1e-5}
# Training has converged when no weight moves by more than eps; the remaining error is a few eps.
_STOOD_STILL = 64


def wrong_training(config: Pipeline, run: Run, fit: Fit, history: list[Epoch], path: PathCheck) -> Finding | None:
    """Return the first problem of the exact solution or the training, or None if both are right."""
    return (
        _solution(config, run, path)
        or _start(config, history[0])
        or _path(path)
        or _settings(fit, path)
        or _end(config, fit, path)
        or _figures(config, run, path)
    )


def _solution(config: Pipeline, run: Run, path: PathCheck) -> Finding | None:
    """Compare the exact solution with one from another method."""
    assert run.reference_weights is not None
    reference = [*run.reference_weights, *([] if run.reference_bias is None else [run.reference_bias])]
    size = max(abs(value) for value in path.solution) or 1.0
    names = [*(run.features or ()), "bias"][: len(reference)]
    for name, value, expected in zip(names, reference, path.solution, strict=True):
        if not abs(value - expected) <= _SAME_SOLUTION[config.train.dtype] * size:
            return finding(
                "reference", f"the exact solution has {name} = {value!r} where the oracle gives {expected!r}"
            )
    return None


def _start(config: Pipeline, start: Epoch) -> Finding | None:
    """Check that training starts at the weights of its seed, within ±1/√d, and not at the answer."""
    limit = 1 / math.sqrt(len(start.weights)) * (1 + 1e-6)
    if not all(abs(value) <= limit for value in start.coefficients):
        return finding("training", f"the weights start outside ±1/√d: {start.coefficients}")
    true = [*(config.data.true_weights or ()), *([] if start.bias is None else [config.data.bias])]
    if all(abs(value - answer) <= _START_APART for value, answer in zip(start.coefficients, true, strict=True)):
        return finding("training", "the weights start at the answer, which training must not know")
    initial, other = (_draw_start(config, start, seed) for seed in (config.train.seed, config.train.seed ^ 1))
    if initial != start.coefficients:
        return finding("training", f"the weights start at {start.coefficients} where the seed gives {initial}")
    if initial == other:
        return finding("training", f"the weights start at {initial} whatever the seed")
    return None


def _draw_start(config: Pipeline, start: Epoch, seed: int) -> tuple[float, ...]:
    dtype: torch.dtype = getattr(torch, config.train.dtype)
    generator = torch.Generator().manual_seed(seed)
    model = LNTXLinearModel(len(start.weights), bias=start.bias is not None, dtype=dtype, generator=generator)
    return model.weights if model.bias is None else (*model.weights, model.bias)


def _path(path: PathCheck) -> Finding | None:
    left = path.departure
    if left is None:
        return None
    what = left.what if left.what in ("loss", "bias") else f"the weight of {left.what}"
    gap = "" if left.found is None else f" by {abs(left.found - left.expected):.2g}"
    return finding(
        "training",
        f"epoch {left.epoch} deviates from the expected path{gap}; rounding allows {left.allowed:.2g}; {what} is "
        f"{left.found!r}, and descent on these rows gives {left.expected!r}",
    )


def _settings(fit: Fit, path: PathCheck) -> Finding | None:
    """Check that rate and limit follow from the rows: training converges with a wrong rate too."""
    if path.rate_is_right:
        return None
    return finding(
        "training",
        f"training took {fit.learning_rate!r} for the best learning rate and {fit.stable_limit!r} for the stable "
        "limit, which are not those of these rows",
    )


def _end(config: Pipeline, fit: Fit, path: PathCheck) -> Finding | None:
    """Check that training continued until it converged."""
    learned = [*fit.weights, *([] if fit.bias is None else [fit.bias])]
    size = max(abs(value) for value in path.solution) or 1.0
    eps = float(torch.finfo(getattr(torch, config.train.dtype)).eps)
    distance = max(abs(value - answer) for value, answer in zip(learned, path.solution, strict=True))
    if distance <= _STOOD_STILL * eps * size:
        return None
    return finding(
        "training", f"training ended ({fit.stop}) in epoch {fit.epochs}, {distance:.3g} from where its own path leads"
    )


def _figures(config: Pipeline, run: Run, path: PathCheck) -> Finding | None:
    """Check the other figures: mean squared error, residual standard deviation, standard errors."""
    # In float32 the path belongs to rounded rows, so the bound must be wider.
    slack = path.allowed_loss + (1e-5 * path.loss if config.train.dtype == "float32" else 0.0)
    if run.mse is None or not abs(run.mse - path.loss) <= slack:
        return finding("reference", f"the mean squared error is said to be {run.mse!r} where it is {path.loss!r}")
    if config.train.dtype == "float32" or run.residual_sd is None or path.residual_sd is None:
        return None
    if not abs(run.residual_sd - path.residual_sd) <= 1e-9 * path.residual_sd:
        return finding(
            "reference",
            f"the residual standard deviation is said to be {run.residual_sd!r} where it is {path.residual_sd!r}",
        )
    assert path.standard_errors is not None
    standard_errors = [*(run.standard_errors or ()), *([] if run.reference_bias is None else [run.bias_standard_error])]
    for value, expected in zip(standard_errors, path.standard_errors, strict=True):
        if value is None or not abs(value - expected) <= 1e-9 * expected:
            return finding("reference", f"a standard error is said to be {value!r} where it is {expected!r}")
    return None
