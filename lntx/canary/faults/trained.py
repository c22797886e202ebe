"""Faults of torch, its optimiser, the device, or the settings that reach them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from lntx.canary.cases import Case
from lntx.canary.faults.planting import Fault, flip_first
from lntx.proof.faults import replaced

_EPOCH = 2
"""The epoch of a fault that occurs once: early, so that training has recovered by the end."""

_A_STEP = "the distance that rounding explains, about 1e-12 of the weights for 1,000 rows, more for more"

_Parameters = list[torch.Tensor]
_Step = Callable[[], None]
_Plant = Callable[[Case], contextlib.AbstractContextManager[None]]


def _in_step(change: Callable[[_Parameters, _Step], None]) -> _Plant:
    """Change one step of the optimiser. change: called with the parameters and the original step."""

    def plant(_case: Case) -> contextlib.AbstractContextManager[None]:
        taken: list[int] = []

        def make(step: Callable[..., Any]) -> Callable[..., Any]:
            def changing(self: torch.optim.SGD, *args: Any, **options: Any) -> None:
                taken.append(1)
                if len(taken) == _EPOCH:
                    change([p for group in self.param_groups for p in group["params"]], lambda: step(self))
                else:
                    step(self, *args, **options)

            return changing

        return replaced(torch.optim.SGD, "step", make)

    return plant


def _flip_weight(parameters: _Parameters, step: _Step) -> None:
    step()
    flip_first(parameters[0], 32)


def _flip_gradient(parameters: _Parameters, step: _Step) -> None:
    assert parameters[0].grad is not None
    flip_first(parameters[0].grad, 52)
    step()


def _flip_step(parameters: _Parameters, step: _Step) -> None:
    before = parameters[0].detach().clone()
    step()
    with torch.no_grad():
        moved = parameters[0] - before
        flip_first(moved, 51)
        parameters[0].copy_(before + moved)


def _skip(_parameters: _Parameters, _step: _Step) -> None:
    pass


def _nan(parameters: _Parameters, step: _Step) -> None:
    assert parameters[0].grad is not None
    parameters[0].grad.view(-1)[0] = torch.nan
    step()


def _settings(**changes: Callable[[float], float]) -> _Plant:
    """Create the optimiser with other settings than it was given."""

    def plant(_case: Case) -> contextlib.AbstractContextManager[None]:
        def make(init: Callable[..., None]) -> Callable[..., None]:
            def changing(self: torch.optim.SGD, *args: Any, **options: Any) -> None:
                init(self, *args, **options)
                for group in self.param_groups:
                    for name, change in changes.items():
                        group[name] = change(group[name])

            return changing

        return replaced(torch.optim.SGD, "__init__", make)

    return plant


def _keep_gradients(_case: Case) -> contextlib.AbstractContextManager[None]:
    return replaced(torch.optim.SGD, "zero_grad", lambda _zero: lambda _self, *_args, **_options: None)


def _sum_for_mean(_case: Case) -> contextlib.AbstractContextManager[None]:
    def make(mse_loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda found, target, **_options: mse_loss(found, target, reduction="sum")

    return replaced(nn.functional, "mse_loss", make)


def _lost_part(_case: Case) -> contextlib.AbstractContextManager[None]:
    """Leave the last quarter of the rows out of one gradient, as if a thread's sum were lost."""
    calls: list[int] = []

    def make(mse_loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def losing(found: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
            calls.append(1)
            if len(calls) == _EPOCH:
                kept = len(found) - max(1, len(found) // 4)
                found = torch.cat([found[:kept], found[kept:].detach()])
            return mse_loss(found, target, **options)

        return losing

    return replaced(nn.functional, "mse_loss", make)


def _scaled(_case: Case) -> contextlib.AbstractContextManager[None]:
    def make(linear: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda *args, **options: linear(*args, **options) * (1 + 1e-9)

    return replaced(nn.functional, "linear", make)


def _float32_sums(_case: Case) -> contextlib.AbstractContextManager[None]:
    """Sum predictions and gradients in float32, whatever the dtype of the weights."""

    def make(linear: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def narrow(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
            found = linear(x.float(), weight.float(), None if bias is None else bias.float())
            return found.to(weight.dtype)

        return narrow

    return replaced(nn.functional, "linear", make)


def _few_epochs(_case: Case) -> contextlib.AbstractContextManager[None]:
    from lntx.training.loop import TrainingLoop

    def make(descend: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, steps, stopping, _max_epochs: descend(self, steps, stopping, 3)

    return replaced(TrainingLoop, "descend", make)


def _stops_early(_case: Case) -> contextlib.AbstractContextManager[None]:
    """Treat weights as converged as soon as they move by less than a part in 10^9."""
    from lntx.training.stopping import Stopping

    def make(after: Callable[..., Any]) -> Callable[..., Any]:
        def hasty(self: Stopping, *args: Any) -> Any:
            stop = after(self, *args)
            return "converged" if stop is None and self.last_move < 1e-9 else stop

        return hasty

    return replaced(Stopping, "after", make)


def _global_start(_case: Case) -> contextlib.AbstractContextManager[None]:
    """Draw the initial weights from torch's global generator."""

    def make(uniform: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda tensor, low=0.0, high=1.0, generator=None: uniform(tensor, low, high)

    return replaced(nn.init, "uniform_", make)


def _knows_the_answer(case: Case) -> contextlib.AbstractContextManager[None]:
    import lntx.training.fit

    def make(model_class: Callable[..., Any]) -> Callable[..., Any]:
        def knowing(*args: Any, **options: Any) -> Any:
            model = model_class(*args, **options)
            with torch.no_grad():
                model.linear.weight.copy_(torch.tensor([case.pipeline.data.true_weights]))
                if model.linear.bias is not None:
                    model.linear.bias.fill_(case.pipeline.data.bias)
            return model

        return knowing

    return replaced(lntx.training.fit, "LNTXLinearModel", make)


def _training(name: str, what: str, planted: _Plant, limit: str | None = None) -> Fault:
    return Fault(name=name, what=what, blame="training", limit=limit, planted=planted)


TRAINED = (
    _training("flipped-weight-bit", "a bit of a weight flips in one epoch", _in_step(_flip_weight), _A_STEP),
    _training("flipped-gradient-bit", "a bit of a gradient flips in one epoch", _in_step(_flip_gradient), _A_STEP),
    _training("flipped-step-bit", "a bit of one optimiser step flips", _in_step(_flip_step), _A_STEP),
    _training("skipped-step", "one step is not taken", _in_step(_skip), _A_STEP),
    _training("nan", "a gradient is NaN in one epoch", _in_step(_nan)),
    _training("lost-partial-sum", "a quarter of the rows is lost from one gradient", _lost_part, _A_STEP),
    _training("kept-gradients", "gradients are not set to zero before they are added up", _keep_gradients, _A_STEP),
    _training("sum-for-mean", "the loss is the sum of squares, not their mean", _sum_for_mean, "a single row"),
    _training(
        "wrong-momentum",
        "the optimiser has another momentum than it was given",
        _settings(momentum=lambda momentum: momentum + 1e-3),
        _A_STEP,
    ),
    _training(
        "float16-rate",
        "the learning rate is rounded to float16",
        _settings(lr=lambda rate: float(torch.tensor(rate, dtype=torch.float16))),
        "a rate that is a float16 number",
    ),
    _training("rate-over-the-limit", "steps are beyond the stable limit", _settings(lr=lambda rate: 4 * rate)),
    _training("scaled-predictions", "nn.functional.linear is off by 1e-9", _scaled, _A_STEP),
    _training(
        "float32-sums", "predictions and gradients of float64 weights are added up in float32", _float32_sums, _A_STEP
    ),
    _training("too-few-epochs", "training ends after three epochs", _few_epochs, "an answer that is reached by then"),
    _training("stops-early", "training ends while weights still move by 1e-9", _stops_early, "64 eps of the weights"),
    _training("unseeded-start", "the weights do not start where the seed says", _global_start),
    _training("leaked-answer", "training starts at the true weights", _knows_the_answer, "1e-9 of the weights"),
)
"""Faults that must be blamed on training."""
