"""The steps of optimisers: of fused operators, and of whole optimisers in any form.

Sources: Kingma and Ba, Adam, 2015, algorithms 1 and 2; Loshchilov and Hutter, Decoupled weight decay regularization,
2019, algorithm 2; torch.optim.SGD, whose momentum is not scaled by the learning rate; the algorithms in the
documentation of torch's RMSprop, Adagrad, Adadelta, NAdam, RAdam, ASGD and Rprop, and their defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lntx.proof.bounds.call import Call
from lntx.proof.bounds.numbers import Bounded, as_balls, magnitude, middle
from lntx.proof.formulas.pointwise import Found

State = Mapping[str, Bounded]
"""What an optimiser reads and keeps for a parameter, by name."""

Settings = Mapping[str, Any]
"""A group of parameters, without them."""

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


def adam(state: State, settings: Settings, step: int) -> dict[str, Bounded]:
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


def sgd(state: State, settings: Settings, step: int) -> dict[str, Bounded]:
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


def _start(state: State, settings: Settings) -> tuple[Bounded, Bounded, float]:
    """Return the parameter, and the gradient with its sign and the decay of the weights; and the learning rate."""
    param, grad, decay = state["param"], state["grad"], float(settings.get("weight_decay") or 0)
    grad = -grad if settings.get("maximize") else grad
    return param, grad + param * decay if decay else grad, float(settings["lr"])


def _mean(old: Bounded, new: Bounded, beta: float) -> Bounded:
    """Return beta old + (1 - beta) new, in either form."""
    return (old + (new - old) * _less(new, beta)).or_form(old * beta + new * _less(new, beta))


def _constant(like: Bounded, number: float) -> Bounded:
    """Return a number that the program computes in float64 or in the format of the parameters."""
    return like.constant(number).widened(np.asarray(8 * like.format.u * abs(number)))


def rmsprop(state: State, settings: Settings, step: int) -> dict[str, Bounded]:
    """Return what RMSprop holds after a step. state: param, grad, square_avg; grad_avg, momentum_buffer if used."""
    del step
    param, grad, rate = _start(state, settings)
    alpha, momentum = float(settings["alpha"]), float(settings["momentum"])
    square = state["square_avg"] * alpha + grad * grad * _less(grad, alpha)
    after, under_root = {"square_avg": square}, square
    if settings["centered"]:
        after["grad_avg"] = _mean(state["grad_avg"], grad, alpha)
        under_root = square - after["grad_avg"] * after["grad_avg"]
    change = grad / (under_root.sqrt() + float(settings["eps"]))
    if momentum:
        change = after["momentum_buffer"] = state["momentum_buffer"] * momentum + change
    return {**after, "param": param - change * rate}


def adagrad(state: State, settings: Settings, step: int) -> dict[str, Bounded]:
    """Return what Adagrad holds after a step. state: param, grad, sum."""
    param, grad, rate = _start(state, settings)
    total = state["sum"] + grad * grad
    rate = rate / (1 + (step - 1) * float(settings["lr_decay"]))
    change = grad / (total.sqrt() + float(settings["eps"]))
    return {"sum": total, "param": param - change * _constant(grad, rate)}


def adadelta(state: State, settings: Settings, step: int) -> dict[str, Bounded]:
    """Return what Adadelta holds after a step. state: param, grad, square_avg, acc_delta."""
    del step
    param, grad, rate = _start(state, settings)
    rho, eps = float(settings["rho"]), float(settings["eps"])
    square = state["square_avg"] * rho + grad * grad * _less(grad, rho)
    change = (state["acc_delta"] + eps).sqrt() / (square + eps).sqrt() * grad
    total = state["acc_delta"] * rho + change * change * _less(grad, rho)
    return {"square_avg": square, "acc_delta": total, "param": param - change * rate}


def adamax(state: State, settings: Settings, step: int) -> dict[str, Bounded]:
    """Return what Adamax holds after a step. state: param, grad, exp_avg, exp_inf."""
    param, grad, rate = _start(state, settings)
    beta1, beta2 = (float(beta) for beta in settings["betas"])
    mean, size, old = (
        _mean(state["exp_avg"], grad, beta1),
        grad.abs() + float(settings["eps"]),
        state["exp_inf"] * beta2,
    )
    largest = old.like(np.maximum(old.value, size.value), np.maximum(old.error, size.error))
    change = mean / largest * (_constant(grad, rate) / _correction(grad, beta1, step))
    return {"exp_avg": mean, "exp_inf": largest, "param": param - change}


def _moments(state: State, settings: Settings) -> tuple[Bounded, Bounded, Bounded, Bounded, float]:
    """Return parameter, gradient, both moments and the learning rate of NAdam and RAdam."""
    param, grad, rate = state["param"], state["grad"], float(settings["lr"])
    grad, decay = -grad if settings.get("maximize") else grad, float(settings["weight_decay"])
    beta1, beta2 = (float(beta) for beta in settings["betas"])
    if decay and settings["decoupled_weight_decay"]:
        param = param * _constant(param, 1 - rate * decay)
    elif decay:
        grad = grad + param * decay
    second = state["exp_avg_sq"] * beta2 + grad * grad * _less(grad, beta2)
    return param, grad, _mean(state["exp_avg"], grad, beta1), second, rate


def nadam(state: State, settings: Settings, step: int) -> dict[str, Bounded]:
    """Return what NAdam holds after a step. state: param, grad, exp_avg, exp_avg_sq."""
    param, grad, first, second, rate = _moments(state, settings)
    beta1, beta2 = (float(beta) for beta in settings["betas"])
    shares = [beta1 * (1 - 0.5 * 0.96 ** (k * float(settings["momentum_decay"]))) for k in range(1, step + 2)]
    product = math.prod(shares[:-1])
    root = (second / _correction(grad, beta2, step)).sqrt() + float(settings["eps"])
    parts = (
        grad * _constant(grad, rate * (1 - shares[-2]) / (1 - product)) / root,
        first * _constant(grad, rate * shares[-1] / (1 - product * shares[-1])) / root,
    )
    # The product is kept in float32, a rounding a step.
    lost = [part.widened(magnitude(part.value) * (step * 2.0**-23 / (1 - product))) for part in parts]
    return {"exp_avg": first, "exp_avg_sq": second, "param": param - lost[0] - lost[1]}


def radam(state: State, settings: Settings, step: int) -> dict[str, Bounded]:
    """Return what RAdam holds after a step. state: param, grad, exp_avg, exp_avg_sq."""
    param, grad, first, second, rate = _moments(state, settings)
    beta1, beta2 = (float(beta) for beta in settings["betas"])
    limit = 2 / (1 - beta2) - 1
    length = limit - 2 * step * beta2**step / (1 - beta2**step)
    change = first / _correction(grad, beta1, step) * _constant(grad, rate)
    if length > 5:
        share = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
        # The length is a difference of large numbers.
        root = _constant(grad, (share * (1 - beta2**step)) ** 0.5).widened(np.asarray(64 * 2.0**-53 * limit))
        change = change * root / (second.sqrt() + float(settings["eps"]))
    return {"exp_avg": first, "exp_avg_sq": second, "param": param - change}


def asgd(state: State, settings: Settings, step: int) -> dict[str, Bounded]:
    """Return what ASGD holds after a step. state: param, grad, ax. The rate of a step is set by the one before."""
    param, grad, rate = _start(state, settings)
    decay = float(settings["lambd"])
    eta = rate / (1 + decay * rate * (step - 1)) ** float(settings["alpha"])
    share = 1 / max(1.0, step - 1 - float(settings["t0"]))
    # Both are kept in float32.
    eta_used = _constant(grad, eta).widened(np.asarray(2.0**-23 * eta))
    param = param * (1.0 - eta_used * decay) - grad * eta_used
    mean = state["ax"] + (param - state["ax"]) * _constant(grad, share).widened(np.asarray(2.0**-23 * share))
    return {"ax": param if share == 1 else mean, "param": param}


def rprop(state: State, settings: Settings, step: int) -> dict[str, Bounded]:
    """Return what Rprop holds after a step. state: param, grad, prev, step_size."""
    del step
    param, grad, _ = _start(state, settings)
    (down, up), (low, high) = settings["etas"], settings["step_sizes"]
    turn = np.sign(middle(grad.value) * middle(state["prev"].value))
    factor = np.where(turn > 0, up, np.where(turn < 0, down, 1.0))
    scaled = state["step_size"] * grad.like(factor, grad.format.u * factor * (factor != 1))
    limited = np.clip(middle(scaled.value), low, high)
    size = scaled.like(limited, np.where(limited == middle(scaled.value), scaled.error, grad.format.u * limited))
    kept = grad.where(turn >= 0, 0.0)
    change = size.like(np.sign(middle(kept.value)) * size.value, size.error * (middle(kept.value) != 0))
    return {"prev": kept, "step_size": size, "param": param - change}


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
