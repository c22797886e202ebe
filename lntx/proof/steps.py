"""Whole steps of optimisers as formulas: a wrong step that is made of right operators is found here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from lntx.proof.call import Call, unravel
from lntx.proof.formulas import optimizers
from lntx.proof.numbers import FORMATS, Array, Bounded

_ADAM = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
_FORMULAS: Mapping[type[torch.optim.Optimizer], tuple[Callable[..., dict[str, Bounded]], tuple[str, ...]]] = {
    torch.optim.SGD: (optimizers.sgd, ("momentum_buffer",)),
    torch.optim.Adam: (optimizers.adam, _ADAM),
    torch.optim.AdamW: (optimizers.adam, _ADAM),
}


class Before:
    """What an optimiser holds before a step, at the elements that are checked.

    sample: number of elements of each parameter. draw: chooses them.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, sample: int, draw: np.random.Generator) -> None:
        self._optimizer = optimizer
        self.why_not = _why_not(optimizer)
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
                held = {name: state[name] for name in names if isinstance(state.get(name), torch.Tensor)}
                taken = {
                    name: _at(tensor, picked) for name, tensor in {"param": param, "grad": param.grad, **held}.items()
                }
                for name in names if isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW) else ():
                    if name != "max_exp_avg_sq" or group.get("amsgrad"):
                        # The moments start from 0.
                        taken.setdefault(name, torch.zeros_like(taken["param"]))
                self._parts.append((settings, param, picked, taken, int(state.get("step", 0)) + 1))

    def after(self) -> Iterator[tuple[Call, str, Array, Bounded]]:
        """Yield, for each parameter: a call, the name of what the step wrote, where, and what must be there."""
        if self.why_not is not None:
            return
        formula, _ = _FORMULAS[type(self._optimizer)]
        decoupled = isinstance(self._optimizer, torch.optim.AdamW)
        for settings, param, picked, taken, step in self._parts:
            state = self._optimizer.state.get(param, {})
            results = {"param": param, **{name: one for name, one in state.items() if isinstance(one, torch.Tensor)}}
            call = Call(f"{type(self._optimizer).__name__}.step", taken, [param], after=results)
            # A loop over operators rounds each of them to the format of the parameters.
            call.own_format = True
            hyper = {"decoupled": settings.get("decoupled_weight_decay", decoupled), **settings}
            for call.as_balls in (param.dtype == torch.float64, True):
                numbers = {name: call.read(one) for name, one in taken.items()}
                found = {name: one for name, one in formula(numbers, hyper, step).items() if name in results}
                if all((one.share(call.got(name, picked)) <= 1).all() for name, one in found.items()):
                    break
            for name, expected in found.items():
                yield call, name, picked, expected


def _why_not(optimizer: torch.optim.Optimizer) -> str | None:
    if type(optimizer) not in _FORMULAS:
        return "no formula of the whole step; its operators are checked one by one"
    groups = optimizer.param_groups
    if any(param.dtype not in FORMATS for group in groups for param in group["params"]):
        return "parameters of a format without bounds"
    return None


def _as_number(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return float(value)
    if isinstance(value, tuple):
        return tuple(_as_number(one) for one in value)
    return value


def _pick(count: int, sample: int, draw: np.random.Generator) -> Array:
    if count <= 4 * sample:
        return np.arange(count)
    return np.unique(np.concatenate([draw.integers(0, count, sample), [0, count - 1]]))


def _at(tensor: torch.Tensor, picked: Array) -> torch.Tensor:
    # Indexing copies: the step cannot change it.
    return tensor.detach()[unravel(picked, tensor.shape)].clone()
