"""Rows that do not fit into memory: parts, threads and compiled loops change no answer."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lntx.base.workers import map_in_order
from lntx.config.loading import settle
from lntx.data.dataset import Dataset, open_dataset, parts_of, read_blocks
from lntx.data.synthetic import generate_dataset
from lntx.evaluation.evaluate import evaluate
from lntx.evaluation.least_squares import exact_sums
from lntx.evaluation.verdict import Evaluation
from lntx.numerics import compiled_gram, compiled_residuals
from lntx.numerics.gram import Gram
from lntx.numerics.residuals import residuals
from lntx.training.fit import fit
from lntx.training.gradients import Part
from lntx.training.moments import add_up, sums_of_part, sums_of_rows
from lntx.training.result import Fit

NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)


def _rows(folder: Path, **data: Any) -> tuple[Any, Dataset]:
    config = settle(preset=None, file=None, environment={}, overrides={"data": {"num_rows": 300_000, **data}})
    path = folder / "dataset.parquet"
    generate_dataset(config.data, path)
    return config, open_dataset(path)


def _answer(config: Any, dataset: Dataset) -> tuple[Fit, Evaluation]:
    _, figures, _ = fit(dataset, config.train, bias=config.learns_bias)
    return figures, evaluate(dataset, sha256="", data=config.data, fit=figures, settings=config.evaluate)


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every dataset is read in parts of one row group."""
    monkeypatch.setattr("lntx.data.dataset.MEMORY_BYTES", 0)
    monkeypatch.setattr("lntx.data.dataset.PART_BYTES", 0)
    return monkeypatch


@pytest.mark.parametrize(
    "data",
    [
        {"weights": [3.7]},
        {"weights": [3.7, -1.2], "noise": 0.5, "distribution": "normal", "bias": 2.0},
        {"num_features": 9, "noise": 0.1},
    ],
)
def test_no_bit_depends_on_the_threads(tmp_path: Path, many: pytest.MonkeyPatch, data: dict[str, Any]) -> None:
    config, dataset = _rows(tmp_path, **data)
    parts = parts_of(dataset)
    assert len(parts) == 5
    assert [part.first for part in parts] == [65_536 * k for k in range(5)]
    found = []
    for threads in (1, 2, 5):
        many.setattr("lntx.base.workers.cores", lambda threads=threads: threads)
        found.append(_answer(config, dataset))
    assert found[0] == found[1] == found[2]
    assert found[0][1].verdict == "pass"


@pytest.mark.parametrize("weights", [[3.7], [3.7, -1.2, 0.5]])
def test_the_exact_solution_is_that_of_one_part(
    tmp_path: Path, weights: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, dataset = _rows(tmp_path, weights=weights, noise=0.5, distribution="uniform")
    fitted, whole = _answer(config, dataset)
    monkeypatch.setattr("lntx.data.dataset.MEMORY_BYTES", 0)
    monkeypatch.setattr("lntx.data.dataset.PART_BYTES", 0)
    again, parted = _answer(config, dataset)
    assert [c.reference for c in whole.coefficients] == [c.reference for c in parted.coefficients]
    assert [c.standard_error for c in whole.coefficients] == [c.standard_error for c in parted.coefficients]
    assert again.weights == pytest.approx(fitted.weights, rel=1e-15)
    if again.weights == fitted.weights:
        assert (parted.mse, parted.residual_histogram, parted.residual_sample) == (
            whole.mse,
            whole.residual_histogram,
            whole.residual_sample,
        )


def test_a_changed_row_is_found_in_any_part(tmp_path: Path, many: pytest.MonkeyPatch) -> None:
    config, dataset = _rows(tmp_path, weights=[3.7], distribution="uniform")
    figures, _ = _answer(config, dataset)
    row = 200_123
    value = float(np.concatenate([block.y for block in read_blocks(dataset)])[row])
    path, content = dataset.paths[0], dataset.paths[0].read_bytes()
    place = content.index(np.float64(value).tobytes())
    path.write_bytes(content[:place] + np.float64(np.nextafter(value, 0)).tobytes() + content[place + 8 :])
    found = evaluate(open_dataset(path), sha256="", data=config.data, fit=figures, settings=config.evaluate)
    assert (found.verdict, found.blame) == ("fail", "data")
    assert f"row {row + 1} reads y = " in (found.reason or "")


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=30, max_size=30), st.sampled_from([1.0, 1e-90, 1e90]))
def test_compiled_sums_are_exact(values: list[float], scale: float) -> None:
    rows = np.array(values).reshape(10, 3) * scale
    plain, loop = Gram(3), Gram(3, compiled=True)
    for gram in (plain, loop):
        for row in rows:
            gram.add(row[None, :])
    for i in range(3):
        for j in range(3):
            assert loop.total().fraction(i, j) == plain.total().fraction(i, j)


def test_numbers_that_the_compiled_loop_cannot_hold_are_left_to_numpy() -> None:
    sums = np.zeros((2 * compiled_gram.LEVELS - 1, 1, 1), dtype=np.int64)
    assert compiled_gram.add_rows(np.array([[1.0, 0.5]]), np.array([2.0**20]), sums)
    assert not compiled_gram.add_rows(np.array([[1.0, 1e-60]]), np.array([2.0**20]), sums)
    assert not compiled_gram.add_rows(np.array([[1.0, 4.0]]), np.array([2.0**20]), sums)
    assert not compiled_gram.add_rows(np.array([[1.0, np.nan]]), np.array([2.0**20]), sums)


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=8, max_size=8), st.lists(NUMBERS, min_size=3, max_size=3))
def test_compiled_residuals_are_those_of_numpy(values: list[float], weights: list[float]) -> None:
    x, y = np.array(values[:4]).reshape(2, 2, order="F"), np.array(values[4:6])
    low = x * 2.0**-60
    for lower in (None, low):
        plain = residuals(x, y, tuple(weights[:2]), weights[2], low=lower)
        arrays = (x.T, np.zeros((0, 0)) if lower is None else lower.T, y, np.array(weights[:2]))
        assert compiled_residuals.residuals(*arrays, weights[2]).tolist() == plain.tolist()


def test_the_sums_of_training_have_thirty_digits(tmp_path: Path, many: pytest.MonkeyPatch) -> None:
    _, dataset = _rows(tmp_path, weights=[3.7, -1.2], noise=0.5, distribution="normal", num_rows=3000)
    coefficients = torch.tensor([3.5, -1.0, 0.25], dtype=torch.float64)
    (high, low), squares = add_up(sums_of_part(part, coefficients) for part in parts_of(dataset))
    rows = [Part(torch.from_numpy(x), torch.from_numpy(y).unsqueeze(1)) for x, y, *_ in read_blocks(dataset)]
    (plain, rest), plain_squares = sums_of_rows(rows, coefficients)
    total = [Fraction(0)] * 3
    for x, y, *_ in read_blocks(dataset):
        for (a, b), target in zip(x.tolist(), y.tolist(), strict=True):
            residual = Fraction(target) - Fraction(a) * Fraction(3.5) + Fraction(b) - Fraction(0.25)
            total = [part + Fraction(c) * residual for part, c in zip(total, (a, b, 1.0), strict=True)]
    for pair in (zip(high, low, strict=True), zip(plain, rest, strict=True)):
        for (a, b), exact in zip(pair, total, strict=True):
            assert abs(Fraction(float(a)) + Fraction(float(b)) - exact) < Fraction(10) ** -27 * abs(exact)
    assert squares == pytest.approx(plain_squares, rel=1e-13)


def test_results_come_in_order_and_an_error_ends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lntx.base.workers.cores", lambda: 3)
    assert list(map_in_order(lambda k: k * k, range(50))) == [k * k for k in range(50)]
    begun: list[int] = []

    def work(k: int) -> int:
        begun.append(k)
        if k == 5:
            raise ValueError(k)
        return k

    with pytest.raises(ValueError, match="5"):
        list(map_in_order(work, range(1000)))
    assert len(begun) < 50


def test_sums_of_parts_can_be_merged(tmp_path: Path, many: pytest.MonkeyPatch) -> None:
    _, dataset = _rows(tmp_path, weights=[1.0] * 9, distribution="normal", noise=1.0, num_rows=100_000)
    gram = Gram(11)
    for x, y, *_ in read_blocks(dataset):
        gram.add(np.column_stack([x, np.ones(len(y)), y]))
    merged = exact_sums(dataset)
    assert merged.num_rows == gram.num_rows == 100_000
    assert [merged.total().fraction(i, j) for i in range(11) for j in range(11)] == [
        gram.total().fraction(i, j) for i in range(11) for j in range(11)
    ]
