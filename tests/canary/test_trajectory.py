"""The path of descent: the closed form itself, and what counts as leaving it. Run: pytest tests/canary"""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lntx.canary.oracle.path_check import PathCheck
from lntx.canary.oracle.sums import mean_products
from lntx.canary.oracle.trajectory import follow
from lntx.config.schema import Pipeline
from lntx.data.dataset import open_dataset
from lntx.data.synthetic import feature_names, generate_blocks, generate_dataset
from lntx.numerics.gram import Gram
from lntx.training.fit import fit
from lntx.training.result import Epoch, Fit

DATA = {"weights": (3.7, -1.2), "bias": 2.0, "num_rows": 500, "low": -3, "high": 3}


def _train(folder: Path, data: dict[str, Any] | None = None, **train: Any) -> tuple[Pipeline, Fit, list[Epoch]]:
    settings = {"gradient": "autograd", "precondition": "none", **train}
    config = Pipeline.model_validate({"data": {**DATA, **(data or {})}, "train": settings})
    generate_dataset(config.data, folder / "rows.parquet")
    _, found, history = fit(open_dataset(folder / "rows.parquet"), config.train, bias=config.learns_bias)
    return config, found, history


def _follow(config: Pipeline, found: Fit, history: list[Epoch], **changes: Any) -> PathCheck:
    settings = {
        "learning_rate": found.learning_rate,
        "stable_limit": found.stable_limit,
        "momentum": found.momentum,
        "dtype": found.dtype,
        **changes,
    }
    names = feature_names(len(found.weights))
    return follow(history, generate_blocks(config.data), features=names, **settings)


def _power(matrix: list[list[Fraction]], exponent: int) -> list[list[Fraction]]:
    size = range(len(matrix))
    made = [[Fraction(i == j) for j in size] for i in size]
    for _ in range(exponent):
        made = [[sum((made[i][k] * matrix[k][j] for k in size), Fraction()) for j in size] for i in size]
    return made


def test_the_path_is_the_closed_form(tmp_path: Path) -> None:
    """w_k = w* + (I − lr·H)^k (w_0 − w*), in rational numbers, is where training is and what it is held against."""
    config, found, history = _train(tmp_path, {"num_rows": 20, "noise": 0.5}, max_epochs=12)
    ((x, y),) = generate_blocks(config.data)
    rows = [[Fraction(int(a)), Fraction(int(b)), Fraction(1)] for a, b in x]
    target = [Fraction(float(value)) for value in y]
    size, rate = range(3), Fraction(found.learning_rate)
    hessian = [[2 * sum((r[i] * r[j] for r in rows), Fraction()) / 20 for j in size] for i in size]
    step = [[Fraction(i == j) - rate * hessian[i][j] for j in size] for i in size]
    check = _follow(config, found, history)
    assert check.departure is None
    best = np.linalg.lstsq(np.column_stack([x, np.ones(20)]).astype(float), y, rcond=None)[0]
    assert check.solution == pytest.approx(tuple(best), rel=1e-12)
    slope = [2 * sum((r[i] * t for r, t in zip(rows, target, strict=True)), Fraction()) / 20 for i in size]
    solution = _solve(hessian, slope)
    for k in (1, 5, 12):
        away = [Fraction(value) - answer for value, answer in zip(history[0].coefficients, solution, strict=True)]
        power = _power(step, k)
        expected = [float(solution[i] + sum((power[i][j] * away[j] for j in size), Fraction())) for i in size]
        assert history[k].coefficients == pytest.approx(expected, rel=1e-13)
        # One weight moved by a part in 10^11 is off the path, and the epoch is named.
        moved = [*history]
        moved[k] = moved[k].model_copy(update={"weights": (expected[0] * (1 + 1e-11), *expected[1:2])})
        left = _follow(config, found, moved).departure
        assert left is not None
        assert (left.epoch, left.what) == (k, "x1")
        assert left.expected == pytest.approx(expected[0], rel=1e-15)


def _solve(matrix: list[list[Fraction]], right: list[Fraction]) -> list[Fraction]:
    """Cramer's rule, which nothing else here uses."""

    def det(m: list[list[Fraction]]) -> Fraction:
        (a, b, c), (d, e, f), (g, h, i) = m
        return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)

    whole = det(matrix)
    return [
        det([[*row[:j], value, *row[j + 1 :]] for row, value in zip(matrix, right, strict=True)]) / whole
        for j in range(3)
    ]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("momentum", [0.0, 0.25, 0.9])
@pytest.mark.parametrize(
    "data",
    [{}, {"noise": 1.0, "distribution": "uniform", "num_rows": 9000}, {"weights": (3.7,), "bias": 0.0, "low": 1}],
)
def test_training_keeps_to_the_path(tmp_path: Path, dtype: str, momentum: float, data: dict[str, Any]) -> None:
    """In both dtypes, with momentum, with noise, up to rounding alone: far within the bound."""
    config, found, history = _train(tmp_path, data, dtype=dtype, momentum=momentum)
    check = _follow(config, found, history)
    assert check.departure is None
    assert 0 < check.worst < 0.1
    assert check.epochs == len(history) - 1
    assert check.rate_is_right
    assert not _follow(config, found, history, stable_limit=found.stable_limit * 1.001).rate_is_right


def test_the_bound_is_of_the_size_of_the_dtype(tmp_path: Path) -> None:
    """What a step may hide is about the rows times the unit of rounding: the limit that is stated."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    double = _follow(*_train(tmp_path / "a"))
    single = _follow(*_train(tmp_path / "b", dtype="float32"))
    assert 1e-14 < double.visible < 1e-11
    assert 1e-6 < single.visible < 1e-3


@pytest.mark.parametrize("change", [{"momentum": 0.2501}, {"learning_rate": 0.2}])
def test_other_settings_are_another_path(tmp_path: Path, change: dict[str, float]) -> None:
    config, found, history = _train(tmp_path, momentum=0.25)
    left = _follow(config, found, history, **change).departure
    assert left is not None
    assert left.epoch == (1 if "learning_rate" in change else 2), "momentum begins with the second step"


def test_a_wrong_loss_is_off_the_path(tmp_path: Path) -> None:
    config, found, history = _train(tmp_path, {"noise": 1.0})
    assert history[3].loss is not None
    history[3] = history[3].model_copy(update={"loss": history[3].loss * (1 + 1e-10)})
    left = _follow(config, found, history).departure
    assert left is not None
    assert (left.epoch, left.what) == (3, "loss")


@pytest.mark.parametrize("data", [{}, {"distribution": "normal", "noise": 1e-30}, {"low": 0, "high": 0, "bias": 1e-90}])
def test_two_exact_sums_agree(data: dict[str, Any]) -> None:
    """FLINT's whole numbers and the reference's digits share nothing, and agree to the last bit."""
    config = Pipeline.model_validate({"data": {**DATA, **data}})
    ((x, y),) = generate_blocks(config.data)
    columns = np.column_stack([x, np.ones(len(y)), y]).astype(np.float64)
    means, num_rows = mean_products(np.array_split(columns, 3), 4)
    gram = Gram(4)
    gram.add(columns)
    total = gram.total()
    for i, j in itertools.product(range(4), repeat=2):
        mean = means[i, j]
        assert Fraction(int(mean.p), int(mean.q)) == total.fraction(i, j) / num_rows
