"""Training: exact weights, refused rates, what does not change the bits. Run: pytest tests/core/test_training.py"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact import least_squares

from lntx.base.errors import BadInput
from lntx.config.loading import settle
from lntx.data.dataset import Block, Dataset, open_dataset, read_blocks
from lntx.data.synthetic import generate_dataset
from lntx.training import fit as training
from lntx.training.curvature import combine, measure
from lntx.training.model import LNTXLinearModel
from lntx.training.result import Epoch, Fit, read_history, write_history


def _fit(folder: Path, read_rows: int = 2**16, **overrides: Any) -> tuple[Dataset, Fit, list[Epoch]]:
    config = settle(overrides=overrides)
    path = folder / "rows.parquet"
    generate_dataset(config.data, path)
    dataset = open_dataset(path)
    _, fit, history = training.fit(dataset, config.train, bias=config.learns_bias, read_rows=read_rows)
    return dataset, fit, history


def _ulps(value: float, expected: float, dtype: type[np.floating[Any]] = np.float64) -> float:
    return abs(value - expected) / float(np.spacing(dtype(abs(expected))))


def test_noise_free_data_gives_back_the_known_weight(tmp_path: Path) -> None:
    _, fit, history = _fit(tmp_path)
    assert fit.weights == (3.7,)
    assert fit.bias is None
    assert (fit.epochs, fit.stop, fit.precondition, fit.gradient) == (3, "converged", "none", "autograd")
    assert [epoch.weights[0] for epoch in history][-1] == 3.7
    assert len(history) == 4
    assert history[0].loss is None
    losses = [epoch.loss for epoch in history[1:] if epoch.loss is not None]
    # The later ones are rounding errors, in an order that depends on the processor.
    assert losses[0] > 1e20 * max(losses[1:])


@pytest.mark.parametrize("weight", ["known", "drawn"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("seeds", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_many_seeds_find_the_weight(tmp_path: Path, weight: str, dtype: str, bias: bool, seeds: int) -> None:
    """float64 exactly without a bias, within 2 ulp with one; float32 within 1 ulp. The worst case is printed."""
    generator = np.random.Generator(np.random.PCG64(1))
    worst = 0.0
    for seed in range(seeds):
        truth = 3.7 if weight == "known" else float(generator.uniform(-10, 10))
        _, fit, _ = _fit(
            tmp_path,
            data={"weights": [truth], "seed": seed},
            train={"seed": 1000 + seed, "dtype": dtype, "bias": bias},
        )
        kind = np.float64 if dtype == "float64" else np.float32
        worst = max(worst, _ulps(fit.weights[0], float(kind(truth)), kind))
    print(f"{weight} weight, {dtype}, bias {bias}: worst {worst} ulp")
    assert worst <= {("float64", False): 0, ("float64", True): 2}.get((dtype, bias), 1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_one_weight_is_the_correctly_rounded_exact_solution(tmp_path: Path, bias: bool, noise: float) -> None:
    for seed in range(10):
        dataset, fit, _ = _fit(
            tmp_path,
            data={"weights": [math.pi + seed], "noise": noise, "seed": seed, "num_rows": 300},
            train={"bias": bias, "seed": seed},
        )
        x, y, *_ = next(iter(read_blocks(dataset)))
        assert fit.weights[0] == least_squares(x, y, bias=bias)[0]


def test_three_weights_and_a_bias_have_thirteen_digits(tmp_path: Path) -> None:
    for seed in range(5):
        _, fit, _ = _fit(tmp_path, data={"weights": [3.7, -1.2, 0.5], "bias": 2, "seed": seed}, train={"seed": seed})
        assert fit.bias is not None
        for learned, true in zip((*fit.weights, fit.bias), (3.7, -1.2, 0.5, 2.0), strict=True):
            assert abs(learned - true) <= 1e-13 * abs(true)


@pytest.mark.parametrize(
    "train",
    [
        {"momentum": 0.5},
        {"momentum": 0.9},
        {"batch_size": 100},
        {"batch_size": 7, "momentum": 0.3},
        {"learning_rate": 0.01},
        {"precondition": "standardize"},
        {"precondition": "qr"},
        {"bias": True, "precondition": "none", "momentum": 0.74},
        {"tolerance": 1e-6},
    ],
)
def test_every_way_of_descending_ends_at_the_weight(tmp_path: Path, train: dict[str, Any]) -> None:
    _, fit, _ = _fit(tmp_path, train=train)
    assert abs(fit.weights[0] - 3.7) < (1e-5 if "tolerance" in train else 1e-12)
    assert fit.stop in ("converged", "stalled")


def test_the_first_step_is_the_tutorials(tmp_path: Path) -> None:
    """Without coordinates or momentum a step is w - rate · 2 mean(x (xw - y)), from nn.Linear's initial weights."""
    dataset, _, history = _fit(
        tmp_path, train={"learning_rate": 0.001, "max_epochs": 2, "tolerance": 0, "bias": True, "precondition": "none"}
    )
    x, y, *_ = next(iter(read_blocks(dataset)))
    weight, bias = history[0].weights[0], history[0].bias
    assert bias is not None
    for epoch in history[1:]:
        residual = x[:, 0] * weight + bias - y
        assert epoch.loss == pytest.approx((residual**2).mean(), rel=1e-12)
        weight -= 0.001 * 2 * (residual * x[:, 0]).mean()
        bias -= 0.001 * 2 * residual.mean()
        assert epoch.weights[0] == pytest.approx(weight, rel=1e-12)
        assert epoch.bias == pytest.approx(bias, rel=1e-12)


def test_a_rate_over_the_stable_limit_is_refused_with_the_limit(tmp_path: Path) -> None:
    dataset, fit, _ = _fit(tmp_path)
    x, *_ = next(iter(read_blocks(dataset)))
    assert fit.stable_limit == pytest.approx(1 / (x**2).mean(), rel=1e-12)
    just_over = fit.stable_limit * 1.001
    with pytest.raises(BadInput, match=rf"below the stable limit {fit.stable_limit:.6g} .*got {just_over:g}"):
        _fit(tmp_path, train={"learning_rate": just_over})
    # The limit is where it is said to be: just below it converges.
    _, slow, _ = _fit(tmp_path, train={"learning_rate": fit.stable_limit * 0.99, "max_epochs": 3000})
    assert slow.weights[0] == pytest.approx(3.7, rel=1e-13)


def test_divergence_on_batches_is_an_answer_and_not_a_crash(tmp_path: Path) -> None:
    _, fit, history = _fit(
        tmp_path,
        data={"weights": [1.0, 2.0], "num_rows": 2000, "distribution": "normal", "low": -100, "high": 100},
        train={"batch_size": 1, "learning_rate": 0.0005, "precondition": "none"},
    )
    assert fit.stop == "diverged"
    assert all(math.isfinite(value) for epoch in history for value in epoch.weights)


def test_a_model_that_diverged_holds_the_weights_that_are_said(tmp_path: Path) -> None:
    config = settle(
        overrides={
            "data": {"weights": [1.0, 2.0], "num_rows": 2000, "distribution": "normal", "low": -100, "high": 100},
            "train": {"batch_size": 1, "learning_rate": 0.00085, "precondition": "none", "bias": True},
        }
    )
    generate_dataset(config.data, tmp_path / "rows.parquet")
    model, fit, _ = training.fit(open_dataset(tmp_path / "rows.parquet"), config.train, bias=True)
    assert fit.last_move is None, "the last epoch should have left the finite numbers"
    assert (fit.stop, model.weights, model.bias) == ("diverged", fit.weights, fit.bias)


def test_tolerance_zero_never_stops_early(tmp_path: Path) -> None:
    _, fit, history = _fit(tmp_path, train={"tolerance": 0, "max_epochs": 40})
    assert (fit.epochs, fit.stop, len(history)) == (40, "max_epochs", 41)
    assert fit.weights == (3.7,)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_threads_and_reading_change_no_bit(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = {
        "data": {"num_rows": 80_000, "noise": 1.0, "weights": [1.5, -2.5]},
        "train": {"dtype": dtype, "gradient": "autograd"},
    }
    _, first, history = _fit(tmp_path, **overrides)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr("lntx.data.dataset.MEMORY_BYTES", 0)
    try:
        _, second, again = _fit(tmp_path, read_rows=1234, **overrides)
    finally:
        torch.set_num_threads(threads)
    assert len(set(first.rows_sha256)) == 1, "rows that are kept are noted at each reading"
    assert first.model_copy(update={"rows_sha256": ()}) == second
    assert history == again


@pytest.mark.parametrize("weight", [1e60, 1e-60])
def test_large_and_small_weights_are_learned_too(tmp_path: Path, weight: float) -> None:
    _, fit, _ = _fit(tmp_path, data={"weights": [weight]})
    assert (fit.weights, fit.stop) == ((weight,), "converged")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"data": {"weights": [1e-200]}}, "the target reaches 1e-199, beyond 1e-100 to 1e+100: rescale it"),
        ({"data": {"weights": [1e39]}, "train": {"dtype": "float32"}}, "use --train.dtype float64"),
    ],
)
def test_rows_beyond_the_arithmetic_are_refused(tmp_path: Path, overrides: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput) as caught:
        _fit(tmp_path, **overrides)
    assert line in str(caught.value)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_short_last_batch_does_no_harm(tmp_path: Path, dtype: str) -> None:
    """1001 rows in batches of 1000: the last one holds a single row, and counts for a thousandth."""
    _, fit, _ = _fit(
        tmp_path,
        data={"num_features": 20, "num_rows": 1001, "distribution": "normal"},
        train={"batch_size": 1000, "dtype": dtype},
    )
    assert fit.stop in ("converged", "stalled")


def test_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    _fit(tmp_path, train={"batch_size": 100, "max_epochs": 2})
    LNTXLinearModel(3, bias=True, generator=torch.Generator().manual_seed(1))
    assert torch.equal(before, torch.get_rng_state())


def test_initial_weights_follow_the_seed(tmp_path: Path) -> None:
    starts = {seed: _fit(tmp_path, train={"seed": seed, "max_epochs": 1})[2][0].weights for seed in (0, 1)}
    assert starts[0] != starts[1]
    assert all(-1 <= start[0] <= 1 for start in starts.values())


def test_float32_gradients_stay_right_for_many_rows(tmp_path: Path) -> None:
    """torch alone adds up 1e6 float32 rows 0.3 % off; the exact solution is still met to float32's rounding."""
    _, fit, _ = _fit(tmp_path, data={"num_rows": 1_000_000}, train={"dtype": "float32"})
    assert fit.weights == (float(np.float32(3.7)),)
    _, noisy, _ = _fit(tmp_path, data={"num_rows": 1_000_000, "noise": 1.0}, train={"dtype": "float32"})
    _, exact, _ = _fit(tmp_path, data={"num_rows": 1_000_000, "noise": 1.0})
    assert abs(noisy.weights[0] - exact.weights[0]) < 1.3e-6 * 3.7


@pytest.mark.parametrize(
    ("columns", "bias", "line"),
    [
        ([[1.0, 1.0, 1.0]], True, "feature 'a' is constant (1), and so is the bias"),
        ([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]], False, "feature 'b' duplicates 'a'"),
        ([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]], False, "feature 'b' is 0 in every row"),
        ([[1.0, 2.0, 4.0, 0.0], [1.0, 0.0, 5.0, 2.0], [3.0, 4.0, 13.0, 2.0]], False, "combination of 'a', 'b'"),
        ([[1.0, 2.0], [2.0, 1.0]], True, "2 rows are too few for 3 weights"),
    ],
)
def test_columns_that_cannot_be_told_apart_are_named(columns: list[list[float]], bias: bool, line: str) -> None:
    x = np.array(columns).T
    names = ("a", "b", "c")[: x.shape[1]]
    with pytest.raises(BadInput) as caught:
        combine([measure([Block(x, np.ones(len(x)))], len(names), bias=bias)], names, bias=bias)
    assert line in str(caught.value)


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU; the refusal is for machines without one")
    with pytest.raises(BadInput, match="torch finds no CUDA device"):
        _fit(tmp_path, train={"device": "cuda"})


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    _, _, history = _fit(tmp_path, data={"bias": 2})
    write_history(history, tmp_path / "history.parquet")
    assert read_history(tmp_path / "history.parquet") == history


@pytest.mark.parametrize("precondition", ["none", "standardize", "qr"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_sums_over_the_rows_descend_along_the_same_path(tmp_path: Path, precondition: str, momentum: float) -> None:
    """The gradient is affine in the weights: epoch by epoch, moments and autograd meet the same weights."""
    data = {"weights": [1.5, -2.5], "bias": 0.5, "noise": 0.1, "num_rows": 500, "distribution": "uniform"}
    common = {"precondition": precondition, "momentum": momentum, "max_epochs": 60, "tolerance": 0}
    _, _, rows = _fit(tmp_path, data=data, train=common | {"gradient": "autograd"})
    _, fit, sums = _fit(tmp_path, data=data, train=common | {"gradient": "moments"})
    assert fit.gradient == "moments"
    for one, other in zip(rows, sums, strict=True):
        assert other.coefficients == pytest.approx(one.coefficients, rel=1e-11, abs=1e-11)
        assert other.loss == pytest.approx(one.loss, rel=1e-9) if one.loss is not None else other.loss is None


@pytest.mark.parametrize(
    ("data", "gradient"),
    [
        ({"num_rows": 1000}, "autograd"),
        ({"num_rows": 1_000_001}, "moments"),
        ({"num_features": 10, "num_rows": 1000, "bias": 1.0, "distribution": "uniform"}, "autograd"),
        ({"num_features": 100, "num_rows": 1000, "bias": 1.0, "distribution": "uniform"}, "moments"),
        ({"weights": [1.0, 1.0], "num_rows": 1000, "low": 1_000_000, "high": 1_000_010, "bias": 1.0}, "moments"),
    ],
)
def test_the_gradient_is_chosen_by_rows_and_condition(tmp_path: Path, data: dict[str, Any], gradient: str) -> None:
    _, fit, _ = _fit(tmp_path, data=data)
    assert (fit.gradient, fit.stop) == (gradient, "converged")


@pytest.mark.parametrize("tolerance", ["auto", 1e-6])
def test_weights_that_turn_have_not_arrived(tmp_path: Path, tolerance: float | str) -> None:
    """With momentum a single weight stands still every other epoch."""
    for gradient in ("autograd", "moments"):
        _, fit, _ = _fit(tmp_path, train={"momentum": 0.5, "gradient": gradient, "tolerance": tolerance})
        assert fit.epochs > 20
        assert fit.weights[0] == pytest.approx(3.7, rel=1e-5 if tolerance == 1e-6 else 1e-15)


def test_moments_of_batches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="moments is of all rows, and train"):
        _fit(tmp_path, train={"gradient": "moments", "batch_size": 10})


def test_ill_conditioned_noisy_rows_are_learned_to_the_last_bits(tmp_path: Path) -> None:
    """Columns near 10^6 beside a bias: float64 gradients would leave half of the digits."""
    data = {"weights": [1.0, 2.0], "num_rows": 300, "low": 1_000_000, "high": 1_000_010, "bias": 1.0, "noise": 5.0}
    dataset, fit, _ = _fit(tmp_path, data=data)
    x, y, *_ = next(iter(read_blocks(dataset)))
    assert fit.bias is not None
    assert [*fit.weights, fit.bias] == least_squares(x, y, bias=True)
