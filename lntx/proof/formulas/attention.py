"""Scaled dot-product attention and its gradient (Vaswani et al., Attention is all you need, 2017; Dao et al.,
FlashAttention, 2022, appendix B for the gradient; Ainslie et al., GQA, 2023: several heads of queries share a head of
keys and values, whose gradient is the sum over them).

s_ij = scale q_i k_j, p = softmax(s), o_i = sum_j p_ij v_j. With D_i = do_i o_i:
dv_j = sum_i p_ij do_i, ds_ij = p_ij (do_i v_j - D_i), dq_i = scale sum_j ds_ij k_j, dk_j = scale sum_i ds_ij q_i.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from lntx.proof.bounds.call import Call, unravel
from lntx.proof.bounds.numbers import FORMATS, Array, Bounded, middle
from lntx.proof.formulas.pointwise import Found

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


def _sharing(call: Call) -> int:
    """Return how many heads of queries share a head of keys and values."""
    return int(call["query"].shape[1] // max(call["key"].shape[1], 1))


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
    places_of_values = (batch, head // _sharing(call), feature)
    values = call.read(value.transpose(-1, -2), tuple(torch.from_numpy(index) for index in places_of_values))
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
    keys = call.read(call["key"], (where[0], torch.from_numpy(head // _sharing(call))))
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
    sharing = _sharing(call)
    picked = call.pick(slot, terms=8 * length * (1 if slot == "0" else sharing))
    batch, head, place, feature = (index.numpy() for index in unravel(picked, call.result(slot).shape))
    if slot == "0":
        terms = [_terms(call, slot, length, (batch, head, head // sharing, place, feature))]
    else:
        heads = [head * sharing + k for k in range(sharing)]
        terms = [_terms(call, slot, length, (batch, query_head, head, place, feature)) for query_head in heads]
    values, errors = (np.concatenate([getattr(term, name) for term in terms], axis=1) for name in ("value", "error"))
    total = terms[0].like(values, errors).sum()
    yield slot, picked, total if slot == "2" else total * _scale(call)


def _terms(call: Call, slot: str, length: int, places: tuple[Array, Array, Array, Array, Array]) -> Bounded:
    """Return the terms of some elements of a gradient, shape (k, length), for one head of queries."""
    batch, query_head, key_head, place, feature = places
    every, count = np.tile(np.arange(length), (len(place), 1)), len(place)
    rows, columns = (place[:, None], every) if slot == "0" else (every, place[:, None])
    query_at: tuple[Array, ...] = (batch, query_head, *((place,) if slot == "0" else ()))
    key_at: tuple[Array, ...] = (batch, key_head, *(() if slot == "0" else (place,)))

    def read(name: str, at: tuple[Array, ...]) -> Bounded:
        key = tuple(torch.from_numpy(index) for index in at)
        return call.read(call[name], key).reshape(count, -1, call[name].shape[-1])

    queries, keys, values = read("query", query_at), read("key", key_at), read("value", key_at)
    grads, outputs = read("grad_out", query_at), read("out", query_at)
    saved = call.read(call["logsumexp"], tuple(torch.from_numpy(index) for index in query_at)).reshape(count, -1, 1)
    weights = _exp(call, _scores(call, queries, keys, (batch, query_head), rows, columns) - saved)
    at_feature = np.arange(count), slice(None), feature
    if slot == "2":
        return _as_stored(call, weights)[:, :, 0] * grads[at_feature]
    gradients = (grads @ values.swap()) - (grads * outputs).sum().reshape(count, -1, 1)
    slopes = _as_stored(call, weights * gradients)
    return slopes[:, 0, :] * keys[at_feature] if slot == "0" else slopes[:, :, 0] * queries[at_feature]


def _refuse_dropout(call: Call) -> None:
    if call["dropout_p"]:
        raise NotImplementedError("dropout inside attention")
