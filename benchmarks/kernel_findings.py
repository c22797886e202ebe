"""What `lntx.prove_kernel` found in kernels that others wrote, each in a few lines: docs/findings.md has the causes.

Run: TRITON_INTERPRET=1 python benchmarks/kernel_findings.py, after pip install 'lntx[kernels]'.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from kernels import let_the_interpreter_run
from liger_kernel import ops


def group_norm() -> tuple[float, float]:
    """liger-kernel, group norm, float16: 2,048 values of 7 and 9 in turn, whose normalised values are -1 and 1."""
    x = torch.tensor([7.0, 9.0]).repeat(1024).half().reshape(1, 1, 2048)
    one, zero = torch.ones(1).half(), torch.zeros(1).half()
    out = ops.LigerGroupNormFunction.apply(x, one, zero, 1, 1, 1e-6)[0]
    return 1.0, float(out.flatten()[1])


def cross_entropy() -> tuple[float, float]:
    """liger-kernel, cross entropy, float16: gradient of the right class at logits (9, 0), times 1,000."""
    logits = torch.tensor([[9.0, 0.0]]).half().requires_grad_()
    true = -torch.sigmoid(torch.tensor(-9.0, dtype=torch.float64)) * 1000
    loss = ops.LigerCrossEntropyFunction.apply(logits.clone(), torch.tensor([0]), None)[0]
    (loss * 1000).backward()
    assert logits.grad is not None
    return float(true), float(logits.grad[0, 0])


def rounding() -> tuple[float, float]:
    """Triton's interpreter: 1.0048 converted from float32 to bfloat16."""
    out = torch.empty(1, dtype=torch.bfloat16)
    _convert[(1,)](torch.tensor([1.0048]), out)
    return float(torch.tensor(1.0048).bfloat16()), float(out)


@triton.jit
def _convert(x, out):  # type: ignore[no-untyped-def]
    tl.store(out, tl.load(x).to(tl.bfloat16))


def main() -> None:
    let_the_interpreter_run()
    print("| what | true | computed |")
    print("|---|---|---|")
    for finding in (group_norm, cross_entropy, rounding):
        true, value = finding()
        print(f"| {(finding.__doc__ or '').rstrip('.')} | {true:.6g} | {value:.6g} |")


if __name__ == "__main__":
    main()
