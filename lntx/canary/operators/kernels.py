"""Kernels of liger-kernel, where it is installed, and what each means in plain PyTorch: a part of the deep canary.

They are Triton's, and need a GPU, or TRITON_INTERPRET=1 before Triton is imported, under which some do not run.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from lntx.proof.kernels import KernelProof, prove_kernel

_EPS = 1e-6


class Kernel(NamedTuple):
    """A kernel by its name in `liger_kernel.ops`."""

    function: str
    """The name of its autograd function."""

    more: tuple[Any, ...]
    """What it is called with beside the inputs."""

    reference: Callable[..., Any]
    """What it means."""

    inputs: Callable[[torch.dtype], tuple[Tensor, ...]]
    """Draws inputs in a format."""

    num_results: int = 1
    """How many results its reference returns; the kernel may return more."""


def _rms_norm(x: Tensor, w: Tensor) -> Tensor:
    """As Llama has it: in float32, rounded to the format of the input, then times the weights."""
    kind, wide = x.dtype, x.to(torch.float32)
    return w * (wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + _EPS)).to(kind)


def _rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    def turned(x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        return torch.cat([-x[..., half:], x[..., :half]], -1)

    cos, sin = cos[:, None], sin[:, None]
    return q * cos + turned(q) * sin, k * cos + turned(k) * sin


def _angles(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Tensor:
    half = torch.arange(9)[:, None] * 0.1 ** torch.arange(0, 1, 0.25)
    return function(torch.cat([half, half], -1))[None].to(dtype)


def _draw(*shapes: tuple[int, ...]) -> Callable[[torch.dtype], tuple[Tensor, ...]]:
    return lambda dtype: tuple(torch.randn(shape).to(dtype).requires_grad_() for shape in shapes)


def _with_labels(*shapes: tuple[int, ...]) -> Callable[[torch.dtype], tuple[Tensor, ...]]:
    return lambda dtype: (*_draw(*shapes)(dtype), torch.arange(7) % 5)


_ROWS = (7, 48)
KERNELS: Mapping[str, Kernel] = {
    "RMS norm": Kernel("LigerRMSNormFunction", (_EPS, 0.0, "llama", False), _rms_norm, _draw(_ROWS, (48,))),
    "layer norm": Kernel(
        "LigerLayerNormFunction",
        (_EPS,),
        lambda x, w, b: functional.layer_norm(x, x.shape[-1:], w, b, _EPS),
        _draw(_ROWS, (48,), (48,)),
    ),
    "group norm": Kernel(
        "LigerGroupNormFunction",
        (8, 4, _EPS),
        lambda x, w, b: functional.group_norm(x, 4, w, b, _EPS),
        _draw((3, 8, 12), (8,), (8,)),
    ),
    "SwiGLU": Kernel("LigerSiLUMulFunction", (), lambda a, b: functional.silu(a) * b, _draw(_ROWS, _ROWS)),
    "GeGLU": Kernel(
        "LigerGELUMulFunction", (), lambda a, b: functional.gelu(a, approximate="tanh") * b, _draw(_ROWS, _ROWS)
    ),
    "ReLU squared": Kernel("LigerReLUSquaredFunction", (), lambda x: functional.relu(x) ** 2, _draw(_ROWS)),
    "softmax": Kernel("LigerSoftmaxFunction", (), lambda x: torch.softmax(x, -1), _draw(_ROWS)),
    "rotary": Kernel(
        "LigerRopeFunction",
        (),
        _rotary,
        lambda dtype: (*_draw((1, 2, 9, 8), (1, 2, 9, 8))(dtype), _angles(torch.cos, dtype), _angles(torch.sin, dtype)),
        num_results=2,
    ),
    "embedding": Kernel(
        "LigerEmbeddingFunction", (), lambda w, index: functional.embedding(index, w), _with_labels((5, 16))
    ),
    "cross entropy": Kernel(
        "LigerCrossEntropyFunction",
        (None,),
        lambda x, labels: functional.cross_entropy(x.float(), labels),
        _with_labels((7, 33)),
    ),
    "linear cross entropy": Kernel(
        "LigerFusedLinearCrossEntropyFunction",
        (),
        lambda x, w, labels: functional.cross_entropy((x @ w.T).float(), labels),
        _with_labels((7, 16), (33, 16)),
    ),
}
"""Each kernel, by what it computes."""


def can_run(device: str) -> bool:
    """Return whether liger-kernel is installed, and Triton has a GPU or its interpreter."""
    is_installed = importlib.util.find_spec("liger_kernel") is not None and importlib.util.find_spec("triton")
    return bool(is_installed) and (device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")


def run_kernel(kernel: Kernel, *inputs: Any) -> Any:
    """Call a kernel; of several results, those that its reference returns."""
    from liger_kernel import ops

    results = getattr(ops, kernel.function).apply(*inputs, *kernel.more)
    if not isinstance(results, tuple):
        return results
    return results[0] if kernel.num_results == 1 else results[: kernel.num_results]


def draw_inputs(kernel: Kernel, dtype: torch.dtype, *, seed: int, device: str = "cpu") -> tuple[Tensor, ...]:
    """Draw inputs of a kernel in a format."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        drawn = kernel.inputs(dtype)
    return tuple(value.detach().to(device).requires_grad_(value.requires_grad) for value in drawn)


def prove_liger(kernel: Kernel, dtype: torch.dtype, *, seed: int, device: str = "cpu") -> KernelProof:
    """Prove a kernel on inputs that are drawn from a seed."""
    inputs = draw_inputs(kernel, dtype, seed=seed, device=device)
    return prove_kernel(functools.partial(run_kernel, kernel), kernel.reference, *inputs, seed=seed)
