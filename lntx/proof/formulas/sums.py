"""Sums, products of matrices, norms and extremes: each element is a sum over some axes, in any order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from lntx.proof.call import Call, unravel
from lntx.proof.formulas.pointwise import Found
from lntx.proof.numbers import EXACT, FORMATS, Array, Bounded, middle


def axes_of(tensor: torch.Tensor, dims: Sequence[int] | int | None) -> list[int]:
    """Return the axes of a reduction, from 0; all for None and for none."""
    if not tensor.dim():
        return []
    if isinstance(dims, int):
        dims = [dims]
    return sorted(one % max(tensor.dim(), 1) for one in dims) if dims else list(range(tensor.dim()))


def terms(call: Call, tensor: torch.Tensor, axes: Sequence[int], flat: Array) -> Bounded:
    """Return what is added up for some elements, shape (k, n).

    axes: the axes that are added along. flat: flat indexes into what is left of the tensor without them.
    """
    kept = [axis for axis in range(tensor.dim()) if axis not in axes]
    if not kept:
        return call.read(tensor).reshape(1, -1)
    turned = tensor.detach().permute(*kept, *axes)
    return call.read(turned, unravel(flat, turned.shape[: len(kept)])).reshape(len(flat), -1)


def _count(tensor: torch.Tensor, axes: Sequence[int]) -> int:
    return math.prod(tensor.shape[axis] for axis in axes)


def sum_of(call: Call) -> Found:
    """sum: the sum over the axes."""
    given = call["self"]
    axes = axes_of(given, call["dim"])
    picked = call.pick(terms=_count(given, axes))
    yield "0", picked, terms(call, given, axes, picked).sum()


def mean_of(call: Call) -> Found:
    """mean: the sum over the axes, divided by their number."""
    given = call["self"]
    axes = axes_of(given, call["dim"])
    picked = call.pick(terms=_count(given, axes))
    yield "0", picked, terms(call, given, axes, picked).mean()


def variance_of(call: Call) -> Found:
    """var: the sum of squared distances from the mean, divided by their number less the correction."""
    given = call["self"]
    axes = axes_of(given, call["dim"])
    picked = call.pick(terms=_count(given, axes))
    found = terms(call, given, axes, picked)
    centred = found - found.mean().reshape(-1, 1)
    correction = call["correction"]
    divisor = max(float(_count(given, axes) - (1 if correction is None else correction)), 0.0)
    yield "0", picked, (centred * centred).sum() / divisor


def variance_and_mean_of(call: Call) -> Found:
    """var_mean: both."""
    yield from variance_of(call)
    given = call["self"]
    axes = axes_of(given, call["dim"])
    picked = call.pick("1", terms=_count(given, axes))
    yield "1", picked, terms(call, given, axes, picked).mean()


def norm_of(call: Call) -> Found:
    """linalg_vector_norm of order 2: the root of the sum of squares."""
    order = call.args.get("ord", call.args.get("p", 2))
    if order is not None and float(order) != 2.0:
        raise NotImplementedError(f"a norm of order {order}")
    given = call["self"]
    axes = axes_of(given, call["dim"])
    picked = call.pick(terms=_count(given, axes))
    found = terms(call, given, axes, picked)
    yield "0", picked, (found * found).sum().sqrt()


def extreme_of(call: Call) -> Found:
    """amax, amin, max, min: exact."""
    given = call["self"]
    axes = axes_of(given, call["dim"])
    picked = call.pick(terms=_count(given, axes))
    found = terms(call, given, axes, picked)
    numbers = middle(found.value)
    value = numbers.max(axis=-1) if call.name.endswith("max") else numbers.min(axis=-1)
    yield "0", picked, Bounded(value, found.error.max(axis=-1), call.inner)
    if len(call.outputs) > 1 and axes:
        named = call.outputs[1].reshape(-1)[torch.from_numpy(picked)].cpu().numpy()
        yield "0", picked, found[np.arange(len(picked)), named]


def _dots(call: Call, left: torch.Tensor, right: torch.Tensor, first: Bounded | None, picked: Array) -> Bounded:
    """Return sums of products of rows and columns. Shapes (..., m, n) and (..., n, p).

    first: a term that the accumulator may start from.
    """
    shape = (*left.shape[:-1], right.shape[-1])
    *batch, row, column = unravel(picked, shape)
    rows = call.read(left, (*batch, row))
    columns = call.read(right.transpose(-1, -2), (*batch, column))
    products = rows * columns
    found = products.sum()
    if first is None:
        return found
    n = left.shape[-1]
    # The bound of a sum of n + 1 terms, wherever the first is added.
    return (found + first).widened(n * found.format.u * first.size)


def product_of(call: Call) -> Found:
    """mm, bmm, mv, dot: sums of products."""
    left, right = call["self"], call["mat2"]
    if call.name in ("mv", "dot"):
        right = (call["vec"] if call.name == "mv" else call["tensor"]).unsqueeze(-1)
        left = left if call.name == "mv" else left.unsqueeze(0)
    picked = call.pick(terms=left.shape[-1])
    yield "0", picked, _dots(call, left, right, None, picked)


def sum_and_product_of(call: Call) -> Found:
    """addmm, baddbmm: beta self + alpha (mat1 @ mat2)."""
    left, right = (call["mat1"], call["mat2"]) if call.name == "addmm" else (call["batch1"], call["batch2"])
    beta, alpha = float(call.args.get("beta", 1)), float(call.args.get("alpha", 1))
    picked = call.pick(terms=left.shape[-1])
    first = call.at("self", picked, call.out.shape)
    first = first if beta == 1 else first * beta
    found = _dots(call, left, right, first if alpha == 1 and beta != 0 else None, picked)
    if alpha != 1:
        found = found * alpha + first if beta != 0 else found * alpha
    yield "0", picked, found


def linear_of(call: Call) -> Found:
    """linear: input @ weight.T + bias."""
    given, weight = call["input"], call["weight"]
    picked = call.pick(terms=given.shape[-1])
    flat = given.reshape(-1, given.shape[-1])
    first = call.at("bias", picked, call.out.shape) if call["bias"] is not None else None
    yield "0", picked, _dots(call, flat, weight.t(), first, picked)


def embedding_gradient(call: Call) -> Found:
    """embedding_dense_backward: each row is the sum of the gradients of its token."""
    if call["scale_grad_by_freq"]:
        raise NotImplementedError("gradients scaled by frequency")
    indexes = call["indices"].reshape(-1)
    grad = call["grad_output"].reshape(len(indexes), -1)
    picked = call.pick(terms=len(indexes))
    row, column = unravel(picked, call.out.shape)
    is_row = (indexes[None, :] == row[:, None].to(indexes.device)).cpu().numpy()
    is_row &= (row.numpy() != call["padding_idx"])[:, None]
    gathered = call.read(grad.t(), (column,))
    found = gathered.where(is_row, 0.0)
    yield "0", picked, found.sum(terms=is_row.sum(axis=-1))


def cumulative_sum(call: Call) -> Found:
    """cumsum: the sum of what stands before."""
    given, axis = call["self"], call["dim"] % max(call["self"].dim(), 1)
    picked = call.pick(terms=given.shape[axis] if given.dim() else 1)
    if not given.dim():
        yield "0", picked, call.read(given)
        return
    place = unravel(picked, call.out.shape)
    rows = call.read(given.movedim(axis, -1), (*place[:axis], *place[axis + 1 :]))
    before = np.arange(given.shape[axis])[None, :] <= place[axis].numpy()[:, None]
    yield "0", picked, rows.where(before, 0.0).sum(terms=before.sum(axis=-1))


def range_of(call: Call) -> Found:
    """arange: start + k step. Whole numbers are exact; else vectors of a kernel start from a rounded number."""
    start, step = (float(call.args.get(name, other)) for name, other in (("start", 0), ("step", 1)))
    picked = call.pick()
    if call.out.dtype not in FORMATS and not (start.is_integer() and step.is_integer()):
        raise NotImplementedError("a range of whole numbers from fractions")
    count = call.read(torch.from_numpy(picked))
    first, by = count.constant(start), count.constant(step)
    found = first + count * by
    if start.is_integer() and step.is_integer():
        kind = FORMATS.get(call.out.dtype, EXACT)
        found = found.like(found.value, np.where(found.size * kind.u < 0.5, 0.0, found.error))
    else:
        found = found.widened(2 * found.format.u * (first.size + (count * by).size))
    yield "0", picked, found


def added_at(call: Call) -> Iterator[tuple[str, Array, Bounded]]:
    """index_put with accumulate, index_add, scatter_add: what is there, and all that goes to its place."""
    given = call["self"]
    flat = torch.arange(given.numel()).reshape(given.shape)
    if call.name == "_unsafe_masked_index_put_accumulate":
        # Indexes out of range are masked.
        mask = call["mask"]
        sizes = given.shape
        key = tuple(
            slice(None) if one is None else one.clamp(-sizes[axis], sizes[axis] - 1)
            for axis, one in enumerate(call["indices"])
        )
        places = flat[key]
        hidden = ~mask.expand(places.shape)
        values = call["values"].expand(places.shape).masked_fill(hidden, 0)
    elif call.name == "index_put":
        key = tuple(slice(None) if one is None else one.cpu() for one in call["indices"])
        places, values = flat[key], call["values"]
        if not call["accumulate"]:
            raise NotImplementedError("index_put without accumulate")
    elif call.name == "index_add":
        places, values = flat.index_select(call["dim"], call["index"].cpu()), call["source"]
    else:
        index = call["index"].cpu()
        places = flat.gather(call["dim"], index)
        values = call["src"][tuple(slice(n) for n in index.shape)]
    values = values.expand(places.shape).reshape(-1)
    places = places.reshape(-1)
    picked = call.pick(terms=len(places) + 1)
    hits = places.numpy()[None, :] == picked[:, None]
    added = call.read(values)[None]
    if call.args.get("alpha", 1) != 1:
        added = added * float(call["alpha"])
    added = added.where(hits, 0.0)
    start = call.at("self", picked, given.shape)
    total = added.sum(terms=hits.sum(axis=-1))
    yield "0", picked, (total + start).widened(hits.sum(axis=-1) * total.format.u * start.size)
