"""One wrong element of a large result, and views that lie wrong: what a sample does not see.

Run: pytest tests/core/test_whole.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import lntx
from lntx.base.errors import BadInput, WrongAnswer


class _Changed(TorchDispatchMode):
    """Changes what one operator returns."""

    def __init__(self, name: str, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name, self._change = name, change

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return self._change(out) if func._schema.name == f"aten::{self._name}" else out


def _one_element(size: float) -> Callable[[Tensor], Tensor]:
    """Move one element far from both ends by a part of the usual size."""

    def change(out: Tensor) -> Tensor:
        changed = out.clone()
        changed.view(-1)[out.numel() * 2 // 3 + 7] += size * out.abs().float().mean().to(out.dtype)
        return changed

    return change


_TOKENS = torch.randint(0, 1000, (4096,), generator=torch.Generator().manual_seed(1))


def _left_out(out: Tensor) -> Tensor:
    """Leave one token out of the gradient of an embedding."""
    changed = out.clone()
    changed[_TOKENS[100]] -= 1
    return changed


def _draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def _embed() -> None:
    embedding = torch.nn.Embedding(1000, 64)
    embedding(_TOKENS).sum().backward()


_RUNS: dict[str, tuple[float, Callable[[], Any]]] = {
    "mm": (0.1, lambda: _draw(300, 256) @ _draw(256, 400)),
    "addmm": (0.1, lambda: torch.addmm(_draw(400), _draw(300, 256), _draw(256, 400))),
    "bmm": (0.1, lambda: torch.bmm(_draw(3, 300, 256), _draw(3, 256, 400))),
    "convolution": (0.01, lambda: torch.nn.functional.conv2d(_draw(8, 16, 32, 32), _draw(24, 16, 3, 3), _draw(24))),
    "index_add": (0.01, lambda: torch.zeros(1000, 64).index_add(0, _TOKENS, _draw(4096, 64))),
    "scatter_add": (0.01, lambda: torch.zeros(64, 500).scatter_add(1, (_TOKENS % 500).expand(64, -1), _draw(64, 4096))),
}
"""By operator: the smallest error of one element that is caught, relative to the usual element; and a call."""


@pytest.mark.parametrize("name", _RUNS)
def test_one_wrong_element_is_named(name: str) -> None:
    size, run = _RUNS[name]
    with _Changed(name, _one_element(size)), lntx.prove(seed=1) as proof:
        run()
    (wrong,) = proof.wrong
    assert wrong.operator == name
    assert wrong.value is not None
    assert wrong.true is not None
    assert abs(wrong.value - wrong.true) > 0
    with lntx.prove(seed=1) as proof:
        run()
    assert proof.passed, proof.reason


@pytest.mark.parametrize("name", _RUNS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_element_that_is_no_number_is_named(name: str, value: float, dtype: torch.dtype) -> None:
    def change(out: Tensor) -> Tensor:
        changed = out.clone()
        changed.view(-1)[out.numel() * 2 // 3 + 7] = value
        return changed

    run = _RUNS[name][1]
    autocast = torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16)
    with autocast, _Changed(name, change), lntx.prove(seed=1) as proof:
        run()
    assert [wrong.operator for wrong in proof.wrong][:1] == [name]


def test_infinities_and_zeros_that_are_right_are_no_alarm() -> None:
    left, right = _draw(300, 256), _draw(256, 400)
    left[3], right[:, 200:] = 0.0, 0.0
    left[5, 7] = float("inf")
    with lntx.prove(seed=1) as proof:
        torch.addmm(torch.full((400,), -float("inf")), left, right)
        torch.addmm(_draw(400), left, right)
        left @ right
    assert proof.passed, proof.reason


def test_a_token_that_is_left_out_of_a_gradient_is_seen() -> None:
    with _Changed("embedding_dense_backward", _left_out), lntx.prove(seed=1) as proof:
        _embed()
    assert proof.wrong[0].operator == "embedding_dense_backward"
    assert proof.wrong[0].index is not None
    assert proof.wrong[0].index[0] == int(_TOKENS[100])


def _moved(out: Tensor) -> Tensor:
    return out.as_strided(out.shape, out.stride(), out.storage_offset() + 1)


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("slice", _moved, "slice returns a view with the offset 9, not 8"),
        ("view", torch.clone, "view returns a view of another storage"),
        ("expand", lambda out: out.as_strided(out.shape, (1, 1)), "expand returns a view with the strides"),
        ("view", lambda out: out.as_strided((4, 12), (12, 1)), r"view returns a view with the shape \(4, 12\)"),
    ],
)
def test_a_view_that_lies_wrong_is_named(name: str, change: Callable[[Tensor], Tensor], what: str) -> None:
    x = _draw(6, 8)
    with _Changed(name, change), lntx.prove(seed=1) as proof:
        x[1:4].transpose(0, 1).sum()
        x[:, :1].expand(6, 8).sum()
        x.view(8, 6).sum()
    with pytest.raises(WrongAnswer, match=what):
        proof.raise_if_failed()


def _training() -> tuple[torch.nn.Module, torch.optim.Optimizer, Callable[[], None]]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    inputs, targets = _draw(12, 8), torch.arange(12) % 4

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()

    return model, optimizer, step


def _flip(tensor: Tensor) -> None:
    """Flip a bit where torch does not see it."""
    tensor.detach().numpy().view("int32").reshape(-1)[3] ^= 1 << 12


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("what", ["exp_avg of 0.weight", "2.bias", "1.running_mean"])
def test_a_bit_that_flips_between_two_steps_is_seen(every: int, what: str) -> None:
    model, optimizer, step = _training()
    prover = lntx.prove(seed=1, every=every, model=model)
    for _ in range(5):
        with prover.step() as proof:
            step()
    assert proof.passed, proof.reason
    calls = proof.calls
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors["exp_avg of 0.weight"] = optimizer.state[model.get_parameter("0.weight")]["exp_avg"]
    _flip(tensors[what])
    with prover.step() as proof:
        step()
    assert proof.wrong[0].operator == "memory"
    assert f"{what} changed between steps 5 and 6" in proof.wrong[0].what
    assert (proof.calls > calls) is (every == 1)


def test_what_torch_writes_between_two_steps_is_no_fault() -> None:
    model, _, step = _training()
    prover = lntx.prove(seed=1, every=2, model=model)
    for _ in range(4):
        with prover.step():
            step()
        with torch.no_grad():
            model.get_parameter("2.bias").mul_(0.9)
        model.load_state_dict(model.state_dict())
    assert prover.proof.passed, prover.proof.reason
    with pytest.raises(BadInput, match="every is 1 or more, got 0"):
        lntx.prove(every=0)
