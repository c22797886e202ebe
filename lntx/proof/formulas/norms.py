"""Normalisation over layers, groups, batches and root mean squares, and its gradients.

x̂ = (x - mean) rstd with rstd = 1 / sqrt(variance + eps), out = x̂ γ + β. With g = dout γ and n elements:
dx = rstd (g - mean(g) - x̂ mean(g x̂)), dγ = sum(dout x̂), dβ = sum(dout): Ioffe and Szegedy, Batch normalization, 2015;
Ba, Kiros and Hinton, Layer normalization, 2016. Kernels also use out = x (rstd γ) + (β - mean rstd γ) and
dx = rstd g + b x + c (ATen, layer_norm_kernel.cpp); the bounds hold for these forms too.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from lntx.proof.bounds.call import Call, unravel
from lntx.proof.bounds.numbers import Array, Bounded, magnitude
from lntx.proof.formulas.pointwise import Found


def _column(numbers: Bounded) -> Bounded:
    return numbers.reshape(-1, 1)


def _statistics(rows: Bounded, eps: float) -> tuple[Bounded, Bounded, Bounded]:
    """Return mean, variance and rstd of rows, shape (k, n)."""
    mean = rows.mean()
    centred = rows - _column(mean)
    variance = (centred * centred).mean()
    return mean, variance, (variance + eps).rsqrt()


def _normalised(inputs: Bounded, mean: Bounded, rstd: Bounded) -> Bounded:
    """Return (x - mean) rstd; also for kernels that compute x rstd - mean rstd."""
    u = inputs.format.u
    with np.errstate(all="ignore"):
        other_form = 2 * u * (inputs.size + mean.size) * magnitude(rstd.value)
    return ((inputs - mean) * rstd).widened(other_form)


def layer_norm(call: Call) -> Found:
    """native_layer_norm: over the last axes."""
    width = math.prod(call["normalized_shape"])
    inputs = call["input"].reshape(-1, width)
    picked = call.pick(terms=width)
    row, column = np.divmod(picked, width)
    rows = call.read(inputs, torch.from_numpy(row))
    mean, _, rstd = _statistics(rows, float(call["eps"]))
    value = _normalised(rows[np.arange(len(row)), column], mean, rstd)
    yield "0", picked, _scaled_and_shifted(call, value, torch.from_numpy(column))
    for slot in ("1", "2"):
        if call.result(slot).numel() == inputs.shape[0]:
            chosen = call.pick(slot, terms=width)
            mean, _, rstd = _statistics(call.read(inputs, torch.from_numpy(chosen)), float(call["eps"]))
            yield slot, chosen, mean if slot == "1" else rstd


def _scaled_and_shifted(call: Call, value: Bounded, place: torch.Tensor) -> Bounded:
    if call["weight"] is not None:
        value = value * call.read(call["weight"].reshape(-1), place)
    if call["bias"] is not None:
        shift = call.read(call["bias"].reshape(-1), place)
        value = value + shift
    return value


def _gradient(grad: Bounded, inputs: Bounded, mean: Bounded, rstd: Bounded, place: Array) -> Bounded:
    """Return dx at one place of each row. grad: dout γ, inputs: x, shape (k, n); mean, rstd: shape (k,)."""
    n = float(inputs.shape[-1])
    every = np.arange(inputs.shape[0])
    centred = _normalised(inputs, _column(mean), _column(rstd))
    first = rstd * (grad[every, place] - grad.mean() - centred[every, place] * (grad * centred).mean())
    sum_gx, sum_g = (grad * inputs).sum(), grad.sum()
    b = (sum_g * mean - sum_gx) * rstd * rstd * rstd / n
    c = -(b * mean) - sum_g * rstd / n
    return first.or_form(rstd * grad[every, place] + b * inputs[every, place] + c)


def layer_norm_gradient(call: Call) -> Found:
    """native_layer_norm_backward."""
    width = math.prod(call["normalized_shape"])
    grad, inputs = call["grad_out"].reshape(-1, width), call["input"].reshape(-1, width)
    means, rstds = call["mean"].reshape(-1), call["rstd"].reshape(-1)
    if call["output_mask"][0]:
        picked = call.pick("0", terms=width)
        row, column = np.divmod(picked, width)
        where = torch.from_numpy(row)
        g = call.read(grad, where)
        if call["weight"] is not None:
            g = g * call.read(call["weight"].reshape(1, -1))
        yield (
            "0",
            picked,
            _gradient(g, call.read(inputs, where), call.read(means, where), call.read(rstds, where), column),
        )
    for slot in ("1", "2"):
        if call["output_mask"][int(slot)] and call.outputs[int(slot)] is not None:
            picked = call.pick(slot, terms=grad.shape[0])
            where = torch.from_numpy(picked)
            g = call.read(grad.t(), where)
            if slot == "1":
                g = g * _normalised(call.read(inputs.t(), where), call.read(means), call.read(rstds))
            yield slot, picked, g.sum()


def rms_norm(call: Call) -> Found:
    """_fused_rms_norm: x / sqrt(mean(x²) + eps) γ (Zhang and Sennrich, Root mean square layer normalization, 2019)."""
    width = math.prod(call["normalized_shape"])
    inputs = call["input"].reshape(-1, width)
    eps = call["eps"] if call["eps"] is not None else torch.finfo(call["input"].dtype).eps
    picked = call.pick(terms=width)
    row, column = np.divmod(picked, width)
    rows = call.read(inputs, torch.from_numpy(row))
    rstd = ((rows * rows).mean() + float(eps)).rsqrt()
    value = rows[np.arange(len(row)), column] * rstd
    yield "0", picked, _scaled_and_shifted(call, value, torch.from_numpy(column))


def _by_channel(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements of each channel, shape (channels, n)."""
    return tensor.transpose(0, 1).reshape(tensor.shape[1], -1)


def batch_norm(call: Call) -> Found:
    """native_batch_norm, _batch_norm_with_update: over all axes but the channels; and the running statistics."""
    inputs = _by_channel(call["input"])
    count = inputs.shape[1]
    eps, is_training = float(call["eps"]), call.args.get("training", True)
    picked = call.pick(terms=count if is_training else 1)
    place = unravel(picked, call.out.shape)
    channel = place[1]
    values = call.read(call["input"], place)
    if not is_training:
        mean = call.read(call["running_mean"], channel)
        rstd = (call.read(call["running_var"], channel) + eps).rsqrt()
        yield "0", picked, _folded(call, values, mean, rstd, channel)
        return
    mean, _, rstd = _statistics(call.read(inputs, channel), eps)
    yield "0", picked, _folded(call, values, mean, rstd, channel)
    for slot in ("1", "2", "running_mean", "running_var"):
        if (not slot.isdigit() and call.after.get(slot) is None) or call.result(slot).numel() == 0:
            continue
        chosen = call.pick(slot, terms=count)
        mean, variance, rstd = _statistics(call.read(inputs, torch.from_numpy(chosen)), eps)
        if slot.isdigit():
            yield slot, chosen, mean if slot == "1" else rstd
            continue
        share = float(call["momentum"])
        new = mean if slot == "running_mean" else variance * (count / (count - 1.0))
        yield slot, chosen, new * share + call.read(call[slot], torch.from_numpy(chosen)) * (1.0 - share)


def _folded(call: Call, inputs: Bounded, mean: Bounded, rstd: Bounded, channel: torch.Tensor) -> Bounded:
    """Return x̂ γ + β; also for kernels that compute x (rstd γ) + (β - mean rstd γ)."""
    first = _scaled_and_shifted(call, _normalised(inputs, mean, rstd), channel)
    alpha = rstd if call["weight"] is None else rstd * call.read(call["weight"], channel)
    shift = -(mean * alpha)
    if call["bias"] is not None:
        shift = call.read(call["bias"], channel) - mean * alpha
    # In their own format these kernels round scale and shift to it.
    return first.or_form(inputs * alpha + shift)


def batch_norm_gradient(call: Call) -> Found:
    """native_batch_norm_backward."""
    grad, inputs = _by_channel(call["grad_out"]), _by_channel(call["input"])
    count, eps = inputs.shape[1], float(call["eps"])

    def statistics(channel: torch.Tensor) -> tuple[Bounded, Bounded]:
        if call["train"]:
            return call.read(call["save_mean"], channel), call.read(call["save_invstd"], channel)
        return (call.read(call["running_mean"], channel), (call.read(call["running_var"], channel) + eps).rsqrt())

    if call["output_mask"][0]:
        picked = call.pick("0", terms=count)
        place = unravel(picked, call["input"].shape)
        channel = place[1]
        mean, rstd = statistics(channel)
        weight = call.read(call["weight"], channel) if call["weight"] is not None else None
        if call["train"]:
            across = np.ravel_multi_index(
                tuple(index.numpy() for index in (place[0], *place[2:])),
                tuple(size for axis, size in enumerate(call["input"].shape) if axis != 1),
            )
            g, x = call.read(grad, channel), call.read(inputs, channel)
            value = _gradient(g, x, mean, rstd, across)
        else:
            value = call.read(call["grad_out"], place) * rstd
        yield "0", picked, value if weight is None else value * weight
    for slot in ("1", "2"):
        if call["output_mask"][int(slot)]:
            picked = call.pick(slot, terms=count)
            channel = torch.from_numpy(picked)
            mean, rstd = statistics(channel)
            g = call.read(grad, channel)
            if slot == "1":
                g = g * _normalised(call.read(inputs, channel), _column(mean), _column(rstd))
            yield slot, picked, g.sum()


def _by_group(call: Call, tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements of each sample's groups, shape (samples groups, n)."""
    return tensor.reshape(call["N"] * call["group"], -1)


def group_norm(call: Call) -> Found:
    """native_group_norm: over each group of channels of a sample (Wu and He, Group normalization, 2018)."""
    inputs = _by_group(call, call["input"])
    width = inputs.shape[1]
    picked = call.pick(terms=width)
    row, column = np.divmod(picked, width)
    channel = torch.from_numpy(picked // call["HxW"] % call["C"])
    rows = call.read(inputs, torch.from_numpy(row))
    mean, _, rstd = _statistics(rows, float(call["eps"]))
    yield "0", picked, _folded(call, rows[np.arange(len(row)), column], mean, rstd, channel)
    for slot in ("1", "2"):
        chosen = call.pick(slot, terms=width)
        mean, _, rstd = _statistics(call.read(inputs, torch.from_numpy(chosen)), float(call["eps"]))
        yield slot, chosen, mean if slot == "1" else rstd


def group_norm_gradient(call: Call) -> Found:
    """native_group_norm_backward."""
    grad, inputs = _by_group(call, call["grad_out"]), _by_group(call, call["input"])
    means, rstds = call["mean"].reshape(-1), call["rstd"].reshape(-1)
    samples, channels, size, groups = call["N"], call["C"], call["HxW"], call["group"]
    width = inputs.shape[1]
    if call["output_mask"][0]:
        picked = call.pick("0", terms=width)
        row, column = np.divmod(picked, width)
        where = torch.from_numpy(row)
        g = call.read(grad, where)
        if call["weight"] is not None:
            every = (row % groups)[:, None] * (channels // groups) + np.arange(width)[None, :] // size
            g = g * call.read(call["weight"], torch.from_numpy(every))
        yield (
            "0",
            picked,
            _gradient(g, call.read(inputs, where), call.read(means, where), call.read(rstds, where), column),
        )
    for slot in ("1", "2"):
        if call["output_mask"][int(slot)]:
            picked = call.pick(slot, terms=samples * size)
            channel = torch.from_numpy(picked)

            def of_channel(tensor: torch.Tensor, channel: torch.Tensor = channel) -> Bounded:
                return call.read(tensor.reshape(samples, channels, size).transpose(0, 1), channel)

            g = of_channel(call["grad_out"])
            if slot == "1":
                rows = np.arange(samples)[None, :] * groups + (picked // (channels // groups))[:, None]
                mean, rstd = (
                    call.read(statistic, torch.from_numpy(rows)).reshape(*rows.shape, 1) for statistic in (means, rstds)
                )
                # The kernel adds dout x and dout first, and subtracts then: sum(dout x) rstd - sum(dout) mean rstd.
                x = of_channel(call["input"])
                direct = g * _normalised(x, mean, rstd)
                late = ((g * x).sum() - g.sum() * mean.reshape(*rows.shape)) * rstd.reshape(*rows.shape)
                yield slot, picked, direct.sum(axis=(-2, -1)).or_form(late.sum())
                continue
            yield slot, picked, g.sum(axis=(-2, -1))
