"""Sums, products of matrices, norms and extremes: each element is a sum over some axes, in any order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from lntx.proof.bounds.call import Call, unravel
from lntx.proof.bounds.numbers import EXACT, FORMATS, Array, Bounded, magnitude, middle
from lntx.proof.formulas.pointwise import Found

_MOST_PRODUCTS = 2**22


def axes_of(tensor: torch.Tensor, dims: Sequence[int] | int | None) -> list[int]:
    """Return the axes of a reduction, from 0; all for None and for none."""
    if not tensor.dim():
        return []
    if isinstance(dims, int):
        dims = [dims]
    return sorted(axis % max(tensor.dim(), 1) for axis in dims) if dims else list(range(tensor.dim()))


def terms(call: Call, tensor: torch.Tensor, axes: Sequence[int], flat: Array) -> Bounded:
    """Return what is added up for some elements, shape (k, n).

    axes: the axes that are added along. flat: flat indexes into what is left of the tensor without them.
    """
    kept_axes = [axis for axis in range(tensor.dim()) if axis not in axes]
    if not kept_axes:
        return call.read(tensor).reshape(1, -1)
    turned = tensor.detach().permute(*kept_axes, *axes)
    return call.read(turned, unravel(flat, turned.shape[: len(kept_axes)])).reshape(len(flat), -1)


def _count(tensor: torch.Tensor, axes: Sequence[int]) -> int:
    return math.prod(tensor.shape[axis] for axis in axes)


def sum_of(call: Call) -> Found:
    """sum: the sum over the axes."""
    inputs = call["self"]
    axes = axes_of(inputs, call["dim"])
    picked = call.pick(terms=_count(inputs, axes))
    yield "0", picked, terms(call, inputs, axes, picked).sum()


def mean_of(call: Call) -> Found:
    """mean: the sum over the axes, divided by their number."""
    inputs = call["self"]
    axes = axes_of(inputs, call["dim"])
    picked = call.pick(terms=_count(inputs, axes))
    yield "0", picked, terms(call, inputs, axes, picked).mean()


def variance_of(call: Call) -> Found:
    """var: the sum of squared distances from the mean, divided by their number less the correction."""
    inputs = call["self"]
    axes = axes_of(inputs, call["dim"])
    picked = call.pick(terms=_count(inputs, axes))
    value = terms(call, inputs, axes, picked)
    centred = value - value.mean().reshape(-1, 1)
    correction = call["correction"]
    divisor = max(float(_count(inputs, axes) - (1 if correction is None else correction)), 0.0)
    yield "0", picked, (centred * centred).sum() / divisor


def variance_and_mean_of(call: Call) -> Found:
    """var_mean: both."""
    yield from variance_of(call)
    inputs = call["self"]
    axes = axes_of(inputs, call["dim"])
    picked = call.pick("1", terms=_count(inputs, axes))
    yield "1", picked, terms(call, inputs, axes, picked).mean()


def norm_of(call: Call) -> Found:
    """linalg_vector_norm: the sum of |x|^p, to the power 1/p; the extreme for p = ±inf, the count for 0."""
    order = call.args.get("ord", call.args.get("p", 2))
    order = 2.0 if order is None else float(order)
    inputs = call["self"]
    axes = axes_of(inputs, call["dim"])
    picked = call.pick(terms=_count(inputs, axes))
    value = terms(call, inputs, axes, picked)
    if math.isinf(order):
        choose = np.max if order > 0 else np.min
        yield "0", picked, Bounded(choose(abs(value.value), axis=-1), value.error.max(axis=-1), call.inner)
    elif order == 0:
        yield "0", picked, value.like((middle(value.value) != 0) * 1.0, value.error).sum()
    elif order == 2:
        yield "0", picked, (value * value).sum().sqrt()
    else:
        yield "0", picked, value.abs().power(order).sum().power(1 / order)


def product_along(call: Call) -> Found:
    """prod, cumprod: n - 1 roundings of the product, in any order."""
    inputs = call["self"]
    if call.name == "cumprod":
        picked, factors, _ = _before(call, 1.0)
    else:
        axes = axes_of(inputs, call["dim"])
        picked = call.pick(terms=_count(inputs, axes))
        factors = terms(call, inputs, axes, picked)
    value, size, largest = (array.prod(axis=-1) for array in (factors.value, magnitude(factors.value), factors.size))
    # A product with an exact zero is zero.
    partial = np.where(factors.size == 0, 1.0, np.maximum(1 / factors.size, factors.size)).prod(axis=-1)
    if (partial * factors.format.tiny > 1).any():
        raise NotImplementedError("a product that may leave the range")
    growth = np.expm1((factors.shape[1] - 1) * np.log1p(factors.format.u))
    yield "0", picked, factors.like(value, (largest - size) + largest * growth)


def extreme_of(call: Call) -> Found:
    """amax, amin, max, min: exact."""
    inputs = call["self"]
    axes = axes_of(inputs, call["dim"])
    picked = call.pick(terms=_count(inputs, axes))
    amount = terms(call, inputs, axes, picked)
    numbers = middle(amount.value)
    value = numbers.max(axis=-1) if call.name.endswith("max") else numbers.min(axis=-1)
    yield "0", picked, Bounded(value, amount.error.max(axis=-1), call.inner)
    if len(call.outputs) > 1 and axes:
        named = call.outputs[1].reshape(-1)[torch.from_numpy(picked)].cpu().numpy()
        yield "0", picked, amount[np.arange(len(picked)), named]


def _dots(call: Call, left: torch.Tensor, right: torch.Tensor, first: Bounded | None, picked: Array) -> Bounded:
    """Return sums of products of rows and columns. Shapes (..., m, n) and (..., n, p).

    first: a term that the accumulator may start from.
    """
    shape = (*left.shape[:-1], right.shape[-1])
    *batch, row, column = unravel(picked, shape)
    rows = call.read(left, (*batch, row))
    columns = call.read(right.transpose(-1, -2), (*batch, column))
    products = rows * columns
    value = products.sum()
    if first is None:
        return value
    n = left.shape[-1]
    # The bound of a sum of n + 1 terms, wherever the first is added.
    return (value + first).widened(n * value.format.u * first.size)


def product_of(call: Call) -> Found:
    """mm, bmm, mv, dot: sums of products."""
    left, right = call["self"], call["mat2"]
    if call.name in ("mv", "dot"):
        right = (call["vec"] if call.name == "mv" else call["tensor"]).unsqueeze(-1)
        left = left if call.name == "mv" else left.unsqueeze(0)
    picked = call.pick(terms=left.shape[-1])
    yield "0", picked, _dots(call, left, right, None, picked)


def sum_and_product_of(call: Call) -> Found:
    """addmm, baddbmm, addbmm: beta self + alpha (mat1 @ mat2); addbmm adds the products of a batch, too."""
    left, right = (call["mat1"], call["mat2"]) if call.name == "addmm" else (call["batch1"], call["batch2"])
    if call.name == "addbmm":
        left, right = left.transpose(0, 1).flatten(1), right.flatten(0, 1)
    # Whole numbers are scaled by whole numbers.
    as_factor = float if call.dtype in FORMATS else int
    beta, alpha = (float(as_factor(call.args.get(name, 1))) for name in ("beta", "alpha"))
    picked = call.pick(terms=left.shape[-1])
    first = call.at("self", picked, call.out.shape)
    first = first if beta == 1 else first * beta
    value = _dots(call, left, right, first if alpha == 1 and beta != 0 else None, picked)
    if alpha != 1:
        # Each product may be scaled, and the first term be added anywhere.
        scaled = (value * alpha).widened(abs(alpha) * value.error)
        value = (scaled + first).widened(left.shape[-1] * value.format.u * first.size) if beta != 0 else scaled
    if (alpha, beta) != (1, 1) and call.out.dtype in FORMATS:
        # Kernels for 16 bits round the scaled terms to that format.
        value = value.widened(FORMATS[call.out.dtype].u * (first.size + value.size))
    yield "0", picked, value


def linear_of(call: Call) -> Found:
    """linear: input @ weight.T + bias."""
    inputs, weight = call["input"], call["weight"]
    picked = call.pick(terms=inputs.shape[-1])
    flat = inputs.reshape(-1, inputs.shape[-1])
    first = call.at("bias", picked, call.out.shape) if call["bias"] is not None else None
    yield "0", picked, _dots(call, flat, weight.t(), first, picked)


def trilinear_of(call: Call) -> Found:
    """_trilinear: the product of three tensors, each with new axes, added up along some."""
    factors = []
    for name, axes in (("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")):
        factor = call[name]
        for axis in sorted(call[axes]):
            factor = factor.unsqueeze(axis)
        factors.append(factor)
    shape = torch.broadcast_shapes(*(factor.shape for factor in factors))
    if math.prod(shape) > _MOST_PRODUCTS:
        raise NotImplementedError(f"{math.prod(shape):,} products")
    left, middle_factor, right = (call.read(factor.expand(shape)) for factor in factors)
    total = (
        (left * middle_factor * right).sum(axis=tuple(call["sumdim"]))
        if call["sumdim"]
        else left * middle_factor * right
    )
    yield "0", np.arange(call.out.numel()), total.reshape(-1)


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
    value = gathered.where(is_row, 0.0)
    yield "0", picked, value.sum(terms=is_row.sum(axis=-1))


def slices_of(call: Call, tensor: torch.Tensor, picked: Array) -> tuple[Bounded, Array]:
    """Return the slices along dim that hold some elements, shape (k, n), and the elements' places in them."""
    axis = call["dim"] % tensor.dim() if tensor.dim() > 1 else 1
    tensor = tensor if tensor.dim() > 1 else tensor.reshape(1, -1)
    place = unravel(picked, tensor.shape)
    rows = call.read(tensor.movedim(axis, -1), (*place[:axis], *place[axis + 1 :]))
    return rows.reshape(len(picked), -1), place[axis].numpy()


def _before(call: Call, fill: float) -> tuple[Array, Bounded, Array]:
    """Return the elements to check, what stands before each along dim, and where that is not filled."""
    inputs = call["self"]
    picked = call.pick(terms=inputs.shape[call["dim"]] if inputs.dim() else 1)
    rows, place = slices_of(call, inputs, picked)
    before = np.arange(rows.shape[1])[None, :] <= place[:, None]
    return picked, rows.where(before, fill), before


def cumulative_sum(call: Call) -> Found:
    """cumsum: the sum of what stands before."""
    picked, rows, before = _before(call, 0.0)
    yield "0", picked, rows.sum(terms=before.sum(axis=-1))


def cumulative_log_sum(call: Call) -> Found:
    """logcumsumexp: the logarithm of the sum of the powers of e, in steps of two numbers."""
    picked, rows, before = _before(call, 0.0)
    top = np.where(before, middle(rows.value), -np.inf).max(axis=-1)
    if rows.error.any() or not np.isfinite(top).all():
        raise NotImplementedError("infinite powers")
    powers = rows.like(rows.value - top[:, None], np.zeros(rows.shape)).exp()
    total = powers.where(before, 0.0).sum().log()
    steps = 8 * before.sum(axis=-1) * rows.format.u * (np.abs(top) + magnitude(total.value) + 1)
    yield "0", picked, total.like(total.value + top, total.error).widened(steps)


def range_of(call: Call) -> Found:
    """arange: start + k step. Whole numbers are exact; else vectors of a kernel start from a rounded number."""
    start, step = (float(call.args.get(name, other)) for name, other in (("start", 0), ("step", 1)))
    picked = call.pick()
    if call.out.dtype not in FORMATS and not (start.is_integer() and step.is_integer()):
        raise NotImplementedError("a range of whole numbers from fractions")
    count = call.read(torch.from_numpy(picked))
    first, by = count.constant(start), count.constant(step)
    value = first + count * by
    if start.is_integer() and step.is_integer():
        kind = FORMATS.get(call.out.dtype, EXACT)
        value = value.like(value.value, np.where(value.size * kind.u < 0.5, 0.0, value.error))
    else:
        value = value.widened(2 * value.format.u * (first.size + (count * by).size))
    yield "0", picked, value


def spaced(call: Call) -> Found:
    """linspace: start + k (end - start) / (steps - 1), from either end."""
    start, end, last = float(call["start"]), float(call["end"]), max(int(call["steps"]) - 1, 1)
    picked = call.pick()
    if call.out.dtype not in FORMATS and ((end - start) / last) % 1:
        raise NotImplementedError("a range of whole numbers from fractions")
    place = call.read(torch.from_numpy(picked))
    first, final = place.constant(start), place.constant(end)
    value = (first * (last - place) + final * place) / last
    yield "0", picked, value.widened(8 * value.format.u * np.array(abs(start) + abs(end)))


def scattered_to(call: Call) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Return what an operator starts from, if not zeros, the flat places that it adds to, and what, both flat.

    Raises: NotImplementedError: it does not add.
    """
    if call.name == "embedding_dense_backward":
        if call["scale_grad_by_freq"]:
            raise NotImplementedError("gradients scaled by frequency")
        width, indexes = call.out.shape[-1], call["indices"].reshape(-1)
        grad = call["grad_output"].reshape(len(indexes), width).where((indexes != call["padding_idx"])[:, None], 0)
        places = indexes[:, None] * width + torch.arange(width, device=indexes.device)
        return None, places.reshape(-1), grad.reshape(-1)
    inputs = call["self"]
    flat = torch.arange(inputs.numel()).reshape(inputs.shape)
    start: torch.Tensor | None = inputs
    if call.name == "_unsafe_masked_index_put_accumulate":
        # Indexes out of range are masked.
        mask = call["mask"]
        sizes = inputs.shape
        key = tuple(
            slice(None) if indices is None else indices.clamp(-sizes[axis], sizes[axis] - 1)
            for axis, indices in enumerate(call["indices"])
        )
        places = flat[key]
        hidden = ~mask.expand(places.shape)
        values = call["values"].expand(places.shape).masked_fill(hidden, 0)
    elif call.name == "index_put":
        key = tuple(slice(None) if indices is None else indices.cpu() for indices in call["indices"])
        places, values = flat[key], call["values"]
    elif call.name.endswith("_backward"):
        # A pooling that kept where each maximum stood.
        axes = 2 if "2d" in call.name else 3
        planes, taken = flat.reshape(*inputs.shape[:-axes], -1), call["indices"].cpu()
        places = planes.gather(-1, taken.reshape(*taken.shape[:-axes], -1))
        values, start = call["grad_output"].reshape(places.shape), None
    elif call.name == "put":
        places, values = call["index"].cpu().reshape(-1) % max(inputs.numel(), 1), call["source"].reshape(-1)
    elif call.name == "index_add":
        places, values = flat.index_select(call["dim"], call["index"].cpu()), call["source"]
    else:
        index = call["index"].cpu()
        places = flat.gather(call["dim"], index)
        values = call["src"][tuple(slice(n) for n in index.shape)]
    values = values.expand(places.shape)
    return start, places.reshape(-1), values.reshape(-1)


def added_at(call: Call) -> Iterator[tuple[str, Array, Bounded]]:
    """index_put with accumulate, index_add, scatter_add: what is there, and all that goes to its place."""
    inputs, places, values = scattered_to(call)
    picked = call.pick(terms=len(places) + 1)
    hits = places.numpy()[None, :] == picked[:, None]
    added = call.read(values)[None]
    if call.args.get("alpha", 1) != 1:
        added = added * float(call["alpha"])
    total = added.where(hits, 0.0).sum(terms=hits.sum(axis=-1))
    start = call.read(torch.zeros_like(call.out) if inputs is None else inputs, unravel(picked, call.out.shape))
    yield "0", picked, (total + start).widened(hits.sum(axis=-1) * total.format.u * start.size)


def reduced_at(call: Call) -> Found:
    """scatter_reduce, index_reduce: the sum, mean, product or extreme of all that goes to a place, and of what is there
    if that is asked for or nothing else goes there.
    """
    inputs, reduce = call["self"], call["reduce"]
    flat, dim = torch.arange(inputs.numel()).reshape(inputs.shape), call["dim"]
    index = call["index"].cpu()
    if call.name == "index_reduce":
        places, values = flat.index_select(dim, index), call["source"]
    else:
        places, values = flat.gather(dim, index), call["src"][tuple(slice(n) for n in index.shape)]
    picked = call.pick(terms=places.numel() + 1)
    hits = places.reshape(-1).numpy()[None, :] == picked[:, None]
    counts = hits.sum(axis=-1)
    with_start = call["include_self"] | (counts == 0)
    added, start = call.read(values.reshape(-1))[None], call.read(inputs, unravel(picked, inputs.shape))
    if reduce in ("amax", "amin"):
        pick, nothing = (np.max, -np.inf) if reduce == "amax" else (np.min, np.inf)
        both = np.concatenate(
            [middle(start.where(with_start, nothing).value)[:, None], _where(hits, added, nothing)], 1
        )
        yield "0", picked, Bounded.exactly(pick(both, axis=-1), call.inner)
    elif reduce in ("prod", "multiply"):
        factors = np.concatenate([middle(start.where(with_start, 1.0).value)[:, None], _where(hits, added, 1.0)], 1)
        if (np.maximum(1 / np.abs(factors), np.abs(factors)).prod(axis=-1) * call.inner.tiny > 1).any():
            raise NotImplementedError("a product that may leave the range")
        value = factors.prod(axis=-1)
        yield (
            "0",
            picked,
            Bounded(value, np.abs(value) * np.expm1(2 * (counts + 1) * np.log1p(call.inner.u)), call.inner),
        )
    else:
        if reduce == "mean" and not call.inner.u:
            raise NotImplementedError("a mean of whole numbers")
        first = start.where(with_start, 0.0)
        total = added.where(hits, 0.0).sum(terms=counts)
        value = (total + first).widened(counts * total.format.u * first.size)
        count = call.read(torch.from_numpy((counts + with_start).astype(np.float64)))
        yield "0", picked, value / count if reduce == "mean" else value


def _where(hits: Array, added: Bounded, nothing: float) -> Array:
    return np.where(hits, middle(added.value), nothing)
