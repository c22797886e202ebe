"""Whole steps of optimisers as formulas: a wrong step that is made of right operators is found here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from lntx.proof.bounds.call import Call, unravel
from lntx.proof.bounds.numbers import FORMATS, Array, Bounded
from lntx.proof.formulas import optimizers

_MOMENTS = ("exp_avg", "exp_avg_sq")
_FORMULAS: Mapping[type[torch.optim.Optimizer], tuple[Callable[..., dict[str, Bounded]], tuple[str, ...]]] = {
    torch.optim.SGD: (optimizers.sgd, ("momentum_buffer",)),
    torch.optim.Adam: (optimizers.adam, (*_MOMENTS, "max_exp_avg_sq")),
    torch.optim.AdamW: (optimizers.adam, (*_MOMENTS, "max_exp_avg_sq")),
    torch.optim.RMSprop: (optimizers.rmsprop, ("square_avg", "grad_avg", "momentum_buffer")),
    torch.optim.Adagrad: (optimizers.adagrad, ("sum",)),
    torch.optim.Adadelta: (optimizers.adadelta, ("square_avg", "acc_delta")),
    torch.optim.Adamax: (optimizers.adamax, ("exp_avg", "exp_inf")),
    torch.optim.NAdam: (optimizers.nadam, _MOMENTS),
    torch.optim.RAdam: (optimizers.radam, _MOMENTS),
    torch.optim.ASGD: (optimizers.asgd, ("ax",)),
    torch.optim.Rprop: (optimizers.rprop, ("prev", "step_size")),
}
"""The formula of the whole step of an optimiser, and the names of what it keeps for each parameter."""


class Before:
    """What an optimiser holds before a step, at the elements that are checked.

    arguments: of the step. sample: number of elements of each parameter. draw: chooses them.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        arguments: tuple[Any, ...] = (),
        *,
        sample: int,
        draw: np.random.Generator,
    ) -> None:
        self._optimizer = optimizer
        self.why_not = _why_not(optimizer, arguments)
        self.held = kept_by(optimizer) if self.why_not is None else {}
        self._parts: list[tuple[dict[str, Any], torch.nn.Parameter, Array, dict[str, torch.Tensor], int]] = []
        if self.why_not is not None:
            return
        _, names = _FORMULAS[type(optimizer)]
        for group in optimizer.param_groups:
            settings = {name: _as_number(value) for name, value in group.items() if name != "params"}
            for param in group["params"]:
                if param.grad is None or param.grad.is_sparse:
                    continue
                state = optimizer.state.get(param, {})
                picked = _pick(param.numel(), sample, draw)
                tensors = {name: state[name] for name in names if isinstance(state.get(name), torch.Tensor)}
                taken = {
                    name: _at(tensor, picked)
                    for name, tensor in {"param": param, "grad": param.grad, **tensors}.items()
                }
                for name in names if not isinstance(optimizer, torch.optim.SGD) else ():
                    if name != "max_exp_avg_sq" or group.get("amsgrad"):
                        # All start from 0 but the step sizes of Rprop.
                        first = float(group["lr"]) if name == "step_size" else 0.0
                        taken.setdefault(name, torch.full_like(taken["param"], first))
                self._parts.append((settings, param, picked, taken, int(state.get("step", 0)) + 1))

    def after(self) -> Iterator[tuple[Call, str, Array, Bounded]]:
        """Yield, for each parameter: a call, the name of what the step wrote, where, and what must be there."""
        if self.why_not is not None:
            return
        formula, _ = _FORMULAS[type(self._optimizer)]
        decoupled = isinstance(self._optimizer, torch.optim.AdamW)
        for settings, param, picked, taken, step in self._parts:
            state = self._optimizer.state.get(param, {})
            results = {
                "param": param,
                **{name: value for name, value in state.items() if isinstance(value, torch.Tensor)},
            }
            call = Call(f"{type(self._optimizer).__name__}.step", taken, [param], after=results)
            # A loop over operators rounds each of them to the format of the parameters.
            call.own_format = True
            hyper = {"decoupled": settings.get("decoupled_weight_decay", decoupled), **settings}
            for as_balls in (param.dtype == torch.float64, True):
                call.as_balls = as_balls
                numbers = {name: call.read(value) for name, value in taken.items()}
                target_value = {name: value for name, value in formula(numbers, hyper, step).items() if name in results}
                if all((value.share(call.got(name, picked)) <= 1).all() for name, value in target_value.items()):
                    break
            for name, expected in target_value.items():
                yield call, name, picked, expected


def _why_not(optimizer: torch.optim.Optimizer, arguments: tuple[Any, ...]) -> str | None:
    if type(optimizer) not in _FORMULAS:
        return "no formula of the whole step; its operators are checked one by one"
    if any(amount is not None for amount in arguments):
        return "a step with a closure"
    if getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None:
        return "a step that scales its gradients"
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return "a step with hooks of its own"
    groups = optimizer.param_groups
    values = [value for group in groups for name, value in group.items() if name not in ("params", "lr")]
    values += [amount for value in values if isinstance(value, tuple | list) for amount in value]
    if any(isinstance(value, torch.Tensor) for value in values):
        return "settings that are tensors"
    if any(param.dtype not in FORMATS for group in groups for param in group["params"]):
        return "parameters of a format without bounds"
    return None


def kept_by(optimizer: torch.optim.Optimizer) -> dict[int, tuple[int, frozenset[str]]]:
    """Return what is kept for each parameter that has a gradient: the number of steps, and the names of tensors."""
    _, names = _FORMULAS[type(optimizer)]
    states = {}
    for param in (
        parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None
    ):
        state = optimizer.state.get(param, {})
        names_stored = frozenset(name for name in names if isinstance(state.get(name), torch.Tensor))
        states[id(param)] = int(state.get("step", 0)), names_stored
    return states


def lost(before: dict[int, tuple[int, frozenset[str]]], now: dict[int, tuple[int, frozenset[str]]]) -> str | None:
    """Return what an optimiser has lost since the end of its step before; None if nothing."""
    for param, (step, names) in before.items():
        if param not in now:
            continue
        if now[param][0] != step:
            return f"the number of its steps went from {step} to {now[param][0]} between two steps"
        if names - now[param][1]:
            return f"its {', '.join(sorted(names - now[param][1]))} is gone between two steps"
    return None


def _as_number(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return float(value)
    if isinstance(value, tuple):
        return tuple(_as_number(amount) for amount in value)
    return value


def _pick(count: int, sample: int, draw: np.random.Generator) -> Array:
    if count <= 4 * sample:
        return np.arange(count)
    return np.unique(np.concatenate([draw.integers(0, count, sample), [0, count - 1]]))


def _at(tensor: torch.Tensor, picked: Array) -> torch.Tensor:
    # Indexing copies: the step cannot change it.
    return tensor.detach()[unravel(picked, tensor.shape)].clone()
