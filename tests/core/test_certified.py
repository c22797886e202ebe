"""NIST's certified values: the reference and the trained weights against them. Run: pytest tests/core/test_certified.py

The datasets and where they come from: tests/data/SOURCE.txt.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from commandline import DATA

from lntx import fit
from lntx.dataset import open_dataset, read_blocks
from lntx.reference import solve

CERTIFIED = json.loads((DATA / "certified.json").read_text())


def _digits(value: float | None, certified: str) -> float:
    assert value is not None
    error = abs(value - float(certified)) / abs(float(certified))
    return 15.0 if error == 0 else min(15.0, -math.log10(error))


@pytest.mark.parametrize(("name", "least"), [("NoInt1", 14.5), ("Norris", 11.0)])
def test_learned_weights_and_standard_errors_have_the_certified_digits(tmp_path: Path, name: str, least: float) -> None:
    certified = CERTIFIED[name]
    bias = certified["model"]["intercept"]
    run = fit(DATA / f"{name}.csv", target="y", bias=bias, root=tmp_path, until="evaluate")
    assert run.verdict == "pass"
    assert run.learned_weights is not None
    assert run.standard_errors is not None
    learned = [*([run.learned_bias] if bias else []), *run.learned_weights]
    errors = [*([run.bias_standard_error] if bias else []), *run.standard_errors]
    for value, expected in zip(learned, certified["coef"], strict=True):
        assert _digits(value, expected) >= least
    for value, expected in zip(errors, certified["std_err"], strict=True):
        assert _digits(value, expected) >= 13
    assert _digits(run.residual_sd, certified["residual_sd"]) >= 13
    assert _digits(run.r_squared, certified["r_squared"]) >= 14

    dataset = open_dataset(tmp_path / run.stages["generate"].files[0].path)
    reference = solve(lambda: read_blocks(dataset), bias=bias)
    exact = [*([reference.bias] if bias else []), *reference.weights]
    for value, expected in zip(exact, certified["coef"], strict=True):
        assert _digits(value, expected) >= 13.9
