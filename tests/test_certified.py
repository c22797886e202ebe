"""NIST's certified values: the reference and the trained weights against them. Run: pytest tests/test_certified.py

The datasets and where they come from: tests/data/SOURCE.txt. They are fitted as a user would: `lntx fit` on a CSV.
"""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commandline import DATA, Cli
from exact import polynomial

CERTIFIED = json.loads((DATA / "certified.json").read_text())

# What the certified values' own 15 digits allow; a value above 15 cannot be told.
CEILINGS = {"NoInt1": 14.7, "Norris": 14.0, "Pontius": 13.5, "Wampler1": 15.0, "Wampler4": 15.0}


def _digits(value: float | None, certified: float) -> float:
    """Log relative error; of a certified 0, log absolute error, as NIST does."""
    assert value is not None
    error = abs(value - certified) / (abs(certified) or 1.0)
    return 15.0 if error == 0 else min(15.0, -math.log10(error))


def _fit(cli: Cli, path: Path, *, degree: int, bias: bool, **train: str) -> dict[str, Any]:
    options = [word for key, value in train.items() for word in (f"--train.{key}", value)]
    power = ["--polynomial", str(degree)] if degree > 1 else []
    arguments = [str(path), "--target", "y", "--features", "x", *power, "--bias" if bias else "--no-bias", *options]
    run: dict[str, Any] = cli("fit", *arguments, "--local", "--until", "evaluate", "--json").json
    return run


def _coefficients(run: dict[str, Any], what: str, bias: str) -> list[float]:
    return [*([run[bias]] if run[bias] is not None else []), *run[what]]


@pytest.mark.parametrize("name", CERTIFIED)
def test_reference_and_trained_weights_have_the_certified_digits(cli: Cli, name: str) -> None:
    certified = CERTIFIED[name]
    model = certified["model"]
    run = _fit(cli, DATA / f"{name}.csv", degree=model["degree"], bias=model["intercept"])
    assert run["verdict"] == "pass"
    for what, bias in (("learned_weights", "learned_bias"), ("reference_weights", "reference_bias")):
        found = _coefficients(run, what, bias)
        for value, expected in zip(found, certified["coef"], strict=True):
            assert _digits(value, float(expected)) >= CEILINGS[name], what
    errors = _coefficients(run, "standard_errors", "bias_standard_error")
    for value, expected in zip(errors, certified["std_err"], strict=True):
        assert _digits(value, float(expected)) >= 13.7
    assert _digits(run["residual_sd"], float(certified["residual_sd"])) >= 13.7
    assert _digits(run["r_squared"], float(certified["r_squared"])) >= 14
    assert len(run["features"]) == model["degree"]
    _check_f(run, certified)


def _check_f(run: dict[str, Any], certified: dict[str, Any]) -> None:
    """F and the adjusted R² follow from the certified residual sum of squares, and from the sum of squares of y."""
    freedom, bias = certified["residual_df"], certified["model"]["intercept"]
    assert run["degrees_of_freedom"] == freedom
    y = [Fraction(value) for value in _column(certified)]
    mean = sum(y) / len(y) if bias else Fraction(0)
    total = sum((value - mean) ** 2 for value in y)
    residual = Fraction(certified["residual_ss"])
    if residual == 0:
        assert run["f_statistic"] is None or run["f_statistic"] > 1e20
        return
    d = certified["model"]["degree"]
    assert _digits(run["f_statistic"], float((total - residual) / d / (residual / freedom))) >= 13
    adjusted = 1 - residual / freedom / (total / (len(y) - bias))
    assert _digits(run["adjusted_r_squared"], float(adjusted)) >= 14


def _column(certified: dict[str, Any]) -> list[str]:
    name = next(name for name, values in CERTIFIED.items() if values is certified)
    return [line.split(",")[0] for line in (DATA / f"{name}.csv").read_text().split()[1:]]


@pytest.mark.parametrize("gradient", ["moments", "autograd"])
def test_the_certified_digits_do_not_depend_on_the_gradient(cli: Cli, gradient: str) -> None:
    """Where float64 gradients can reach them: with small residuals, or few powers."""
    for name in ("NoInt1", "Norris", "Pontius", "Wampler1"):
        model = CERTIFIED[name]["model"]
        run = _fit(cli, DATA / f"{name}.csv", degree=model["degree"], bias=model["intercept"], gradient=gradient)
        assert run["gradient"] == gradient
        found = _coefficients(run, "learned_weights", "learned_bias")
        for value, expected in zip(found, CERTIFIED[name]["coef"], strict=True):
            assert _digits(value, float(expected)) >= CEILINGS[name]


def test_a_polynomial_of_degree_ten_is_solved_to_the_last_bit(cli: Cli, tmp_path: Path) -> None:
    """Powers up to x^10 of 9-digit numbers, condition number 10^15: the exact solution is found by fractions."""
    generator = np.random.Generator(np.random.PCG64(1))
    x = np.round(generator.uniform(-8.8, -3.1, 82), 9)
    y = np.round(0.85 + 0.07 * np.sin(x) + generator.normal(0, 0.003, 82), 4)
    (tmp_path / "rows.csv").write_text(
        "y,x\n" + "".join(f"{b!r},{a!r}\n" for a, b in zip(x.tolist(), y.tolist(), strict=True))
    )
    run = _fit(cli, tmp_path / "rows.csv", degree=10, bias=True)
    exact = polynomial(x.tolist(), y.tolist(), 10)
    assert [run["reference_bias"], *run["reference_weights"]] == exact
    learned = [run["learned_bias"], *run["learned_weights"]]
    assert all(_digits(value, answer) >= 15 for value, answer in zip(learned, exact, strict=True))


def test_huge_residuals_cost_no_digits(cli: Cli, tmp_path: Path) -> None:
    """A hundred times the residuals of Wampler4, which no float64 least-squares solver survives."""
    rows = [line.split(",") for line in (DATA / "Wampler4.csv").read_text().split()[1:]]
    x = [float(row[1]) for row in rows]
    smooth = [sum(value**k for k in range(6)) for value in x]
    y = [100 * (float(row[0]) - line) + line for row, line in zip(rows, smooth, strict=True)]
    (tmp_path / "rows.csv").write_text("y,x\n" + "".join(f"{b!r},{a!r}\n" for a, b in zip(x, y, strict=True)))
    run = _fit(cli, tmp_path / "rows.csv", degree=5, bias=True)
    assert [run["reference_bias"], *run["reference_weights"]] == [1.0] * 6
    assert [run["learned_bias"], *run["learned_weights"]] == [1.0] * 6
