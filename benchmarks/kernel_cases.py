"""Twenty kernels as people write them, each right and with one fault, and what each means in plain PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)

Tensor = torch.Tensor
Function = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class KernelCase:
    """One kernel."""

    name: str
    reference: Function
    right: Function
    wrong: Function
    fault: str
    arguments: tuple[Any, ...]
    dtype: torch.dtype = torch.float32
    accumulate: torch.dtype | None = None
    requires_grad: bool = True


def _layer_norm(x: Tensor, w: Tensor, *, biased: int = 0) -> Tensor:
    count = x.shape[-1]
    centred = x - x.sum(-1, keepdim=True) / count
    variance = (centred**2).sum(-1, keepdim=True) / max(count - biased, 1)
    return centred / torch.sqrt(variance + 1e-5) * w


def _rms_norm(x: Tensor, w: Tensor) -> Tensor:
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-3) * w


def _rms_norm_other_form(x: Tensor, w: Tensor) -> Tensor:
    scale = torch.sqrt((x**2).sum(-1, keepdim=True) / x.shape[-1] + 1e-3)
    return w * (x / scale)


def _rms_norm_eps_outside(x: Tensor, w: Tensor) -> Tensor:
    return w * (x / (torch.sqrt((x**2).sum(-1, keepdim=True) / x.shape[-1]) + 1e-3))


def _online_softmax(x: Tensor, *, rescale: bool = True) -> Tensor:
    top = torch.full_like(x[..., :1], -math.inf)
    total = torch.zeros_like(top)
    for block in x.split(8, -1):
        new = torch.maximum(top, block.amax(-1, keepdim=True))
        total = (total * torch.exp(top - new) if rescale else total) + torch.exp(block - new).sum(-1, keepdim=True)
        top = new
    return torch.exp(x - top) / total


def _blocked_product(a: Tensor, b: Tensor, *, lost: bool = False) -> Tensor:
    inner = a.shape[-1]
    stop = inner - inner % 8 if lost else inner
    out = a.new_zeros(a.shape[0], b.shape[1])
    for k in range(0, stop, 8):
        out = out + a[:, k : k + 8] @ b[k : k + 8]
    return out


def _product_accumulated(a: Tensor, b: Tensor, *, kind: torch.dtype) -> Tensor:
    out = torch.zeros(a.shape[0], b.shape[1], dtype=kind)
    for k in range(a.shape[1]):
        out = out + (a[:, k : k + 1].float() * b[k : k + 1].float()).to(kind)
    return out.to(a.dtype)


def _gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x * 0.7071067811865476))


def _gelu_by_erfc(x: Tensor) -> Tensor:
    return 0.5 * x * (2 - torch.erfc(x / 1.4142135623730951))


def _cross_entropy(x: Tensor, labels: Tensor) -> Tensor:
    top = x.amax(-1, keepdim=True).detach()
    logs = torch.log(torch.exp(x - top).sum(-1)) + top[:, 0]
    return (logs - x.gather(-1, labels[:, None])[:, 0]).mean()


def _cross_entropy_without_maximum(x: Tensor, labels: Tensor) -> Tensor:
    return (torch.log(torch.exp(x).sum(-1)) - x.gather(-1, labels[:, None])[:, 0]).mean()


def _causal_attention(q: Tensor, k: Tensor, v: Tensor, *, shift: int = 0) -> Tensor:
    size = q.shape[-2]
    mask = torch.ones(size, size, dtype=torch.bool).tril(shift)
    scores = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(~mask, -math.inf)
    return torch.softmax(scores, -1) @ v


def _attention_in_blocks(q: Tensor, k: Tensor, v: Tensor, *, off: int = 0) -> Tensor:
    size, rows = q.shape[-2], []
    for i in range(size):
        stop = min(i + 1 + off, size)
        top = torch.full_like(q[..., i, :1], -math.inf)
        total, out = torch.zeros_like(top), torch.zeros_like(q[..., i, :])
        for start in range(0, stop, 8):
            end = min(start + 8, stop)
            scores = (k[..., start:end, :] @ q[..., i, :, None])[..., 0] * q.shape[-1] ** -0.5
            new = torch.maximum(top, scores.amax(-1, keepdim=True))
            factor, weights = torch.exp(top - new), torch.exp(scores - new)
            total = total * factor + weights.sum(-1, keepdim=True)
            out = out * factor + (weights[..., None, :] @ v[..., start:end, :])[..., 0, :]
            top = new
        rows.append(out / total)
    return torch.stack(rows, -2)


def _rotary(x: Tensor, angles: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * torch.cat([angles.cos()] * 2, -1) + turned * torch.cat([angles.sin()] * 2, -1)


def _rotary_by_halves(x: Tensor, angles: Tensor, *, sign: float = -1.0) -> Tensor:
    a, b = x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos + sign * b * sin, b * cos + a * sin], -1)


def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def _fast_exp(x: Tensor) -> Tensor:
    """Eight steps of (1 + x/256)^256: 3 digits."""
    out = 1 + x / 256
    for _ in range(8):
        out = out * out
    return out


def _dropped(x: Tensor, mask: Tensor, *, scale: float = 1 / 0.9) -> Tensor:
    return torch.where(mask, x * scale, 0.0)


def _grouped(x: Tensor) -> Tensor:
    return F.group_norm(x[:, :, None], 4)[:, :, 0]


def _group_norm(x: Tensor, *, tail: bool = True) -> Tensor:
    groups = x.reshape(x.shape[0], 4, -1)
    centred = groups - groups.mean(-1, keepdim=True)
    out = (centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)).reshape(x.shape)
    if tail:
        return out
    written = torch.empty_like(out)
    written[: len(out) - len(out) % 2] = out[: len(out) - len(out) % 2]
    return written


def _scan(x: Tensor, *, carries: bool = True) -> Tensor:
    parts, carry = [], torch.zeros_like(x[..., :1])
    for k, block in enumerate(x.split(16, -1)):
        part = torch.cumsum(block, -1) + carry
        parts.append(part)
        # Without it the third block starts before the second has stored its sum.
        carry = part[..., -1:] if carries or k != 1 else carry
    return torch.cat(parts, -1)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, index: Tensor, adds: bool) -> Tensor:
        ctx.save_for_backward(index)
        ctx.rows, ctx.adds = len(weight), adds
        return weight[index]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (index,) = ctx.saved_tensors
        out = grads[0].new_zeros(ctx.rows, grads[0].shape[-1])
        return out.index_put((index,), grads[0], accumulate=ctx.adds), None, None


def _gathered(w: Tensor, index: Tensor, *, adds: bool) -> Any:
    return _Gather.apply(w, index, adds)  # type: ignore[no-untyped-call]


def _tree_sum(x: Tensor, *, kind: torch.dtype = torch.float32) -> Tensor:
    out = x.to(torch.float32)
    while out.shape[-1] > 1:
        if out.shape[-1] % 2:
            out = torch.cat([out, torch.zeros_like(out[..., :1])], -1)
        out = (out[..., ::2] + out[..., 1::2]).to(kind).to(torch.float32)
    return out[..., 0].to(x.dtype)


def _stable_sigmoid(x: Tensor) -> Tensor:
    size = torch.where(x >= 0, x, -x)
    return torch.where(x >= 0, 1.0, torch.exp(-size)) / (1 + torch.exp(-size))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor, right: bool) -> Tensor:
        out = x @ w.T + b
        ctx.save_for_backward(x, w, out > 0)
        ctx.right = right
        return out.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, w, mask = ctx.saved_tensors
        grad = grads[0] * mask
        return grad @ w, grad.T @ x, grad.sum(0) if ctx.right else grad.mean(0), None


def _linear(x: Tensor, w: Tensor, b: Tensor, *, right: bool) -> Any:
    return _Linear.apply(x, w, b, right)  # type: ignore[no-untyped-call]


def _adam(p: Tensor, g: Tensor, m: Tensor, v: Tensor, *, inside: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    v = v.abs()
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    lower = torch.sqrt(v / 0.5 + 1e-8) if inside else torch.sqrt(v / 0.5) + 1e-8
    return p - 1e-3 * (m / 0.5) / lower, m, v


def _variance(x: Tensor) -> Tensor:
    return x.var(-1, correction=0)


def _welford(x: Tensor) -> Tensor:
    mean, total = torch.zeros_like(x[..., 0]), torch.zeros_like(x[..., 0])
    for k in range(x.shape[-1]):
        step = x[..., k] - mean
        mean = mean + step / (k + 1)
        total = total + step * (x[..., k] - mean)
    return total / x.shape[-1]


def _pooled(x: Tensor, *, fill: float = -math.inf) -> Tensor:
    padded = torch.cat([torch.full_like(x[..., :1], fill), x, torch.full_like(x[..., :1], fill)], -1)
    return torch.maximum(torch.maximum(padded[..., :-2], padded[..., 1:-1]), padded[..., 2:])


def _labels(draw: np.random.Generator, sizes: Any) -> Tensor:
    return torch.from_numpy(draw.integers(0, 40, sizes["n"]))


def _mask(draw: np.random.Generator, sizes: Any) -> Tensor:
    return torch.from_numpy(draw.random((sizes["n"], 24)) < 0.9)


def _index(draw: np.random.Generator, sizes: Any) -> Tensor:
    return torch.from_numpy(draw.integers(0, sizes["n"], 4 * sizes["n"] + 4))


def _same(function: Function, **change: Any) -> Function:
    def kernel(*inputs: Any) -> Any:
        return function(*inputs, **change)

    kernel.__name__ = function.__name__.strip("_")
    return kernel


CASES = (
    KernelCase(name="layer norm", reference=lambda x, w: F.layer_norm(x, x.shape[-1:], w), right=_layer_norm,
               wrong=_same(_layer_norm, biased=1), fault="variance over n - 1", arguments=(("n", 48), (48,))),
    KernelCase(name="RMS norm", reference=_rms_norm, right=_rms_norm_other_form, wrong=_rms_norm_eps_outside,
               fault="eps outside the root", arguments=(("n", 33), (33,))),
    KernelCase(name="online softmax", reference=lambda x: torch.softmax(x, -1), right=_online_softmax,
               wrong=_same(_online_softmax, rescale=False), fault="a missing rescale", arguments=(("n", 40),)),
    KernelCase(name="product in blocks", reference=lambda a, b: a @ b, right=_blocked_product,
               wrong=_same(_blocked_product, lost=True), fault="the tail of an odd size",
               arguments=(("n", 45), (45, "m"))),
    KernelCase(name="product in bfloat16", reference=lambda a, b: a @ b,
               right=_same(_product_accumulated, kind=torch.float32),
               wrong=_same(_product_accumulated, kind=torch.bfloat16), fault="an accumulator in bfloat16",
               arguments=(("n", 65), (65, 7)), dtype=torch.bfloat16, accumulate=torch.float32, requires_grad=False),
    KernelCase(name="GELU", reference=_gelu, right=_gelu_by_erfc,
               wrong=_same(F.gelu, approximate="tanh"), fault="erf by tanh", arguments=(("n", 20),)),
    KernelCase(name="cross entropy", reference=lambda x, labels: F.cross_entropy(x, labels), right=_cross_entropy,
               wrong=_cross_entropy_without_maximum, fault="no maximum before exp", arguments=(("n", 40), _labels)),
    KernelCase(name="attention in blocks", reference=_causal_attention, right=_attention_in_blocks,
               wrong=_same(_attention_in_blocks, off=1), fault="a mask off by one",
               arguments=((2, 19, 8), (2, 19, 8), (2, 19, 8))),
    KernelCase(name="rotary", reference=_rotary, right=_rotary_by_halves, wrong=_same(_rotary_by_halves, sign=1.0),
               fault="a wrong sign of the sine", arguments=(("n", 16), ("n", 8))),
    KernelCase(name="SwiGLU", reference=_swiglu, right=lambda gate, up: gate * up * torch.sigmoid(gate),
               wrong=lambda gate, up: gate / (1 + _fast_exp(-gate)) * up, fault="an approximate exp",
               arguments=(("n", 24), ("n", 24))),
    KernelCase(name="dropout", reference=lambda x, mask: x * mask / 0.9, right=_dropped,
               wrong=_same(_dropped, scale=1.0), fault="no rescale of what is kept", arguments=(("n", 24), _mask)),
    KernelCase(name="group norm", reference=_grouped, right=_group_norm, wrong=_same(_group_norm, tail=False),
               fault="the last row of an odd number is not written", arguments=(("n", 32),)),
    KernelCase(name="scan", reference=lambda x: torch.cumsum(x, -1), right=_scan, wrong=_same(_scan, carries=False),
               fault="a race: a block starts too early", arguments=(("n", 64),)),
    KernelCase(name="embedding", reference=lambda w, index: F.embedding(index, w),
               right=_same(_gathered, adds=True),
               wrong=_same(_gathered, adds=False), fault="gradients of equal indexes are not added",
               arguments=(("n", 12), _index)),
    KernelCase(name="sum by a tree", reference=lambda x: x.sum(-1), right=_tree_sum,
               wrong=_same(_tree_sum, kind=torch.bfloat16), fault="each level rounded to 16 bits",
               arguments=(("n", 50),), dtype=torch.float16, accumulate=torch.float32, requires_grad=False),
    KernelCase(name="sigmoid", reference=torch.sigmoid, right=_stable_sigmoid,
               wrong=lambda x: 1 / (1 + _fast_exp(-x)), fault="an approximate exp", arguments=(("n", 24),)),
    KernelCase(name="linear and ReLU", reference=lambda x, w, b: torch.relu(x @ w.T + b),
               right=_same(_linear, right=True),
               wrong=_same(_linear, right=False), fault="the gradient of the bias is a mean",
               arguments=(("n", 16), (8, 16), (8,))),
    KernelCase(name="Adam", reference=_adam, right=lambda p, g, m, v: _adam(p, g, m, v),
               wrong=_same(_adam, inside=True), fault="eps inside the root",
               arguments=(("n", 9), ("n", 9), ("n", 9), ("n", 9)), requires_grad=False),
    KernelCase(name="variance", reference=_variance, right=_welford,
               wrong=lambda x: (x * x).mean(-1) - x.mean(-1) ** 2, fault="a difference of large numbers",
               arguments=(("n", 40),)),
    KernelCase(name="pooling", right=_pooled,
               reference=lambda x: F.pad(x, (1, 1), value=-math.inf).unfold(-1, 3, 1).amax(-1),
               wrong=_same(_pooled, fill=0.0), fault="padded with 0", arguments=((2, "n", 20),), requires_grad=False),
)  # fmt: skip
"""Every kernel."""
