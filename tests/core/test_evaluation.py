"""The verdict: what passes, what fails, and who is to blame. Run: pytest tests/core/test_evaluation.py"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exact import least_squares

from lntx.config.loading import settle
from lntx.config.schema import Pipeline
from lntx.data.dataset import Block, open_dataset, read_blocks
from lntx.data.synthetic import generate_dataset
from lntx.evaluation.chi2 import chance_of_gaps, chi_squared_tail
from lntx.evaluation.evaluate import correct_digits, evaluate
from lntx.evaluation.least_squares import exact_sums, solve, sum_rows
from lntx.evaluation.verdict import Evaluation
from lntx.numerics.residuals import residuals
from lntx.training import fit as training
from lntx.training.result import Fit


def _trained(folder: Path, **overrides: Any) -> tuple[Pipeline, Path, Fit]:
    config = settle(overrides=overrides)
    path = folder / "rows.parquet"
    generate_dataset(config.data, path)
    _, fit, _ = training.fit(open_dataset(path), config.train, bias=config.learns_bias)
    return config, path, fit


def _judged(config: Pipeline, path: Path, fit: Fit) -> Evaluation:
    return evaluate(open_dataset(path), sha256="", data=config.data, fit=fit, settings=config.evaluate)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"train": {"bias": True}},
        {"train": {"dtype": "float32"}},
        {"data": {"noise": 1.0}},
        {"data": {"num_features": 5, "bias": -3.0, "noise": 0.1, "distribution": "normal"}},
        {"data": {"weights": [0.0]}},
        {"data": {"weights": [0.0], "bias": 1.0}},
        {"data": {"weights": [1e-8, 1e8]}},
    ],
)
def test_a_right_answer_passes(tmp_path: Path, overrides: dict[str, Any]) -> None:
    found = _judged(*_trained(tmp_path, **overrides))
    assert (found.verdict, found.blame, found.reason) == ("pass", None, None)


def test_a_wrong_weight_is_blamed_on_training(tmp_path: Path) -> None:
    config, path, fit = _trained(tmp_path)
    # Twice the tolerance is a fault, half of it is not.
    near = fit.model_copy(update={"weights": (3.7 * (1 + 0.5e-7),)})
    off = fit.model_copy(update={"weights": (3.7 * (1 + 2e-7),)})
    assert _judged(config, path, near).verdict == "pass"
    found = _judged(config, path, off)
    assert (found.verdict, found.blame) == ("fail", "training")
    assert "the settings do not explain it" in (found.reason or "")
    assert 6.5 < found.digits < 7


def test_altered_rows_are_blamed_on_the_data(tmp_path: Path) -> None:
    config, path, fit = _trained(tmp_path)
    table = pq.read_table(path).replace_schema_metadata(pq.read_metadata(path).metadata)
    y = table["y"].to_numpy().copy()
    y[41] = np.nextafter(y[41], 0)
    pq.write_table(table.set_column(1, table.schema.field("y"), pa.array(y)), path)
    found = _judged(config, path, fit)
    assert (found.verdict, found.blame) == ("fail", "data")
    assert "row 42 reads y = " in (found.reason or "")
    pq.write_table(table.slice(0, 999), path)
    assert "999 rows where 1000 were generated" in (_judged(config, path, fit).reason or "")


def test_a_file_that_is_not_the_stored_one_is_blamed_on_the_data(tmp_path: Path) -> None:
    config, path, fit = _trained(tmp_path)
    from_file = settle(overrides={"data": {"path": "rows.csv", "target": "y"}})
    found = evaluate(open_dataset(path), sha256="0", data=from_file.data, fit=fit, settings=config.evaluate)
    assert (found.verdict, found.blame) == ("fail", "data")


def test_rows_of_another_truth_are_blamed_on_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that errs does so twice alike: only the truth shows it."""
    monkeypatch.setattr("lntx.data.synthetic._target", lambda _data, _weights, drawn, _noise, _count: 3.8 * drawn[0])
    found = _judged(*_trained(tmp_path))
    assert (found.verdict, found.blame) == ("fail", "reference")
    assert "x = 3.8 where the truth is 3.7" in (found.reason or "")


def test_noise_is_no_fault_and_a_shift_beyond_noise_is(tmp_path: Path) -> None:
    config, path, fit = _trained(tmp_path, data={"noise": 1.0, "weights": [3.7, 1.0]})
    assert _judged(config, path, fit).verdict == "pass"
    error = solve(exact_sums(open_dataset(path)), ("x1", "x2"), bias=False).standard_errors[0]
    assert error is not None
    truth = config.data.model_copy(update={"weights": (3.7 + 8 * error, 1.0)})
    shifted = config.model_copy(update={"data": truth})
    # The rows are compared before the truth: leave that comparison out.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lntx.evaluation.evaluate._read", lambda dataset, **_: (exact_sums(dataset), None))
        found = _judged(shifted, path, fit)
    assert (found.verdict, found.blame) == ("fail", "reference")
    assert "noise alone does that with chance" in (found.reason or "")


@pytest.mark.parametrize(
    ("train", "advice"),
    [
        ({"learning_rate": 0.0001, "max_epochs": 20}, "--train.learning-rate auto"),
        ({"bias": True, "precondition": "none", "max_epochs": 50}, "--train.precondition auto"),
    ],
)
def test_too_few_steps_are_said_with_what_to_do(tmp_path: Path, train: dict[str, Any], advice: str) -> None:
    found = _judged(*_trained(tmp_path, train=train))
    assert found.blame == "training"
    assert "too few steps" in (found.reason or "")
    assert advice in (found.reason or "")


@pytest.mark.parametrize(
    ("train", "said", "unsaid"),
    [
        ({"tolerance": 0.01, "learning_rate": 0.0001}, "--train.tolerance 0.01 ended training", "suspect"),
        ({"learning_rate": 1e-15}, "--train.learning-rate auto", "suspect"),
        ({"momentum": 0.99, "max_epochs": 100}, "drop --train.momentum", "auto"),
        ({"learning_rate": 0.001, "max_epochs": 160}, "3.69", "learned as 3.7 "),
    ],
)
def test_the_advice_names_what_was_set_and_nothing_that_is_in_force(
    tmp_path: Path, train: dict[str, Any], said: str, unsaid: str
) -> None:
    reason = _judged(*_trained(tmp_path, train=train)).reason or ""
    assert said in reason
    assert unsaid not in reason


def test_where_all_is_automatic_only_more_epochs_are_advised(tmp_path: Path) -> None:
    data = {"num_features": 3, "bias": 2.0}
    reason = _judged(*_trained(tmp_path, data=data, train={"max_epochs": 2})).reason or ""
    words = reason.split("add ")[1].split()
    assert words[0] == "--train.max-epochs"
    assert len(words) == 2
    assert _judged(*_trained(tmp_path, data=data, train={"max_epochs": int(words[1])})).verdict == "pass"


def test_r_squared_does_not_suffer_from_a_large_mean() -> None:
    generator = np.random.Generator(np.random.PCG64(4))
    x = generator.normal(size=(500, 1))
    y = 0.3 * x[:, 0] + generator.normal(size=500)
    found = [solve(sum_rows([Block(x, y + shift)], 1), ("x",), bias=True).r_squared for shift in (0.0, 1e7)]
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_the_epochs_said_to_be_needed_are_enough_and_a_third_are_not(tmp_path: Path) -> None:
    slow = {"learning_rate": 0.0005, "max_epochs": 20}
    reason = _judged(*_trained(tmp_path, train=slow)).reason or ""
    needed = int(reason.split("about ")[1].split(" epochs")[0].replace(",", ""))
    assert _judged(*_trained(tmp_path, train=slow | {"max_epochs": needed})).verdict == "pass"
    assert _judged(*_trained(tmp_path, train=slow | {"max_epochs": needed // 3})).verdict == "fail"


def test_steps_on_batches_end_with_steps_on_all_rows_at_the_exact_solution(tmp_path: Path) -> None:
    data = {"noise": 1.0, "weights": [3.7, -1.0], "bias": 2.0}
    config, path, fit = _trained(tmp_path, data=data, train={"batch_size": 50, "learning_rate": 0.001})
    found = _judged(config, path, fit)
    assert found.verdict == "pass"
    assert found.digits > 13
    assert 0 < fit.finishing_epochs < fit.epochs
    assert fit.stop == "converged"


def test_circling_batches_are_said_in_standard_errors(tmp_path: Path) -> None:
    train = {"batch_size": 50, "learning_rate": 0.01, "max_epochs": 1}
    found = _judged(*_trained(tmp_path, data={"noise": 1.0}, train=train))
    assert found.blame == "training"
    assert "standard errors away" in (found.reason or "")
    assert "drop --train.batch-size" in (found.reason or "")


def test_a_loop_that_plain_torch_would_get_wrong_is_warned_of(tmp_path: Path) -> None:
    """float32 sums over many rows: the answer here is right, the same loop's elsewhere is not."""
    data, train = {"num_rows": 1_000_000}, {"dtype": "float32", "precondition": "none"}
    found = _judged(*_trained(tmp_path, data=data, train=train))
    assert found.verdict == "pass"
    (warning,) = found.warnings
    assert "adds up 1,000,000 rows in float32" in warning
    assert float(warning.split("off by ")[1].split()[0]) > 1e-4
    for other in ({"dtype": "float64", "precondition": "none"}, {"dtype": "float32"}):
        assert not _judged(*_trained(tmp_path, data={"num_rows": 200_000}, train=other)).warnings


def test_the_reference_is_the_exact_solution(tmp_path: Path) -> None:
    config = settle(overrides={"data": {"num_features": 3, "noise": 1.0, "num_rows": 200, "distribution": "uniform"}})
    path = tmp_path / "rows.parquet"
    generate_dataset(config.data, path)
    x, y, *_ = next(iter(read_blocks(open_dataset(path))))
    for bias in (False, True):
        found = solve(sum_rows([Block(x, y)], 3), ("a", "b", "c"), bias=bias)
        coefficients = [*found.weights, *([found.bias] if found.bias is not None else [])]
        assert coefficients == least_squares(x, y, bias=bias)
        design = np.column_stack([x, np.ones(len(x))]) if bias else x
        covariance = np.linalg.inv(design.T @ design) * (found.residual_sd or 0) ** 2
        errors = [*found.standard_errors, *([found.bias_standard_error] if bias else [])]
        assert errors == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-9)


def test_residuals_are_rounded_once() -> None:
    x, y = np.array([[3.0], [0.1]]), np.array([11.1, 0.37])
    # 3 · 3.7 rounds to 11.100000000000001; the exact residual is smaller than that rounding.
    found = residuals(x, y, (3.7,), 0.0)
    assert (np.abs(found) < np.abs(y - x[:, 0] * 3.7).max()).all()
    assert 0 < np.abs(found).max() < 1e-15


def test_without_degrees_of_freedom_there_are_no_standard_errors() -> None:
    found = solve(sum_rows([Block(np.array([[2.0]]), np.array([6.0]))], 1), ("x",), bias=False)
    assert found.weights == (3.0,)
    assert found.standard_errors == (None,)
    assert found.residual_sd is None


@pytest.mark.parametrize(
    ("learned", "expected", "digits"),
    [(3.7, 3.7, 15.95), (1.001, 1.0, 3.0), (1e-9, 0.0, 0.0), (5.0, 1.0, 0.0), (0.0, 0.0, 15.95), (2e-30, 1e-30, 0.0)],
)
def test_digits_are_the_log_relative_error(learned: float, expected: float, digits: float) -> None:
    assert correct_digits(learned, expected) == pytest.approx(digits, abs=1e-6)


def test_the_chi_squared_tail_is_the_textbooks() -> None:
    assert chi_squared_tail(3.841458820694124, 1) == pytest.approx(0.05, rel=1e-9)
    assert chi_squared_tail(18.307038053275146, 10) == pytest.approx(0.05, rel=1e-9)


def test_a_diverged_fit_has_figures_all_the_same(tmp_path: Path) -> None:
    config, path, fit = _trained(tmp_path)
    wild = fit.model_copy(update={"weights": (1e99,), "stop": "diverged", "last_move": None})
    found = _judged(config, path, wild)
    assert found.blame == "training"
    assert "the loss grew without bound" in (found.reason or "")
    assert np.isfinite(found.mse)


@pytest.mark.slow
def test_the_joint_test_raises_false_alarms_as_often_as_it_says() -> None:
    """2,000 datasets at a stated rate of 5 %: the observed rate is within four standard deviations of it."""
    generator = np.random.Generator(np.random.PCG64(3))
    alarms = 0
    for _ in range(2000):
        x = generator.uniform(1, 10, (50, 2))
        y = x @ np.array([1.0, -2.0]) + generator.normal(0, 0.5, 50)
        found = solve(sum_rows([Block(x, y)], 2), ("a", "b"), bias=False)
        gaps = np.array(found.weights) - np.array([1.0, -2.0])
        alarms += float(chance_of_gaps(np.array(found.factor), gaps, 0.5)) < 0.05
    assert abs(alarms / 2000 - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 2000)


def test_dataset_is_immutable(tmp_path: Path) -> None:
    _, path, _ = _trained(tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        open_dataset(path).num_rows = 3  # type: ignore[misc]
