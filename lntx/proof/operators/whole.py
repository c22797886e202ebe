"""Every element of large results, cheaply: which elements, beside a sample, have to be compared.

What is linear in an argument is added up with random signs, and the sum compared with what it must be (Freivalds,
Probabilistic machines can use less running time, 1977; Huang and Abraham, Algorithm-based fault tolerance for matrix
operations, 1984): its bound is the sum of the bounds of the elements, so a sum beyond it has an element beyond its own.
What is scattered to places is added up again whole, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from lntx.proof.bounds.call import Call
from lntx.proof.bounds.numbers import FORMATS, Array
from lntx.proof.formulas.sums import scattered_to

# Numbers, and places, that are worked on at a time.
_CHUNK, _PLACES = 2**20, 2**22
# Columns of a product that are added up: a sum of fewer sees smaller errors, and costs more.
_WIDTH = 64
_MOST = 16
_U = 2.0**-53

Operands = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]
"""left, shape (b, m, k), right, (b, k, n), their product, (b, m, n), and what is added to it, of that shape or None."""


def suspects(call: Call) -> Array:
    """Return flat indexes of elements of the first output that a whole computation says are wrong; most have none."""
    find = _FINDERS.get(call.name)
    if find is None or call.dtype not in FORMATS or call.out.dtype != call.dtype or call.out.numel() == 0:
        return np.zeros(0, dtype=np.int64)
    with torch.no_grad():
        return find(call)


def _unit(call: Call, terms: int) -> float:
    """Return the bound of a sum of products, relative to the sum of their sizes: the kernel's, and ours in float64."""
    return (terms + 3) * (call.inner.u + 2 * _U)


def _excess(computed: torch.Tensor, expected: torch.Tensor, sizes: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Return how far sums are from what is expected, relative to what is allowed: infinite where a sum is no finite
    number, 0 where none is expected or the sizes overflow.
    """
    excess = ((computed - expected).abs() / allowed).nan_to_num(torch.inf, torch.inf)
    # Nothing computed, from nothing.
    excess = excess.where((computed != expected) | computed.isnan(), 0.0)
    return excess.where(expected.isfinite() & sizes.isfinite(), 0.0)


def _signs(call: Call, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(call.seed)
    return (2.0 * torch.randint(0, 2, (count,), generator=generator) - 1).double().to(call.out.device)


def _of_product(call: Call) -> Array:
    operands = _operands(call)
    if operands is None:
        return np.zeros(0, dtype=np.int64)
    left, right, out, first = operands
    batch, m, n = out.shape
    signs, k = _signs(call, n), left.shape[-1]
    ones, width = torch.ones_like(signs), min(n, _WIDTH)
    # Sums of blocks, of the factor and of the product, round too.
    unit, rounding = _unit(call, k + 3 * width), FORMATS[out.dtype].u
    found: list[int] = []
    for b in range(batch):
        expected = _in_rows(left[b], _in_blocks(right[b], signs))
        sizes = _in_rows(left[b], _in_blocks(right[b], ones, absolute=True), absolute=True)
        if first is not None:
            expected += _in_blocks(first[b], signs)
            sizes += _in_blocks(first[b], ones, absolute=True)
        allowed = unit * sizes + width * call.inner.tiny
        if rounding > call.inner.u:
            allowed += rounding * _in_blocks(out[b], ones, absolute=True)
        excess = _excess(_in_blocks(out[b], signs), expected, sizes, allowed)
        if (excess > 1).any():
            row, block = divmod(int(excess.argmax()), excess.shape[1])
            columns = np.arange(block * _WIDTH, min(n, (block + 1) * _WIDTH))
            found += ((b * m + row) * n + columns).tolist()
    return np.array(found, dtype=np.int64)


def _in_blocks(matrix: torch.Tensor, signs: torch.Tensor, *, absolute: bool = False) -> torch.Tensor:
    """Return the sums of 64 columns each, with signs, added in float32 or float64; some rows at a time."""
    whole, kind = matrix.shape[-1] // _WIDTH * _WIDTH, torch.promote_types(matrix.dtype, torch.float32)
    signs = signs.to(kind)
    sums = []
    for part in matrix.split(max(1, _CHUNK // matrix.shape[-1])):
        numbers = part.to(kind).abs() if absolute else part.to(kind) * signs
        blocks = [numbers[:, :whole].reshape(len(part), -1, _WIDTH).sum(-1), numbers[:, whole:].sum(-1, keepdim=True)]
        sums.append(torch.cat(blocks, -1).double())
    return torch.cat(sums)


def _in_rows(matrix: torch.Tensor, other: torch.Tensor, *, absolute: bool = False) -> torch.Tensor:
    """Return matrix · other, or |matrix| · other, in float64, some rows at a time."""
    rows = matrix.split(max(1, _CHUNK // matrix.shape[-1]))
    return torch.cat([(part.double().abs() if absolute else part.double()) @ other for part in rows])


def _operands(call: Call) -> Operands | None:
    """Return a call as a batch of products; None if it is scaled."""
    out, first = call.out, None
    if call.name in ("mm", "bmm"):
        left, right = call["self"], call["mat2"]
    elif call.name == "linear":
        left, right, first = call["input"].reshape(-1, call["input"].shape[-1]), call["weight"].t(), call["bias"]
        out = out.reshape(-1, out.shape[-1])
    else:
        left, right = (call["mat1"], call["mat2"]) if call.name == "addmm" else (call["batch1"], call["batch2"])
        if (call.args.get("alpha", 1), call.args.get("beta", 1)) != (1, 1):
            return None
        first = call["self"]
    if not left.shape[-1]:
        return None
    first = None if first is None else first.expand(out.shape)
    tensors = [tensor if tensor is None or tensor.dim() == 3 else tensor[None] for tensor in (left, right, out, first)]
    return tensors[0], tensors[1], tensors[2], tensors[3]  # type: ignore[return-value]


def _of_convolution(call: Call) -> Array:
    weight, out, bias = call["weight"], call.out, call["bias"]
    if call["transposed"] or call["groups"] != 1 or call["input"].dim() != weight.dim():
        return np.zeros(0, dtype=np.int64)
    signs, axes = _signs(call, len(weight)), [1] * (weight.dim() - 2)

    args = (call["stride"], call["padding"], call["dilation"], False, call["output_padding"], 1)
    kernel, sizes_of_kernel = (weight.double() * signs.reshape(-1, 1, *axes)).sum(0), weight.double().abs().sum(0)
    terms, rounding = weight[0].numel() + len(weight), FORMATS[out.dtype].u
    step = max(1, _CHUNK // max(call["input"][0].numel(), out[0].numel(), 1))
    excesses = []
    for part, results in zip(call["input"].split(step), out.split(step), strict=True):
        expected = torch.convolution(part.double(), kernel[None], None, *args)[:, 0]
        sizes = torch.convolution(part.double().abs(), sizes_of_kernel[None], None, *args)[:, 0]
        if bias is not None:
            expected, sizes = expected + (bias.double() * signs).sum(), sizes + bias.double().abs().sum()
        columns = results.double() * signs.reshape(1, -1, *axes)
        allowed = _unit(call, terms) * sizes + rounding * columns.abs().sum(1) + len(weight) * call.inner.tiny
        excesses.append(_excess(columns.sum(1), expected, sizes, allowed))
    excess = torch.cat(excesses)
    if not (excess > 1).any():
        return np.zeros(0, dtype=np.int64)
    sample, *place = np.unravel_index(int(excess.argmax()), tuple(excess.shape))
    channels = np.arange(len(weight))
    return np.ravel_multi_index((np.full_like(channels, sample), channels, *place), tuple(out.shape))


def _of_scatter(call: Call) -> Array:
    """Add up again what goes to each place."""
    if call.args.get("alpha", 1) != 1:
        return np.zeros(0, dtype=np.int64)
    try:
        start, places, values = scattered_to(call)
    except NotImplementedError:
        return np.zeros(0, dtype=np.int64)
    places, values, out = places.to(call.out.device), values.double(), call.out.reshape(-1)
    unit, rounding = call.inner.u + 2 * _U, FORMATS[call.out.dtype].u
    found: list[int] = []
    for first in range(0, len(out), _PLACES):
        part = out[first : first + _PLACES].double()
        is_here = (places >= first) & (places < first + len(part))
        here, added = places[is_here] - first, values[is_here]
        total, sizes, counts = torch.zeros_like(part), torch.zeros_like(part), torch.zeros_like(part)
        total.index_add_(0, here, added)
        sizes.index_add_(0, here, added.abs())
        counts.index_add_(0, here, torch.ones_like(added))
        if start is not None:
            begun = start.reshape(-1)[first : first + _PLACES].double()
            total, sizes = total + begun, sizes + begun.abs()
        allowed = (counts + 1) * unit * sizes + rounding * total.abs() + call.inner.tiny
        worst = _excess(part, total, sizes, allowed).topk(min(_MOST, len(part)))
        found += (first + worst.indices[worst.values > 1]).tolist()
    return np.array(found, dtype=np.int64)


_FINDERS: Mapping[str, Callable[[Call], Array]] = {
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm", "linear"), _of_product),
    "convolution": _of_convolution,
    **dict.fromkeys(("embedding_dense_backward", "index_put", "index_add", "scatter_add"), _of_scatter),
}
