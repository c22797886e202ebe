"""Whether a training step is the right program: `lntx.check_program`. Run: pytest tests/core/test_program.py"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from program_faults import FAULTS, RIGHT, Program

import lntx
from lntx.base.errors import BadInput
from lntx.proof.program import ProgramProof, check_program


def _checked(program: Program, seed: int, *, autocast: bool = False) -> ProgramProof:
    torch.manual_seed(seed)
    model = program.model()
    batch, optimizer = program.batch(), program.optimizer(model)

    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return program.loss(model, batch)

    return lntx.check_program(model, batch, loss, optimizer, **program.options)


@pytest.mark.parametrize("program", RIGHT, ids=lambda program: program.name)
@pytest.mark.parametrize("autocast", [False, True])
def test_a_right_program_passes_every_check(program: Program, autocast: bool) -> None:
    proof = _checked(program, 1, autocast=autocast)
    assert proof.passed, proof.reason
    assert all(check.passed for check in proof.checks), str(proof)


@pytest.mark.slow
@pytest.mark.parametrize("program", RIGHT, ids=lambda program: program.name)
def test_no_seed_makes_a_right_program_wrong(program: Program) -> None:
    for seed in range(20):
        for autocast in (False, True):
            proof = _checked(program, seed, autocast=autocast)
            assert proof.passed, (seed, autocast, proof.reason)


# Half of them here; all in `make test-all`.
@pytest.mark.parametrize(
    "program",
    [pytest.param(program, marks=pytest.mark.slow if place % 2 else ()) for place, program in enumerate(FAULTS)],
    ids=lambda program: program.name,
)
def test_a_fault_is_named_by_its_check(program: Program) -> None:
    proof = _checked(program, 1)
    wrong = {check.name: check.what for check in proof.checks if check.passed is False}
    assert not proof.passed
    assert program.where in wrong.get(program.check, ""), str(proof)


def test_the_model_and_the_optimiser_stay_as_they_were() -> None:
    torch.manual_seed(1)
    program = RIGHT[2]
    model = program.model()
    optimizer, batch = program.optimizer(model), program.batch()
    program.loss(model, batch).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    before, rng = copy.deepcopy((model.state_dict(), optimizer.state_dict())), torch.get_rng_state()
    grads = [p.grad for p in model.parameters()]
    lntx.check_program(model, batch, program.loss, optimizer)
    assert str(before) == str((model.state_dict(), optimizer.state_dict()))
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.get_default_dtype() == torch.float32
    assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))
    assert model.training


def test_what_cannot_be_checked_is_said() -> None:
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    proof = lntx.check_program(model, torch.randn(2, 3), lambda model, batch: model(batch).square().sum(), optimizer)
    assert proof.passed
    assert [check.name for check in proof.checks if check.passed is None] == ["rows do not depend on each other"]
    assert "it needs three rows or more" in str(proof)
    assert [*proof.rows.columns] == ["name", "passed", "what", "seconds", "required"]
    with pytest.raises(BadInput, match="the loss must be one finite number"):
        lntx.check_program(model, torch.randn(4, 3), lambda model, batch: model(batch), optimizer)
    with pytest.raises(BadInput, match="the batch holds no tensor"):
        lntx.check_program(model, "rows", lambda model, batch: model(batch), optimizer)


class _Noisy(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(6, 8), torch.nn.Linear(4, 2)
        self.seen: torch.Tensor | None = None
        self.register_buffer("step", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.step = self.step + 1
        mean, spread = self.one(x).chunk(2, -1)
        self.seen = mean
        return self.two(mean + torch.randn_like(mean) * (spread / 2).exp() if self.training else mean)


def test_right_programs_that_were_tried_from_outside_pass() -> None:
    """Noise, a kink that is hit exactly, frozen batch norm, a padded embedding, attributes of graphs."""
    nn = torch.nn

    def squares(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return model(batch).square().mean()

    torch.manual_seed(1)
    rows = torch.randn(6, 6)
    kinked = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    nn.init.zeros_(kinked[0].bias)  # type: ignore[arg-type]
    padded = rows.clone()
    padded[4:] = 0
    frozen = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    frozen[1].eval()
    words = nn.Sequential(nn.Embedding(7, 6, padding_idx=0), nn.Linear(6, 2))
    noisy = _Noisy()
    for model, batch in (
        (noisy, rows),
        (frozen, rows),
        (words, torch.randint(0, 7, (5, 4))),
        (nn.Sequential(nn.Linear(6, 6), nn.AlphaDropout(0.2), nn.Linear(6, 2)), rows),
    ):
        proof = lntx.check_program(model, batch, squares, torch.optim.SGD(model.parameters(), lr=0.1))
        assert proof.passed, f"{model}\n{proof}"
    assert noisy.step == 0
    assert noisy.seen is None
    proof = lntx.check_program(kinked, padded, squares, torch.optim.SGD(kinked.parameters(), lr=0.1))
    assert proof.checks[0].passed is not False, proof.reason


def test_what_is_asked_for_and_cannot_be_checked_is_no_pass() -> None:
    torch.manual_seed(1)
    program = RIGHT[0]
    model = program.model()
    optimizer, batch = program.optimizer(model), program.batch()
    proof = lntx.check_program(model, batch, program.loss, optimizer, mask="keeep")
    assert not proof.passed
    assert proof.reason == "outputs do not depend on padding: the batch has no tensor called 'keeep'"


class _Placed(torch.nn.Module):
    """Mixes positions by their differences, and, where it is absolute, adds a code of each."""

    def __init__(self, *, is_absolute: bool) -> None:
        super().__init__()
        self.mix, self.is_absolute = torch.nn.Linear(4, 4), is_absolute

    def forward(self, x: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        near = torch.softmax(-(where[:, :, None] - where[:, None, :]).abs().float(), -1)
        mixed: torch.Tensor = self.mix(near @ x)
        return mixed + 0.01 * where[..., None] if self.is_absolute else mixed


@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_relative_code_sees_differences_of_positions_alone(is_absolute: bool) -> None:
    model = _Placed(is_absolute=is_absolute)
    batch = {"x": torch.randn(3, 5, 4), "where": torch.arange(5).repeat(3, 1)}

    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        value: torch.Tensor = model(batch["x"], batch["where"]).square().mean()
        return value

    proof = check_program(model, batch, loss, torch.optim.SGD(model.parameters(), lr=0.1), positions="where")
    assert proof.passed is not is_absolute
    assert is_absolute is (proof.reason or "").startswith("outputs depend on differences of positions alone")
    missing = check_program(model, batch, loss, torch.optim.SGD(model.parameters(), lr=0.1), positions="nowhere")
    assert (
        missing.reason == "outputs depend on differences of positions alone: the batch has no tensor called 'nowhere'"
    )
