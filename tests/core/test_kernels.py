"""A gate for kernels: `lntx.prove_kernel`, `hard_inputs` and `assert_proved`. Run: pytest tests/core/test_kernels.py"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from kernel_cases import CASES, KernelCase
from torch import Tensor

import lntx
from lntx.base.errors import BadInput
from lntx.proof.hard_inputs import Case, assert_proved, strategy
from lntx.proof.kernels import KernelProof


def _cases(entry: KernelCase, seed: int) -> list[Case]:
    return lntx.hard_inputs(
        entry.reference, *entry.arguments, dtype=entry.dtype, requires_grad=entry.requires_grad, seed=seed
    )


def _proof(entry: KernelCase, kernel: Any, case: Case) -> KernelProof:
    return lntx.prove_kernel(kernel, entry.reference, *case.inputs, accumulate=entry.accumulate, seed=case.seed)


@pytest.mark.parametrize("entry", CASES, ids=lambda entry: entry.name)
def test_a_right_kernel_passes_and_one_with_a_fault_does_not(entry: KernelCase) -> None:
    cases = _cases(entry, 1)
    for case in cases[::4]:
        proof = _proof(entry, entry.right, case)
        assert proof.passed, f"{case}\n{proof}"
    assert any(not _proof(entry, entry.wrong, case).passed for case in cases), entry.fault


@pytest.mark.slow
@pytest.mark.parametrize("entry", CASES, ids=lambda entry: entry.name)
def test_no_inputs_make_a_right_kernel_wrong(entry: KernelCase) -> None:
    for seed in range(1000, 1002):
        for case in _cases(entry, 100 * seed):
            proof = _proof(entry, entry.right, case)
            assert proof.passed, f"{case}\n{proof}"


def _scaled(x: Tensor, w: Tensor) -> Tensor:
    return (x * w).sum(-1)


def test_a_proof_says_which_element_and_what_eager_gets() -> None:
    x, w = torch.randn(3, 5, requires_grad=True), torch.randn(5)

    def kernel(x: Tensor, w: Tensor) -> Tensor:
        out = (x * w).sum(-1)
        return out + torch.tensor([0.0, 1e-3, 0.0])

    proof = lntx.prove_kernel(kernel, _scaled, x, w, seed=1)
    assert not proof.passed
    assert proof.wrong[0].index == (1,)
    assert proof.wrong[0].value == pytest.approx((proof.wrong[0].true or 0) + 1e-3, rel=1e-3)
    assert [output.verdict for output in proof.outputs] == ["wrong", "right"]
    assert proof.outputs[0].eager <= 1 < proof.outputs[0].share
    assert [*proof.rows.columns] == [
        "phase", "name", "dtype", "elements", "share", "eager", "digits", "verdict",
    ]  # fmt: skip
    assert str(proof).splitlines()[-1].startswith("FAIL  forward: result 0[1] is ")


def test_shapes_missing_gradients_and_fresh_memory_are_seen() -> None:
    x, w = torch.randn(3, 5, requires_grad=True), torch.randn(5)
    proof = lntx.prove_kernel(lambda x, w: _scaled(x, w)[:, None], _scaled, x, w)
    assert proof.reason == "forward: result 0 has the shape (3, 1), not (3,)"
    proof = lntx.prove_kernel(lambda x, w: _scaled(x.detach(), w), _scaled, x, w)
    assert proof.passed
    assert "the kernel has no gradients" in proof.notes[0]
    proof = lntx.prove_kernel(
        lambda x, w: (x.detach() * w).sum(-1), lambda x, w: (x * w).sum(-1), x, w.clone().requires_grad_()
    )
    assert proof.reason == "backward: gradient of input 0 is missing: autograd found no path to it"

    def reads_fresh(x: Tensor, w: Tensor) -> Tensor:
        out = torch.empty(3)
        return out.add_(_scaled(x, w))

    assert "reads what it never wrote" in (lntx.prove_kernel(reads_fresh, _scaled, x.detach(), w).reason or "")

    def writes(x: Tensor, w: Tensor) -> Tensor:
        out = _scaled(x, w)
        x.zero_()
        return out

    assert lntx.prove_kernel(writes, _scaled, x.detach(), w).notes == ["the kernel writes to its inputs 0"]


def test_a_bound_that_says_little_says_so() -> None:
    x = torch.full((4, 64), 1e4).bfloat16()
    x[:, ::2] *= -1

    def reference(x: Tensor) -> Tensor:
        return (x * x.sum(-1, keepdim=True)).sum(-1) + x[:, 0]

    proof = lntx.prove_kernel(reference, reference, x, accumulate=torch.bfloat16)
    assert proof.passed
    assert any("the bound leaves" in note for note in proof.notes), str(proof)


def test_what_a_reference_computes_in_is_what_is_promised() -> None:
    """In bfloat16, sums in bfloat16 are a fault, unless the reference has them."""
    torch.manual_seed(1)
    x = torch.randn(5, 257).bfloat16()

    def narrow(x: Tensor) -> Tensor:
        total = x[:, 0]
        for k in range(1, x.shape[1]):
            total = total + x[:, k]
        return total

    assert not lntx.prove_kernel(narrow, lambda x: x.sum(-1), x).passed
    assert lntx.prove_kernel(narrow, narrow, x).passed


def test_an_assertion_that_fails_is_shrunk_and_fits_a_screen() -> None:
    entry = next(entry for entry in CASES if entry.name == "group norm")
    cases = _cases(entry, 3)
    lntx.assert_proved(entry.right, entry.reference, cases)
    with pytest.raises(AssertionError) as caught:
        lntx.assert_proved(entry.wrong, entry.reference, cases)
    lines = str(caught.value).splitlines()
    assert len(lines) <= 24
    assert "sizes={'n': 1}" in lines[-1], "the smallest odd number of rows"
    inputs = eval(lines[-1].removeprefix("inputs = "), {"lntx": lntx, "Case": Case, "torch": torch})
    assert not lntx.prove_kernel(entry.wrong, entry.reference, *inputs).passed
    with pytest.raises(AssertionError, match="is not proved: forward: result 0"):
        lntx.assert_proved(lambda x: x + 1e-3, lambda x: x + 0, (torch.ones(2),))


def test_hard_inputs_are_drawn_anew_and_the_same() -> None:
    def reference(x: Tensor) -> Tensor:
        return torch.log(x.abs())

    cases = lntx.hard_inputs(reference, ("n", 4), seed=5, empty=True)
    kinds = {case.kind for case in cases}
    assert {"tiny", "cancelling", "not contiguous"} <= kinds
    assert not {"ties", "zeros"} & kinds, "the logarithm of 0 is not finite"
    assert {case.sizes["n"] for case in cases} >= {0, 1, 127}
    again = lntx.hard_inputs(reference, ("n", 4), seed=5, empty=True)
    assert all(torch.equal(one.inputs[0], other.inputs[0]) for one, other in zip(cases, again, strict=True))
    assert not next(case for case in cases if case.kind == "not contiguous").inputs[0].is_contiguous()
    with pytest.raises(BadInput, match="needs the shape of an input"):
        lntx.hard_inputs(torch.exp, torch.ones(3))
    with pytest.raises(BadInput, match="gives no finite numbers"):
        lntx.hard_inputs(lambda x: x / 0, ("n",))
    assert any(case.kind == "not finite" for case in lntx.hard_inputs(torch.abs, ("n", 4), nonfinite=True))


def test_operators_of_other_libraries_are_held_against_their_meaning() -> None:
    with torch.library._scoped_library("lntx_test", "DEF") as library:
        library.define("scaled(Tensor x, Tensor w) -> Tensor")
        library.define("wrong(Tensor x, Tensor w) -> Tensor")
        library.impl("scaled", _scaled, "CompositeExplicitAutograd")
        library.impl("wrong", lambda x, w: (x * w).mean(-1), "CompositeExplicitAutograd")
        x, w = torch.randn(40, 8), torch.randn(8)
        references = {"lntx_test::scaled": _scaled, "lntx_test::wrong": _scaled}
        with lntx.prove(references=references) as proof:
            torch.ops.lntx_test.scaled(x, w)
        assert proof.passed
        assert "lntx_test.scaled" in {row.operator for row in proof.in_order()}
        with lntx.prove(references=references) as proof:
            torch.ops.lntx_test.wrong(x, w)
        assert not proof.passed
        with lntx.prove() as proof:
            torch.ops.lntx_test.scaled(x, w)
        assert "references=" in proof.unchecked["lntx_test.scaled"].why


def _shifted(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, 1:] = x[:, :-1]
    return out


def test_what_was_tried_from_outside_stays_mended() -> None:
    """Each was once a false alarm, a traceback, or a fault that passed."""
    constant = torch.tensor([1.0, 2.0, 3.0])
    x = torch.randn(5, 3)
    for right in (
        _shifted,
        lambda x: x * constant,
        lambda x: torch.nn.functional.scaled_dot_product_attention(x[None], x[None], x[None]),
    ):
        assert lntx.prove_kernel(right, right, x).passed
    i, j = torch.arange(1, 97), torch.arange(3, 99)
    assert lntx.prove_kernel(lambda i, j: i * (1 / j), lambda i, j: i / j, i, j).passed
    marked = torch.randn(3, dtype=torch.complex64).conj().imag
    assert lntx.prove_kernel(lambda x: x * 2, lambda x: x * 2, marked).passed
    for reference, inputs, why in (
        (lambda x: (x * 7).int(), torch.arange(200.0) / 7, "a choice that rounding can decide"),
        (lambda x: x.amax(1), torch.randn(0, 3), "cannot be traced and bounded"),
        (lambda x: x * x.sum().item(), torch.randn(3), "cannot be traced and bounded"),
    ):
        proof = lntx.prove_kernel(reference, reference, inputs)
        assert not proof.passed
        assert why in (proof.reason or "")
    calls: list[int] = []

    def second(x: Tensor) -> Tensor:
        calls.append(1)
        return x * (1 + len(calls))

    infinity = float("inf")
    for kernel, reference, why in (
        (lambda x: x.masked_fill(x > 0, infinity), lambda x: x.masked_fill(x > 0, -infinity), "the true value is -inf"),
        (lambda x: x.half(), lambda x: x * 1, "result 0 is float16, not float32"),
        (second, lambda x: x * 2, "the second call on the same inputs is wrong"),
    ):
        assert why in (lntx.prove_kernel(kernel, reference, torch.ones(6)).reason or "")
    y = torch.randn(5, 3, requires_grad=True)
    proof = lntx.prove_kernel(
        lambda x, y: x * 2 + y * 1e-3 - y.detach() * 1e-3, lambda x, y: x * 2, x.requires_grad_(), y
    )
    assert "the reference does not depend on it" in (proof.reason or "")


def test_hypothesis_draws_the_same_cases() -> None:
    def reference(x: Tensor) -> Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-3)

    def wrong(x: Tensor) -> Tensor:
        return reference(x) * (1 + 1e-4 * (x.shape[0] > 2))

    cases = strategy(reference, ("n", 9), requires_grad=False)

    @settings(max_examples=25, deadline=None, suppress_health_check=[*HealthCheck], phases=[Phase.generate])
    @given(cases)
    def check(kernel: Any, case: Case) -> None:
        assert_proved(kernel, reference, [case])

    check(reference)
    with pytest.raises(AssertionError, match="wrong is not proved"):
        check(wrong)
