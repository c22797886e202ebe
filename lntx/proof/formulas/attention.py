"""Scaled dot-product attention and its gradient (Vaswani et al., Attention is all you need, 2017; Dao et al.,
FlashAttention, 2022, appendix B for the gradient).

s_ij = scale q_i k_j, p = softmax(s), o_i = sum_j p_ij v_j. With D_i = do_i o_i:
dv_j = sum_i p_ij do_i, ds_ij = p_ij (do_i v_j - D_i), dq_i = scale sum_j ds_ij k_j, dk_j = scale sum_i ds_ij q_i.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from lntx.proof.call import Call, unravel
from lntx.proof.formulas.pointwise import Found
from lntx.proof.numbers import FORMATS, Array, Bounded, middle

# Errors of the exp of the flash kernels, in unit roundoffs of float32. In float32, ATen's exp_u20 allows 20 units in
# the last place, 40 unit roundoffs. In the formats of 16 bits, fexp_u20 is a polynomial of degree 3 (Malossi et al.,
# Fast exponential computation on SIMD architectures, 2015): 1.21e-4 at most over all float32 numbers from -87 to 88.
# Which processors use them depends on the build.
_EXP_ULPS, _LOW_EXP_ULPS = 44.0, 2048.0


def _exp(call: Call, power: Bounded) -> Bounded:
    if call.dtype == torch.float64:
        return power.exp()
    return power.exp(_EXP_ULPS if call.dtype == torch.float32 else _LOW_EXP_ULPS)


def _as_stored(call: Call, numbers: Bounded) -> Bounded:
    """Round to the format of the tensors: in formats of 16 bits the kernel keeps p and ds in them."""
    return numbers.rounded(FORMATS[call.dtype]) if call.dtype in (torch.bfloat16, torch.float16) else numbers


def _scale(call: Call) -> float:
    return float(call["scale"]) if call["scale"] is not None else 1 / math.sqrt(call["query"].shape[-1])


def _scores(
    call: Call, queries: Bounded, keys: Bounded, head: tuple[Array, ...], rows: Array, columns: Array
) -> Bounded:
    """Return s for queries (k, r, d) and keys (k, c, d), shape (k, r, c); -inf where the mask forbids.

    rows, columns: their places in the sequence, shapes (k, r) and (k, c).
    """
    scores = (queries @ keys.swap()) * _scale(call)
    mask = call["attn_mask"]
    if mask is not None:
        whole = mask.expand(*call["query"].shape[:-1], call["key"].shape[-2])
        key = (*(torch.from_numpy(index)[:, None, None] for index in head), torch.from_numpy(rows)[:, :, None])
        added = call.read(whole, (*key, torch.from_numpy(columns)[:, None, :]))
        if mask.dtype == torch.bool:
            scores = scores.where(middle(added.value) != 0, -math.inf)
        else:
            is_hidden = middle(added.value) == -math.inf
            scores = (scores + added.where(~is_hidden, 0.0)).where(~is_hidden, -math.inf)
    if call["is_causal"]:
        scores = scores.where(columns[:, None, :] <= rows[:, :, None], -math.inf)
    return scores


def attention(call: Call) -> Found:
    """_scaled_dot_product_flash_attention(_for_cpu): o, and the logarithm of each row's sum."""
    value = call["value"]
    _refuse_dropout(call)
    length = call["key"].shape[-2]
    picked = call.pick(terms=length * 2)
    batch, head, row, feature = (index.numpy() for index in unravel(picked, call.out.shape))
    weights, total, _ = _softmax(call, batch, head, row)
    values = call.read(value.transpose(-1, -2), tuple(torch.from_numpy(index) for index in (batch, head, feature)))
    yield "0", picked, (_as_stored(call, weights) * values).sum() / total
    if len(call.outputs) > 1 and isinstance(call.outputs[1], torch.Tensor) and call.outputs[1].numel():
        chosen = call.pick("1", terms=length * 2)
        places = [index.numpy() for index in unravel(chosen, call.outputs[1].shape)]
        _, total, top = _softmax(call, *places)
        yield "1", chosen, top + total.log()


def _softmax(call: Call, batch: Array, head: Array, row: Array) -> tuple[Bounded, Bounded, Bounded]:
    """Return exp(s - max), its sum and the maximum, of some rows."""
    where = (torch.from_numpy(batch), torch.from_numpy(head))
    length = call["key"].shape[-2]
    queries = call.read(call["query"], (*where, torch.from_numpy(row))).reshape(len(row), 1, -1)
    keys = call.read(call["key"], where)
    columns = np.tile(np.arange(length), (len(row), 1))
    scores = _scores(call, queries, keys, (batch, head), row[:, None], columns)[:, 0, :]
    top = _top(scores)
    weights = _exp(call, scores - top.reshape(-1, 1))
    return weights, weights.sum(), top


def _top(scores: Bounded) -> Bounded:
    """Return the largest score of each row, as one fixed number: the result does not depend on its choice."""
    place = middle(scores.value).argmax(axis=-1)
    value = scores[np.arange(len(place)), place]
    return value.like(value.value, np.zeros(value.shape))


def attention_gradient(call: Call) -> Found:
    """..._flash_attention(_for_cpu)_backward, on the saved output and the saved logarithms."""
    _refuse_dropout(call)
    names = {"0": "query", "1": "key", "2": "value"}
    for slot in names:
        rows, columns = call["query"].shape[-2], call["key"].shape[-2]
        yield from _one_gradient(call, slot, rows if slot != "0" else columns)


def _one_gradient(call: Call, slot: str, length: int) -> Found:
    picked = call.pick(slot, terms=8 * length)
    batch, head, place, feature = (index.numpy() for index in unravel(picked, call.result(slot).shape))
    where = (torch.from_numpy(batch), torch.from_numpy(head))
    at_place = (*where, torch.from_numpy(place))
    every = np.tile(np.arange(length), (len(place), 1))
    count = len(place)
    rows, columns = (place[:, None], every) if slot == "0" else (every, place[:, None])
    query_at: tuple[torch.Tensor, ...] = at_place if slot == "0" else where
    key_at: tuple[torch.Tensor, ...] = where if slot == "0" else at_place

    def read(name: str, at: tuple[torch.Tensor, ...]) -> Bounded:
        return call.read(call[name], at).reshape(count, -1, call[name].shape[-1])

    queries, keys, values = read("query", query_at), read("key", key_at), read("value", key_at)
    grads, outputs = read("grad_out", query_at), read("out", query_at)
    saved = call.read(call["logsumexp"], query_at).reshape(count, -1, 1)
    scores = _scores(call, queries, keys, (batch, head), rows, columns)
    weights = _exp(call, scores - saved)
    at_feature = np.arange(count), slice(None), feature
    if slot == "2":
        # (k, rows, 1)
        yield slot, picked, (_as_stored(call, weights)[:, :, 0] * grads[at_feature]).sum()
        return
    gradients = (grads @ values.swap()) - (grads * outputs).sum().reshape(count, -1, 1)
    slopes = _as_stored(call, weights * gradients)
    terms = slopes[:, 0, :] * keys[at_feature] if slot == "0" else slopes[:, :, 0] * queries[at_feature]
    yield slot, picked, terms.sum() * _scale(call)


def _refuse_dropout(call: Call) -> None:
    if call["dropout_p"]:
        raise NotImplementedError("dropout inside attention")
