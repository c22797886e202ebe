"""Weights of rows: the exact weighted solution in rational arithmetic, and statsmodels' WLS beside it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lntx
from lntx.base.errors import BadInput


def _exact(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> list[float]:
    """The weighted least-squares coefficients in rational arithmetic, each rounded once."""
    rows = [[*map(Fraction, row), Fraction(1)] for row in x.tolist()]
    p = len(rows[0])
    targets, factors = [*map(Fraction, y.tolist())], [*map(Fraction, weights.tolist())]
    matrix = [
        [sum((w * row[i] * row[j] for row, w in zip(rows, factors, strict=True)), Fraction(0)) for j in range(p)]
        + [sum((w * row[i] * t for row, w, t in zip(rows, factors, targets, strict=True)), Fraction(0))]
        for i in range(p)
    ]
    for i in range(p):
        pivot = next(k for k in range(i, p) if matrix[k][i])
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        matrix[i] = [value / matrix[i][i] for value in matrix[i]]
        for k in range(p):
            if k != i:
                matrix[k] = [a - matrix[k][i] * b for a, b in zip(matrix[k], matrix[i], strict=True)]
    return [float(row[p]) for row in matrix]


def _frame(seed: int, num_rows: int = 60, spread: float = 1.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"a": rng.normal(size=num_rows), "b": rng.normal(3, 2, size=num_rows)})
    frame["y"] = 2 * frame.a - 0.5 * frame.b + 1 + rng.normal(size=num_rows)
    frame["w"] = np.exp(spread * rng.normal(size=num_rows))
    return frame


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.0, 1.0, 8.0]))
def test_the_reference_is_the_exact_weighted_solution(tmp_path: Path, seed: int, spread: float) -> None:
    frame = _frame(seed, 20, spread)
    run = lntx.fit(frame, target="y", data={"weight": "w"}, root=tmp_path, until="evaluate")
    assert run.verdict == "pass"
    exact = _exact(frame[["a", "b"]].to_numpy(), frame.y.to_numpy(), frame.w.to_numpy())
    assert [*run.reference_weights, run.reference_bias] == exact
    assert run.digits > 13


@pytest.mark.parametrize(
    "train",
    [
        {},
        {"gradient": "autograd", "precondition": "none"},
        {"gradient": "moments"},
        {"dtype": "float32"},
        {"batch_size": 16},
        {"precondition": "standardize", "momentum": 0.3},
    ],
    ids=str,
)
def test_each_way_of_training_reaches_it(tmp_path: Path, train: dict[str, Any]) -> None:
    run = lntx.fit(_frame(3), target="y", data={"weight": "w"}, train=train, root=tmp_path, until="evaluate")
    assert run.verdict == "pass"
    assert run.digits > (6 if "dtype" in train else 12)


def test_statistics_agree_with_statsmodels(tmp_path: Path) -> None:
    frame = _frame(5)
    run = lntx.fit(frame, target="y", data={"weight": "w"}, root=tmp_path)
    peer = sm.WLS(frame.y, sm.add_constant(frame[["a", "b"]], prepend=False), weights=frame.w).fit()
    assert [*run.reference_weights, run.reference_bias] == pytest.approx(peer.params.tolist(), rel=1e-11)
    assert [*run.standard_errors, run.bias_standard_error] == pytest.approx(peer.bse.tolist(), rel=1e-11)
    assert run.r_squared == pytest.approx(peer.rsquared, rel=1e-11)
    assert run.adjusted_r_squared == pytest.approx(peer.rsquared_adj, rel=1e-11)
    assert run.f_statistic == pytest.approx(peer.fvalue, rel=1e-11)
    assert run.residual_sd == pytest.approx(peer.scale**0.5, rel=1e-11)
    assert run.degrees_of_freedom == peer.df_resid
    assert run.features == ("a", "b")
    assert "rows count by their weight in 'w'" in run.warnings
    means = lntx.predict(frame[["a", "b"]], root=tmp_path, interval="confidence")
    found = peer.get_prediction(sm.add_constant(frame[["a", "b"]], prepend=False)).conf_int(alpha=0.05)
    assert means[["low", "high"]].to_numpy() == pytest.approx(found, rel=1e-9)


def test_a_polynomial_has_weights_too(tmp_path: Path) -> None:
    frame = _frame(6, 25)
    run = lntx.fit(frame[["a", "y", "w"]], target="y", polynomial=3, data={"weight": "w"}, root=tmp_path)
    powers = np.column_stack([frame.a, frame.a**2, frame.a**3])
    peer = sm.WLS(frame.y, sm.add_constant(powers, prepend=False), weights=frame.w).fit()
    assert run.verdict == "pass"
    assert [*run.reference_weights, run.reference_bias] == pytest.approx(peer.params.tolist(), rel=1e-10)


def test_a_row_of_weight_two_counts_twice_and_of_weight_zero_not_at_all(tmp_path: Path) -> None:
    frame = _frame(7, 12)
    frame["w"] = [0, 1, 2, 1, 2, 1, 1, 0, 1, 2, 1, 1]
    frame["kind"] = ["gone", *"pqpqpqpqpqp"]
    weighted = lntx.fit(frame, target="y", data={"weight": "w", "categories": ["kind"]}, root=tmp_path / "one")
    repeated = frame.loc[frame.index.repeat(frame.w)].drop(columns="w")
    plain = lntx.fit(repeated, target="y", data={"categories": ["kind"]}, root=tmp_path / "two")
    assert weighted.reference_weights == plain.reference_weights
    assert weighted.features == plain.features == ("a", "b", "kind=q")
    assert weighted.num_rows == 10
    assert any("2 of weight 0 were left out" in warning for warning in weighted.warnings)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            [1.0, -1, 1, 1, 1],
            "column 'w' is negative, as no weight may be in row 2 (-1): correct it, or choose another",
        ),
        ([1.0, 1e31, 1, 1, 1], "column 'w' is a weight beyond 1e-30 to 1e+30 in row 2 (1e+31): rescale it"),
        ([1.0, 1, None, 1, 1], "column 'w' has no value in row 3"),
        (["one", "two", "six", "ten", "one"], "column 'w' is text"),
        ([0.0] * 5, "has no rows: the weight in 'w' is 0 in all that are left"),
        ([0.0, 0, 0, 1, 1], "2 rows are too few for 3 weights"),
    ],
    ids=str,
)
def test_weights_that_are_none_are_refused(tmp_path: Path, weights: list[Any], message: str) -> None:
    frame = _frame(8, 5).assign(w=weights)
    with pytest.raises(BadInput) as refusal:
        lntx.fit(frame, target="y", data={"weight": "w"}, root=tmp_path)
    assert message in str(refusal.value)
    assert "w" not in (refusal.value.advice or {}).get("data.exclude", ())


def test_the_weight_is_no_feature(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"data\.weight names 'w', which is a feature or the target"):
        lntx.fit(_frame(1), target="y", features=["a", "w"], data={"weight": "w"}, root=tmp_path)
    with pytest.raises(BadInput, match="nowhere"):
        lntx.fit(_frame(1), target="y", data={"weight": "nowhere"}, root=tmp_path)
    with pytest.raises(BadInput, match=r"data\.weight needs data\.path"):
        lntx.run(data={"weight": "w"}, root=tmp_path)


def test_many_rows_have_weights_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are read again at each pass, in parts, by compiled loops."""
    for name in ("MEMORY_BYTES", "PART_BYTES"):
        monkeypatch.setattr(f"lntx.data.dataset.{name}", 0)
    frame = _frame(9, 70_000)
    run = lntx.fit(frame, target="y", data={"weight": "w"}, root=tmp_path, until="evaluate")
    peer = sm.WLS(frame.y, sm.add_constant(frame[["a", "b"]], prepend=False), weights=frame.w).fit()
    assert run.verdict == "pass"
    assert run.digits > 14
    assert [*run.reference_weights, run.reference_bias] == pytest.approx(peer.params.tolist(), rel=1e-11)
    assert run.residual_sd == pytest.approx(peer.scale**0.5, rel=1e-11)
    assert run.mse == pytest.approx((frame.w * peer.resid**2).mean(), rel=1e-9)
