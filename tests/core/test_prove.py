"""`lntx.prove`: a training step is checked while it runs. Run: pytest tests/core/test_prove.py"""

from __future__ import annotations

import json
import math
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from more_proof_faults import MORE_FAULTS, is_caught
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import lntx
from lntx.base.errors import BadInput, LntxError, WrongAnswer
from lntx.canary.operators.faults import PROOF_FAULTS, prove_with


def _model() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3))
    return model, torch.randn(5, 7), torch.tensor([0, 1, 2, 0, 1])


def _train(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, steps: int = 2) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return optimizer


def test_a_right_step_passes_with_all_its_work_checked() -> None:
    model, inputs, targets = _model()
    with lntx.prove(seed=1) as proof:
        _train(model, inputs, targets)
    assert (proof.passed, proof.reason, proof.unchecked, proof.checked_products) == (True, None, {}, 1.0)
    rows = proof.rows
    assert {"addmm", "gelu_backward", "AdamW.step"} <= set(rows["operator"])
    assert set(rows["phase"]) == {"forward", "backward", "optimizer"}
    assert rows["largest"].between(0, 1).all()
    assert str(proof).endswith("none over its bound")


@pytest.mark.parametrize("threads", [1, 2])
def test_training_is_the_same_to_the_bit(threads: int) -> None:
    """Looking changes nothing: weights, moments and the random state are those of an unwatched training."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        states = []
        for watched in (False, True):
            model, inputs, targets = _model()
            model.insert(1, nn.Dropout(0.5))  # type: ignore[operator]
            if watched:
                with lntx.prove():
                    optimizer = _train(model, inputs, targets)
            else:
                optimizer = _train(model, inputs, targets)
            moments = [one["exp_avg_sq"] for one in optimizer.state.values()]
            states.append([*model.parameters(), *moments, torch.get_rng_state()])
        assert all(torch.equal(left, right) for left, right in zip(*states, strict=True))
    finally:
        torch.set_num_threads(before)


class _Wrong(TorchDispatchMode):
    """Moves one element of each product by a relative 1e-4."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.mm.default:
            out[0, 0] *= 1 + 1e-4
        return out


def test_a_wrong_kernel_is_named_with_element_value_truth_and_bound() -> None:
    model, inputs, targets = _model()
    with _Wrong(), lntx.prove() as proof:
        _train(model, inputs, targets, steps=1)
    assert not proof.passed
    assert proof.reason is not None
    assert proof.reason.startswith("backward: mm (float32, call ")
    assert "result 0[0, 0] is " in proof.reason
    assert "the true value is " in proof.reason
    assert "rounding allows " in proof.reason
    assert {one.operator for one in proof.wrong} == {"mm"}


def test_bits_that_change_between_operators_are_found() -> None:
    """A program that writes without torch: here numpy, on memory that a tensor shares."""
    shared = np.ones(8, dtype=np.float32)
    tensor = torch.from_numpy(shared)
    with lntx.prove() as proof:
        tensor.add_(1)
        shared.view(np.int32)[3] ^= 1
        tensor.mul(2)
    assert proof.reason is not None
    assert (
        "bits changed after add (forward, call 1) wrote them and before mul (forward, call 2) read them" in proof.reason
    )


def test_what_is_not_checked_is_named() -> None:
    with lntx.prove() as proof:
        torch.nn.functional.embedding_bag(torch.tensor([[0, 1]]), torch.randn(2, 3))
        torch.randn(3)
        torch.ones(3).add(1)
    assert proof.passed
    assert {name: one.why for name, one in proof.unchecked.items()} == {
        "randn": "its values are random",
        "_embedding_bag_forward_only": "it has no formula",
    }
    assert "not checked: _embedding_bag_forward_only, 1 calls: it has no formula" in str(proof)
    assert 0 < proof.checked_calls < 1


def test_an_error_in_the_block_goes_on_and_leaves_nothing_behind() -> None:
    model, inputs, targets = _model()
    watched = lntx.prove()
    proof = watched.__enter__()
    model(inputs)
    watched.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    seen = proof.calls
    _train(model, inputs, targets)
    assert proof.calls == seen
    assert len(proof.table) > 0


def test_an_empty_block_proves_nothing() -> None:
    with lntx.prove() as proof:
        pass
    assert (proof.passed, proof.reason) == (False, "no operator was seen: put the step inside the block")
    with pytest.raises(BadInput, match="sample must be at least 2, got 1"):
        lntx.prove(sample=1)


def test_numbers_that_are_not_finite_are_no_fault() -> None:
    """Masks of minus infinity, and a training that diverges."""
    with lntx.prove() as proof:
        scores = torch.randn(2, 4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), -math.inf)
        scores.softmax(-1).log().exp().sum()
        (torch.full((3,), 1e38) * 10).sub(torch.full((3,), math.inf)).relu()
    assert proof.passed, proof.reason


ALL_FAULTS = {fault.name: fault for fault in (*PROOF_FAULTS.values(), *MORE_FAULTS)}
_QUICK = (
    "attention-scale",
    "product-tf32",
    "memory-activation",
    "memory-weight",
    "adam-correction",
    "betas",
    "clip-norm",
)


@pytest.mark.parametrize(
    "name", [one if one in _QUICK else pytest.param(one, marks=pytest.mark.slow) for one in ALL_FAULTS]
)
def test_a_planted_fault_is_caught_and_the_right_part_is_blamed(name: str) -> None:
    fault = ALL_FAULTS[name]
    proof = prove_with(fault, seed=7)
    assert is_caught(fault, proof), (proof.reason, [one.operator for one in proof.wrong])
    if name in ("product-tf32", "product-bfloat16"):
        assert proof.reason is not None
        assert f"rounded to {'TF32' if name.endswith('32') else 'bfloat16'}" in proof.reason


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["float32", "bfloat16", "autocast"])
def test_models_that_it_was_not_made_for(mode: str) -> None:
    """At least 95 % of operators and of multiply-adds are checked, without an alarm."""
    from benchmarks.proof_models import models

    dtype = torch.bfloat16 if mode == "bfloat16" else torch.float32
    for name, model, inputs, loss in models():
        optimizer = torch.optim.AdamW(model.to(dtype).parameters())
        batch = inputs().to(dtype)
        with lntx.prove() as proof:
            for _ in range(2):
                optimizer.zero_grad()
                with torch.autocast("cpu", enabled=mode == "autocast"):
                    out = model(batch)
                loss(out.float()).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        assert proof.passed, (name, proof.reason)
        assert min(proof.checked_calls, proof.checked_products) >= 0.95, (name, str(proof))


def test_three_lines_are_enough(tmp_path: Path) -> None:
    """As the documentation shows them."""
    model, inputs, targets = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with lntx.prove(sample=16) as proof:
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    (tmp_path / "proof.txt").write_text(str(proof))
    assert "SGD.step" in (tmp_path / "proof.txt").read_text()


def _closure() -> None:
    weight = nn.Parameter(torch.randn(4))
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = (weight**2).sum()
        found.backward()
        return found

    optimizer.step(loss)  # type: ignore[arg-type]


def _scaled_gradients() -> None:
    model, inputs, targets = _model()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(model(inputs), targets)).backward()
        scaler.step(optimizer)
        scaler.update()


def _own_hooks() -> None:
    model, inputs, targets = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.register_step_post_hook(lambda *_: [one.data.clamp_(-0.1, 0.1) for one in model.parameters()] and None)
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()


def _clipped_values() -> None:
    model, inputs, targets = _model()
    (100 * nn.functional.cross_entropy(model(inputs), targets)).backward()
    nn.utils.clip_grad_value_(model.parameters(), 0.5)


def _scalars_of_other_formats() -> None:
    torch.randn(1000) * torch.tensor(0.1, dtype=torch.float64)
    torch.randn(100).bfloat16() + torch.tensor(0.1)
    torch.randn(100).half().sub(3.14159)


def _whole_numbers() -> None:
    torch.tensor([200], dtype=torch.uint8) + torch.tensor([100], dtype=torch.uint8)
    torch.tensor([True]) + torch.tensor([True])
    torch.tensor([300]).to(torch.uint8)
    torch.tensor(3).sum(0)


def _forward_derivative() -> None:
    """Tensors of zeros without memory."""
    torch.func.jvp(nn.Linear(6, 8), (torch.randn(2, 6),), (torch.randn(2, 6),))


def _poles() -> None:
    """What IEEE arithmetic gives at a pole and beyond the largest number, the sign of a zero included."""
    for dtype in (torch.float32, torch.float64):
        zeros, ones = torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)
        for _ in (
            ones / zeros,
            ones / -zeros,
            ones / 0.0,
            zeros.log(),
            zeros.rsqrt(),
            zeros.reciprocal(),
            -ones.sqrt(),
        ):
            pass
        (1000 * ones).exp().sub(math.inf)
        torch.full((2, 3), -math.inf, dtype=dtype).softmax(-1)
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.RAdam([weight], foreach=True)
    weight.grad = torch.ones_like(weight)
    optimizer.step()


def _memory_that_others_fill() -> None:
    """numpy, C++, and a storage that is released and comes back, as with FSDP2."""
    empty = torch.empty(10)
    empty.numpy()[:] = 3
    (empty * 2).sum()
    scores = torch.randn(5, 2, 4).log_softmax(-1)
    nn.CTCLoss()(scores, torch.tensor([[1, 2], [2, 3]]), (5, 5), (2, 2))
    doubled = torch.randn(10) * 2
    size = doubled.untyped_storage().nbytes()
    doubled.untyped_storage().resize_(0)
    doubled.untyped_storage().resize_(size)
    doubled.copy_(torch.randn(10)).add(1)


def _without_axes() -> None:
    number, index = torch.randn(()), torch.tensor(0)
    number.clone().scatter(0, index, 1.0)
    number.index_select(0, index[None])
    torch.randn(5).gather(0, torch.tensor(2))
    torch.randn(3, dtype=torch.complex64).conj().clone()
    nn.functional.pad(torch.randn(4, 4), (1, -1, -2, 1))


def _other_formats() -> None:
    torch.ones(2).add(1)
    torch.randn(3, dtype=torch.complex64) * torch.randn(3, dtype=torch.complex64)
    torch.randn(8).to(torch.float8_e4m3fn)


@pytest.mark.parametrize(
    "program",
    [
        _closure, _scaled_gradients, _own_hooks, _clipped_values, _scalars_of_other_formats, _whole_numbers,
        _forward_derivative, _other_formats, _poles, _memory_that_others_fill, _without_axes,
    ],
)  # fmt: skip
def test_programs_of_every_kind_raise_no_alarm(program: Callable[[], None]) -> None:
    with lntx.prove(seed=0) as proof:
        program()
    assert proof.passed, proof.reason
    assert not any("failed" in one.why for one in proof.unchecked.values()), proof.unchecked


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_attention_whose_heads_share_keys_is_checked(dtype: torch.dtype) -> None:
    """As in Llama: forward and all gradients; a wrong element of any of them is seen."""
    torch.manual_seed(0)
    shapes = ((2, 6, 9, 8), (2, 2, 9, 8), (2, 2, 9, 8))
    tensors = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]

    def step() -> None:
        attention = nn.functional.scaled_dot_product_attention(*tensors, is_causal=True, enable_gqa=True)
        torch.autograd.grad(attention.square().sum(), tensors)

    with lntx.prove(seed=1) as proof:
        step()
    assert proof.passed, proof.reason
    assert not [name for name in proof.unchecked if "attention" in name]
    assert proof.checked_products == 1.0
    with lntx.prove(seed=1) as unseen, _Doubled("_scaled_dot_product_flash_attention_for_cpu", None):
        step()
    assert unseen.passed, "nothing is changed"
    for name in ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward"):
        if name not in proof.operators:
            # Older versions of torch compute it from products.
            continue
        for slot in range(1 if not name.endswith("backward") else 3):
            with _Doubled(name, slot), lntx.prove(seed=1) as wrong:
                step()
            assert [row.operator for row in wrong.wrong][:1] == [name], (name, slot)


class _Doubled(TorchDispatchMode):
    """Doubles one result of an operator; none if slot is None."""

    def __init__(self, name: str, slot: int | None) -> None:
        super().__init__()
        self.name, self.slot = name, slot

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.slot is None or func._schema.name != f"aten::{self.name}":
            return out
        if isinstance(out, torch.Tensor):
            return 2 * out
        return tuple(2 * part if k == self.slot else part for k, part in enumerate(out))


def test_a_wrong_result_says_where_and_a_gate_can_require() -> None:
    with _Doubled("gelu", 0), lntx.prove(seed=1) as proof:
        torch.randn(2, 3).add(1)
        nn.functional.gelu(torch.ones(2, 3))
    (wrong,) = proof.wrong
    assert (wrong.operator, wrong.call, wrong.file) == ("gelu", 4, __file__)
    assert wrong.index == (0, 0)
    assert (wrong.value, wrong.true) == (pytest.approx(1.68269, rel=1e-4), pytest.approx(0.841345, rel=1e-4))
    assert f"first seen at {__file__}, line {wrong.line}" in str(proof)
    assert repr(proof).startswith("<Proof: FAIL  forward: gelu (float32, call 4): result 0[0, 0] is 1.68")
    with pytest.raises(WrongAnswer, match="forward: gelu"):
        proof.raise_if_failed()
    content = json.loads(proof.to_json())
    assert (content["passed"], content["wrong"][0]["index"]) == (False, [0, 0])
    assert content["unchecked"]["randn"]["calls"] == 1
    with lntx.prove() as right:
        torch.ones(3).add(1)
        torch.nn.functional.embedding_bag(torch.tensor([[0, 1]]), torch.ones(2, 3))
    right.raise_if_failed()
    right.require(calls=0.3)
    with pytest.raises(LntxError, match="were checked, 95 % are required; not checked: _embedding_bag_forward_only"):
        right.require(calls=0.95)


def test_a_step_that_lost_its_state_is_wrong() -> None:
    model, inputs, targets = _model()
    optimizer = torch.optim.Adam(model.parameters())
    with lntx.prove() as proof:
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            optimizer.state.clear()
    assert proof.reason is not None
    assert "optimizer: Adam.step: the number of its steps went from 1 to 0 between two steps" in proof.reason


def test_one_object_proves_one_block_at_a_time() -> None:
    watched = lntx.prove()
    with watched, pytest.raises(BadInput, match="this proof is running"):
        watched.__enter__()


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        hidden = torch.sigmoid(self.inner(rows))
        return torch.tanh(self.out(hidden))


class _Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Block() for _ in range(3)])

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            rows = layer(rows)
        return rows


class _Nth(TorchDispatchMode):
    """Makes one call of an operator wrong."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__()
        self.name, self.left = name, number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._schema.name == f"aten::{self.name}":
            self.left -= 1
            return out * 1.01 if self.left == 0 else out
        return out


@pytest.mark.parametrize(
    ("operator", "number", "module", "text"),
    [
        ("tanh", 2, "layers.1", "torch.tanh("),
        ("addmm", 6, "layers.2.out", "torch.tanh(self.out("),
        # Backward, the last layer first: the module and the line are those of the forward call.
        ("tanh_backward", 1, "layers.2", "torch.tanh("),
        ("sigmoid_backward", 3, "layers.0", "torch.sigmoid("),
    ],
)
def test_a_wrong_result_names_the_module_and_the_line(operator: str, number: int, module: str, text: str) -> None:
    torch.manual_seed(0)
    model, rows = _Blocks(), torch.randn(4, 8)
    with _Nth(operator, number), lntx.prove() as proof:
        model(rows).square().sum().backward()
    wrong = proof.wrong[0]
    assert (wrong.operator, wrong.module, wrong.file) == (operator, module, __file__)
    assert wrong.line is not None
    assert text in Path(__file__).read_text().splitlines()[wrong.line - 1]
    assert wrong.what.endswith(f"(at {module}, {Path(__file__).name}, line {wrong.line})")


def test_a_wrong_step_names_the_parameter() -> None:
    torch.manual_seed(0)
    model, rows = _Blocks(), torch.randn(4, 8)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    with lntx.prove() as proof:
        model(rows).square().sum().backward()
        step = torch.optim.AdamW._init_group

        def swap(self: Any, group: Any, params: list[Any], grads: list[Any], *more: Any) -> Any:
            result = step(self, group, params, grads, *more)
            grads[2] = grads[2] * 2
            return result

        with unittest.mock.patch.object(torch.optim.AdamW, "_init_group", swap):
            optimizer.step()
    wrong = next(wrong for wrong in proof.wrong if wrong.operator == "AdamW.step")
    assert wrong.module == [name for name, _ in model.named_parameters()][2] == "layers.0.out.weight"
