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

from lntx.canary.operators.kernels import KERNELS, Kernel, prove_liger
from lntx.proof.hard_inputs import Case, hard_inputs
from lntx.proof.kernels import prove_kernel

Tensor = torch.Tensor
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


LIGER = {
    **KERNELS,
    "KL divergence": Kernel(
        "LigerKLDivLossFunction",
        (),
        lambda x, y: F.kl_div(x, y, reduction="batchmean"),
        lambda dtype: (
            torch.randn(7, 33).log_softmax(-1).to(dtype).requires_grad_(),
            torch.randn(7, 33).softmax(-1).to(dtype),
        ),
    ),
    "dynamic tanh": Kernel(
        "LigerDyTFunction",
        (),
        lambda x, alpha, g, b: torch.tanh(alpha * x) * g + b,
        lambda dtype: tuple(torch.randn(shape).to(dtype).requires_grad_() for shape in ((7, 48), 1, 48, 48)),
    ),
}
"""Those of the deep canary, and two more."""


def let_the_interpreter_run() -> None:
    """Give Triton's interpreter what liger's kernels use and it lacks."""
    import liger_kernel.ops  # noqa: F401 (its functions are replaced below)
    import numpy as np
    import triton.language as tl
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


def liger(seed: int) -> None:
    """Print a line for each kernel and format."""
    print(f"{'kernel':<22}{'format':<10}{'verdict':<18}{'share':>9}{'eager':>9}  where, or why not")
    let_the_interpreter_run()
    for name, kernel in LIGER.items():
        for dtype in DTYPES:
            try:
                proof = prove_liger(kernel, dtype, seed=seed)
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
