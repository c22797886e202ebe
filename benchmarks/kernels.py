"""Kernels that others wrote, run by Triton's interpreter on the CPU, and the usual ways of testing kernels beside ours.

Run: TRITON_INTERPRET=1 python benchmarks/kernels.py liger
     python benchmarks/kernels.py usual

liger: the package liger-kernel, after pip install --no-deps liger-kernel triton. usual: twenty right kernels and twenty
with a fault, by lntx and by tolerances.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from kernel_cases import CASES

from lntx.proof.hard_inputs import Case, hard_inputs
from lntx.proof.kernels import prove_kernel

Tensor = torch.Tensor
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _rms_norm(x: Tensor, w: Tensor) -> Tensor:
    """As Llama has it: in float32, rounded to the format of the input, then times the weights."""
    kind, wide = x.dtype, x.to(torch.float32)
    return w * (wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + 1e-6)).to(kind)


def _layer_norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w, b, 1e-6)


def _turned(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], -1)


def _rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = cos[:, None], sin[:, None]
    return q * cos + _turned(q) * sin, k * cos + _turned(k) * sin


def _linear_cross_entropy(x: Tensor, w: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy((x @ w.T).float(), labels)


def _liger() -> dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[[torch.dtype], tuple[Any, ...]]]]:
    """Return the kernels by name: kernel, reference, inputs."""
    import numpy as np
    import triton.language as tl
    from liger_kernel import ops
    from triton.runtime import interpreter

    converted = interpreter._implicit_cvt

    def convert(argument: Any) -> Any:
        """Give a float a type, as the compiler does: the interpreter leaves it a number of Python."""
        if type(argument) is not float:
            return converted(argument)
        return tl.tensor(interpreter.TensorHandle(np.array([argument], dtype=np.float32), tl.float32), tl.float32)

    def by_numpy(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: tl.tensor(
            interpreter.TensorHandle(function(x.handle.data).astype(x.handle.data.dtype), x.handle.dtype), x.type
        )

    interpreter._implicit_cvt = convert
    # Functions of CUDA's library, which the interpreter lacks.
    library = {"rsqrt": by_numpy(lambda x: 1 / np.sqrt(x)), "tanh": by_numpy(np.tanh)}
    for name, module in [*sys.modules.items()]:
        if name.startswith("liger_kernel.ops"):
            for function in library.keys() & vars(module).keys():
                setattr(module, function, library[function])

    def draw(*shape: int) -> Callable[[torch.dtype], Tensor]:
        return lambda dtype: torch.randn(*shape).to(dtype).requires_grad_()

    def given(*makers: Callable[[torch.dtype], Tensor]) -> Callable[[torch.dtype], tuple[Tensor, ...]]:
        return lambda dtype: tuple(make(dtype) for make in makers)

    def labels(_dtype: torch.dtype) -> Tensor:
        return torch.arange(7) % 5

    def angles(function: Callable[[Tensor], Tensor]) -> Callable[[torch.dtype], Tensor]:
        half = torch.arange(9)[:, None] * 0.1 ** torch.arange(0, 1, 0.25)
        return lambda dtype: function(torch.cat([half, half], -1))[None].to(dtype)

    eps = 1e-6
    return {
        "RMS norm": (lambda x, w: ops.LigerRMSNormFunction.apply(x, w, eps, 0.0, "llama", False), _rms_norm,
                     given(draw(7, 48), draw(48))),
        "layer norm": (lambda x, w, b: ops.LigerLayerNormFunction.apply(x, w, b, eps), _layer_norm,
                       given(draw(7, 48), draw(48), draw(48))),
        "SwiGLU": (lambda a, b: ops.LigerSiLUMulFunction.apply(a, b), lambda a, b: F.silu(a) * b,
                   given(draw(7, 48), draw(7, 48))),
        "GeGLU": (lambda a, b: ops.LigerGELUMulFunction.apply(a, b), lambda a, b: F.gelu(a, approximate="tanh") * b,
                  given(draw(7, 48), draw(7, 48))),
        "ReLU squared": (lambda x: ops.LigerReLUSquaredFunction.apply(x), lambda x: F.relu(x) ** 2,
                         given(draw(7, 48))),
        "rotary": (lambda q, k, cos, sin: ops.LigerRopeFunction.apply(q, k, cos, sin), _rope,
                   given(draw(1, 2, 9, 8), draw(1, 2, 9, 8), angles(torch.cos), angles(torch.sin))),
        "softmax": (lambda x: ops.LigerSoftmaxFunction.apply(x), lambda x: torch.softmax(x, -1), given(draw(7, 48))),
        "cross entropy": (lambda x, target: ops.LigerCrossEntropyFunction.apply(x, target, None)[0],
                          lambda x, target: F.cross_entropy(x.float(), target), given(draw(7, 33), labels)),
        "linear cross entropy": (
            lambda x, w, target: ops.LigerFusedLinearCrossEntropyFunction.apply(x, w, target)[0],
            _linear_cross_entropy, given(draw(7, 16), draw(33, 16), labels)),
        "embedding": (lambda w, index: ops.LigerEmbeddingFunction.apply(w, index),
                      lambda w, index: F.embedding(index, w), given(draw(5, 16), labels)),
        "group norm": (lambda x, w, b: ops.LigerGroupNormFunction.apply(x, w, b, 8, 4, eps)[0],
                       lambda x, w, b: F.group_norm(x, 4, w, b, 1e-6), given(draw(3, 8, 12), draw(8), draw(8))),
        "KL divergence": (lambda x, y: ops.LigerKLDivLossFunction.apply(x, y),
                          lambda x, y: F.kl_div(x, y, reduction="batchmean"),
                          lambda dtype: (torch.randn(7, 33).log_softmax(-1).to(dtype).requires_grad_(),
                                         torch.randn(7, 33).softmax(-1).to(dtype))),
        "dynamic tanh": (lambda x, alpha, g, b: ops.LigerDyTFunction.apply(x, alpha, g, b),
                         lambda x, alpha, g, b: torch.tanh(alpha * x) * g + b,
                         given(draw(7, 48), draw(1), draw(48), draw(48))),
    }  # fmt: skip


def liger(seed: int) -> None:
    """Print a line for each kernel and format."""
    print(f"{'kernel':<22}{'format':<10}{'verdict':<18}{'share':>9}{'eager':>9}  where, or why not")
    for name, (kernel, reference, inputs) in _liger().items():
        for dtype in DTYPES:
            torch.manual_seed(seed)
            try:
                proof = prove_kernel(kernel, reference, *inputs(dtype), seed=seed)
            except Exception as error:
                proof = None
                verdict, share, eager, why = "not run", "", "", f"{type(error).__name__}: {error}"
            if proof is not None:
                worst = max(proof.outputs, key=lambda output: output.share, default=None)
                why = "; ".join(proof.notes) if proof.passed else (proof.reason or "")
                verdict = "not checked" if worst is None or (proof.unchecked and not proof.wrong) else worst.verdict
                if proof.passed and any(output.verdict != "right" for output in proof.outputs):
                    verdict = "worse than eager"
                share, eager = ("", "") if worst is None else (f"{worst.share:.2g}", f"{worst.eager:.2g}")
            first = " ".join(why.split())[:150]
            print(f"{name:<22}{str(dtype)[6:]:<10}{verdict:<18}{share:>9}{eager:>9}  {first}", flush=True)


def _close(got: list[Tensor], usual: list[Tensor], **tolerances: Any) -> bool:
    try:
        for a, b in zip(got, usual, strict=True):
            torch.testing.assert_close(a, b, **tolerances)
    except AssertionError:
        return False
    return True


def _results(function: Callable[..., Any], case: Case) -> list[Tensor]:
    """Return results and gradients, sent backward from ones."""
    inputs = case.inputs
    results = function(*inputs)
    results = [results] if isinstance(results, Tensor) else list(results)
    leaves = [value for value in inputs if isinstance(value, Tensor) and value.requires_grad]
    if not leaves or not results[0].requires_grad:
        return [result.detach() for result in results]
    grads = torch.autograd.grad(results, leaves, [torch.ones_like(result) for result in results], allow_unused=True)
    return [*(result.detach() for result in results), *(grad for grad in grads if grad is not None)]


def _within_twice(got: list[Tensor], usual: list[Tensor], true: list[Tensor]) -> bool:
    """Whether the largest error is at most twice that of torch's kernels, as flash attention's tests have it."""
    return all(
        float((a.double() - c).abs().max()) <= 2 * float((b.double() - c).abs().max()) + 1e-12
        for a, b, c in zip(got, usual, true, strict=True)
        if a.numel()
    )


def _in_doubles(case: Case) -> Case:
    import dataclasses

    return dataclasses.replace(case, dtype=torch.float64)


def usual(rounds: int) -> None:
    """Print how many faults each way misses, and how many right kernels it fails."""
    ways = ("lntx.prove_kernel", "assert_close, defaults", "rtol = atol = 1e-2", "twice eager's error")
    missed, failed, count = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0), 0
    names: dict[str, list[str]] = {way: [] for way in ways}
    start = time.monotonic()
    for entry in CASES:
        caught, alarms = dict.fromkeys(ways, False), dict.fromkeys(ways, False)
        for k in range(rounds):
            cases = hard_inputs(
                entry.reference, *entry.arguments, dtype=entry.dtype, requires_grad=entry.requires_grad, seed=1000 * k
            )
            for case in cases:
                count += 1
                eager = _results(entry.reference, case)
                true = _results(lambda *inputs: entry.reference(*inputs), _in_doubles(case))  # noqa: B023
                for kernel, found in ((entry.right, alarms), (entry.wrong, caught)):
                    proof = prove_kernel(
                        kernel, entry.reference, *case.inputs, accumulate=entry.accumulate, seed=case.seed
                    )
                    got = _results(kernel, case)
                    passed = (
                        proof.passed,
                        _close(got, eager),
                        _close(got, eager, rtol=1e-2, atol=1e-2),
                        _within_twice(got, eager, true),
                    )
                    for way, ok in zip(ways, passed, strict=True):
                        found[way] |= not ok
        for way in ways:
            missed[way] += not caught[way]
            failed[way] += alarms[way]
            names[way] += [f"misses {entry.name}"] * (not caught[way]) + [f"fails {entry.name}"] * alarms[way]
    print(f"{len(CASES)} right kernels and {len(CASES)} with a fault, {count} inputs each way, "
          f"{time.monotonic() - start:.0f} s")  # fmt: skip
    for way in ways:
        print(f"{way:<24} misses {missed[way]:>2} of {len(CASES)} faults, fails {failed[way]:>2} of {len(CASES)} right")
        print(f"    {'; '.join(names[way])}")


def main() -> int:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["liger", "usual"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="times 8 to 17 inputs for each kernel")
    options = parser.parse_args()
    liger(options.seed) if options.what == "liger" else usual(options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
