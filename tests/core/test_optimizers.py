"""Whole steps of torch's optimisers: right ones pass in every form, and a step with another setting does not.

Run: pytest tests/core/test_optimizers.py
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lntx

# The options of each that change its formula, beside those of all.
OPTIONS: dict[str, dict[str, list[Any]]] = {
    "RMSprop": {"centered": [False, True], "momentum": [0, 0.9]},
    "Adagrad": {"lr_decay": [0, 0.1], "initial_accumulator_value": [0, 0.5]},
    "Adadelta": {"rho": [0.9, 0.5]},
    "Adamax": {"betas": [(0.9, 0.999), (0.5, 0.9)]},
    "NAdam": {"momentum_decay": [0.004, 0.5], "decoupled_weight_decay": [False, True]},
    "RAdam": {"betas": [(0.9, 0.999), (0.5, 0.8)], "decoupled_weight_decay": [False, True]},
    "ASGD": {"lambd": [1e-4, 0.1], "t0": [1e6, 2]},
    "Rprop": {"etas": [(0.5, 1.2), (0.3, 1.7)], "step_sizes": [(1e-6, 50), (5e-3, 0.02)]},
}
CHANGED = {"Rprop": "etaplus"}
"""What the function of an optimiser is called with that a fault changes, where it is not lr."""


def trained(name: str, dtype: torch.dtype, seed: int, options: dict[str, Any], *, steps: int = 6) -> Any:
    torch.manual_seed(seed)
    parameters = [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in ((3, 4), (5,))]
    optimizer = getattr(torch.optim, name)(parameters, lr=0.01, **options)
    targets = [torch.randn_like(parameter) for parameter in parameters]
    with lntx.prove(seed=1) as proof:
        for _ in range(steps):
            optimizer.zero_grad()
            for parameter, target in zip(parameters, targets, strict=True):
                ((parameter - target) ** 2).sum().backward()
            optimizer.step()
    return proof


@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=10, deadline=None)
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64]), seed=st.integers(0, 10_000))
def test_a_right_step_passes(name: str, data: st.DataObject, dtype: torch.dtype, seed: int) -> None:
    options = {key: data.draw(st.sampled_from(values), key) for key, values in OPTIONS[name].items()}
    options |= {"foreach": data.draw(st.booleans(), "foreach"), "maximize": data.draw(st.booleans(), "maximize")}
    if name != "Rprop":
        options["weight_decay"] = data.draw(st.sampled_from([0, 0.1]), "weight_decay")
    proof = trained(name, dtype, seed, options)
    assert proof.passed, proof.reason
    assert f"{name}.step" in proof.operators
    assert f"{name}.step" not in proof.unchecked


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("foreach", [False, True])
def test_a_step_with_another_rate_is_wrong(
    name: str, dtype: torch.dtype, foreach: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a thousandth in float32, by a hundred-millionth in float64 (by more where the optimiser keeps its own numbers
    in float32); every operator in it is right.
    """
    module = importlib.import_module(f"torch.optim.{name.lower()}")
    function, setting = getattr(module, name.lower()), CHANGED.get(name, "lr")
    factor = 1 + (1e-3 if dtype == torch.float32 else 1e-5 if name in ("NAdam", "ASGD") else 1e-8)

    def changed(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **{**kwargs, setting: kwargs[setting] * factor})

    monkeypatch.setattr(module, name.lower(), changed)
    proof = trained(name, dtype, 3, {"foreach": foreach})
    assert not proof.passed
    assert {wrong.operator for wrong in proof.wrong} == {f"{name}.step"}
