"""The steps of SGD, Adam and AdamW: of fused operators, and of whole optimisers in any form.

Sources: Kingma and Ba, Adam, 2015, algorithm 1; Loshchilov and Hutter, Decoupled weight decay regularization, 2019,
algorithm 2; torch.optim.SGD, whose momentum is not scaled by the learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lntx.proof.call import Call
from lntx.proof.formulas.pointwise import Found
from lntx.proof.numbers import Bounded, as_balls, magnitude

# 1 - beta^t is computed in float64; where it cancels, its error is absolute.
_POWER_ERROR = 4 * 2.0**-53


def _correction(like: Bounded, beta: float, step: int) -> Bounded:
    """Return 1 - beta^step."""
    base = np.array([beta])
    numbers = 1 - (as_balls(base) if like.value.dtype == object else base) ** step
    return like.like(numbers, _POWER_ERROR + like.format.u * magnitude(numbers))


def _less(like: Bounded, number: float) -> Bounded:
    """Return 1 - number, as the program computes it: in float64."""
    return like.constant(1.0 - number).widened(np.asarray(2.0**-53))


def adam(state: Mapping[str, Bounded], settings: Mapping[str, Any], step: int) -> dict[str, Bounded]:
    """Return the parameter and the moments after a step.

    state: param, grad, exp_avg, exp_avg_sq and, for amsgrad, max_exp_avg_sq. step: number of this step, from 1.
    """
    param, grad = state["param"], state["grad"]
    lr, decay = float(settings["lr"]), float(settings["weight_decay"])
    beta1, beta2 = (float(beta) for beta in settings["betas"])
    if settings.get("maximize"):
        grad = -grad
    if decay and settings["decoupled"]:
        scaled = param * param.constant(1 - lr * decay).widened(np.asarray(2.0**-52))
        param = scaled.or_form(param - param * (param.constant(lr * decay).widened(np.asarray(2.0**-53 * lr * decay))))
    elif decay:
        grad = grad + param * decay
    first = state["exp_avg"] + (grad - state["exp_avg"]) * _less(grad, beta1)
    first = first.or_form(state["exp_avg"] * beta1 + grad * _less(grad, beta1))
    second = state["exp_avg_sq"] * beta2 + grad * grad * _less(grad, beta2)
    state_after = {"exp_avg": first, "exp_avg_sq": second}
    under_root = second
    if settings.get("amsgrad"):
        largest = state["max_exp_avg_sq"]
        under_root = second.like(np.maximum(second.value, largest.value), np.maximum(second.error, largest.error))
        state_after["max_exp_avg_sq"] = under_root
    root = under_root.sqrt() / _correction(grad, beta2, step).sqrt() + float(settings["eps"])
    rate = grad.constant(lr) / _correction(grad, beta1, step)
    change = first * rate / root
    # Kernels scale the mean first, the root first, or divide first.
    state_after["param"] = param - change.or_form(rate * (first / root))
    return state_after


def sgd(state: Mapping[str, Bounded], settings: Mapping[str, Any], step: int) -> dict[str, Bounded]:
    """Return the parameter and the momentum after a step.

    state: param, grad and, from the second step, momentum_buffer.
    """
    del step
    param, grad = state["param"], state["grad"]
    if settings.get("maximize"):
        grad = -grad
    if settings["weight_decay"]:
        grad = grad + param * float(settings["weight_decay"])
    state_after = {}
    momentum = float(settings["momentum"])
    if momentum:
        buffer = grad
        if "momentum_buffer" in state:
            buffer = state["momentum_buffer"] * momentum + grad * _less(grad, float(settings["dampening"]))
        state_after["momentum_buffer"] = buffer
        grad = grad + buffer * momentum if settings["nesterov"] else buffer
    state_after["param"] = param - grad * float(settings["lr"])
    return state_after


def fused_adam(call: Call) -> Found:
    """_fused_adam_, _fused_adamw_, for one parameter of the list."""
    slots = {"param": "self", "exp_avg": "exp_avgs", "exp_avg_sq": "exp_avg_sqs", "max_exp_avg_sq": "max_exp_avg_sqs"}
    settings = {
        **{name: call[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")},
        "betas": (call["beta1"], call["beta2"]),
        "decoupled": call.name.startswith("_fused_adamw"),
    }
    if call["grad_scale"] is not None or call["found_inf"] is not None:
        raise NotImplementedError("gradients scaled inside the step")
    if not call["amsgrad"]:
        slots.pop("max_exp_avg_sq")
    picked = call.pick("self")
    state = {name: call.at(slot, picked, call["self"].shape) for name, slot in slots.items()}
    state["grad"] = call.at("grads", picked, call["self"].shape)
    for name, value in adam(state, settings, int(call["state_steps"])).items():
        yield slots[name], picked, value


def fused_sgd(call: Call) -> Found:
    """_fused_sgd_, for one parameter of the list."""
    if call["grad_scale"] is not None or call["found_inf"] is not None:
        raise NotImplementedError("gradients scaled inside the step")
    picked = call.pick("self")
    state = {name: call.at(slot, picked, call["self"].shape) for name, slot in (("param", "self"), ("grad", "grads"))}
    if call["momentum"] and not call["is_first_step"]:
        state["momentum_buffer"] = call.at("momentum_buffer_list", picked, call["self"].shape)
    slots = {"param": "self", "momentum_buffer": "momentum_buffer_list"}
    for name, value in sgd(state, call.args, 1).items():
        yield slots[name], picked, value
