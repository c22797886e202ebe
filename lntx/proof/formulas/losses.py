"""Softmax, and losses. Sources: the documentation of torch.nn; Blanchard, Higham and Higham, Accurately computing the
log-sum-exp and softmax functions, IMA J. Numer. Anal. 41, 2021.
"""

from __future__ import annotations

import numpy as np
import torch

from lntx.proof.bounds.call import Call, unravel
from lntx.proof.bounds.numbers import Array, Bounded, magnitude, middle
from lntx.proof.formulas.pointwise import Found
from lntx.proof.formulas.sums import slices_of


def _shifted(rows: Bounded) -> tuple[Bounded, Array]:
    """Return x - max(x) by row, and the size of the maximum."""
    value = middle(rows.value)
    every, place = np.arange(rows.shape[0]), np.argmax(value, axis=-1)
    top = rows[every, place].reshape(-1, 1)
    return rows - top.like(top.value, np.zeros(top.shape)), magnitude(top.value)


def softmax(call: Call) -> Found:
    """_softmax: exp(x - max) / sum exp(x - max)."""
    inputs = call["self"]
    picked = call.pick(terms=inputs.shape[call["dim"]] if inputs.dim() else 1)
    rows, place = slices_of(call, inputs, picked)
    powers = _shifted(rows)[0].exp()
    value = powers[np.arange(len(picked)), place] / powers.sum()
    if call.name == "_safe_softmax":
        hidden = np.isneginf(middle(rows.value)).all(axis=-1)
        value = value.where(np.asarray(~hidden), 0.0)
    yield "0", picked, value


def log_softmax(call: Call) -> Found:
    """_log_softmax: x - max - log sum exp(x - max); also for kernels that subtract max + log sum at once."""
    inputs = call["self"]
    picked = call.pick(terms=inputs.shape[call["dim"]] if inputs.dim() else 1)
    rows, place = slices_of(call, inputs, picked)
    shifted, top = _shifted(rows)
    total = shifted.exp().sum().log()
    value = shifted[np.arange(len(picked)), place] - total
    yield "0", picked, value.widened(value.format.u * (top.reshape(-1) + total.size))


def softmax_gradient(call: Call) -> Found:
    """_softmax_backward_data: (g - sum(g o)) o."""
    output = call["output"]
    picked = call.pick(terms=output.shape[call["dim"]] if output.dim() else 1)
    grads, place = slices_of(call, call["grad_output"], picked)
    outputs, _ = slices_of(call, output, picked)
    products = grads * outputs
    every = np.arange(len(picked)), place
    value = (grads[every] - products.sum()) * outputs[every]
    yield "0", picked, value.or_form(products[every] - outputs[every] * products.sum())


def log_softmax_gradient(call: Call) -> Found:
    """_log_softmax_backward_data: g - exp(o) sum(g)."""
    output = call["output"]
    picked = call.pick(terms=output.shape[call["dim"]] if output.dim() else 1)
    grads, place = slices_of(call, call["grad_output"], picked)
    outputs, _ = slices_of(call, output, picked)
    every = np.arange(len(picked)), place
    yield "0", picked, grads[every] - outputs[every].exp() * grads.sum()


def _targets(call: Call) -> tuple[torch.Tensor, torch.Tensor, Array]:
    """Return the scores, shape (n, classes), the targets, and which of them count."""
    inputs, target = call["self"], call["target"]
    scores = inputs.movedim(1, -1).reshape(-1, inputs.shape[1]) if inputs.dim() > 1 else inputs.reshape(1, -1)
    classes = target.reshape(-1)
    return scores, classes, (classes != call["ignore_index"]).cpu().numpy()


def negative_log_likelihood(call: Call) -> Found:
    """nll_loss_forward, nll_loss2d_forward: - w[t] x[t], each, summed, or divided by the sum of w[t]."""
    scores, classes, counts = _targets(call)
    safe = torch.where(torch.from_numpy(counts).to(classes.device), classes, 0)
    losses = -call.read(scores, (torch.arange(len(classes)), safe.cpu()))
    weights = losses.constant(1.0)
    if call["weight"] is not None:
        weights = call.read(call["weight"], safe.cpu()).where(counts, 0.0)
        losses = losses * weights
    losses = losses.where(counts, 0.0)
    if call["reduction"] == 0:
        picked = call.pick()
        yield "0", picked, losses[picked]
        return
    first = np.arange(1)
    total = losses.sum(terms=counts.sum()).reshape(1)
    shares = weights.sum().reshape(1) if call["weight"] is not None else losses.constant(float(counts.sum())).reshape(1)
    yield "0", first, total / shares if call["reduction"] == 1 else total
    yield "1", first, shares


def negative_log_likelihood_gradient(call: Call) -> Found:
    """nll_loss_backward: - w[t] g at the target, divided by the sum of the w[t] for a mean; 0 elsewhere."""
    inputs = call["self"]
    picked = call.pick()
    place = unravel(picked, inputs.shape)
    column = place[1] if inputs.dim() > 1 else place[0]
    where = (place[0], *place[2:]) if inputs.dim() > 1 else ()
    classes = call["target"].cpu()[where] if where else call["target"].cpu().reshape(1).expand(len(picked))
    hit = ((classes == column) & (classes != call["ignore_index"])).numpy()
    grad = call.read(call["grad_output"].expand(call["target"].shape), where if where else ...)
    if call["weight"] is not None:
        grad = grad * call.read(call["weight"], column)
    if call["reduction"] == 1:
        grad = grad / call.read(call["total_weight"])
    yield "0", picked, (-grad).where(hit, 0.0)
