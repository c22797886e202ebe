"""What people write who come from other libraries: it does what is meant, or a line says what does.

Run: pytest tests/core/test_words_of_python.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import lntx
from lntx.base.errors import BadInput

FRAME = pd.DataFrame({"x": np.arange(20.0), "z": np.arange(20.0) % 3, "y": 2 * np.arange(20.0) + np.arange(20) % 5})
OPTIONS = {"until": "evaluate"}


@pytest.mark.parametrize(
    ("table", "target"),
    [
        (FRAME, "y"),
        (FRAME[["x", "z"]], FRAME.y),
        (FRAME, FRAME.y),
        (FRAME[["x", "z"]].to_numpy(), FRAME.y.to_numpy()),
        (FRAME[["x", "z"]], [*FRAME.y]),
    ],
)
def test_a_target_is_a_name_or_its_values(tmp_path: Path, table: Any, target: Any) -> None:
    run = lntx.fit(table, target, root=tmp_path, **OPTIONS)
    expected = lntx.fit(FRAME, target="y", root=tmp_path, **OPTIONS)
    assert (run.verdict, run.learned_weights) == ("pass", expected.learned_weights)
    assert run.features == (("x1", "x2") if isinstance(table, np.ndarray) else ("x", "z"))


@pytest.mark.parametrize(
    ("table", "target", "message"),
    [
        ("y ~ x", FRAME, "fit takes no formula, got 'y ~ x': fit(frame, target=COLUMN, features=[COLUMN])"),
        (FRAME, None, "name the column to predict: target=COLUMN, one of 'x', 'z', 'y'"),
        (FRAME[["x"]], FRAME.y.to_numpy()[:5], "target has 5 values, and the table 20 rows"),
        (FRAME[["x"]], FRAME.y.sample(frac=1, random_state=1), "the index of target is not that of the table"),
        (FRAME[["x"]], FRAME.y.set_axis(range(100, 120)), "the index of target is not that of the table"),
        (FRAME, (FRAME.y + 1), "target is called 'y', as another column of the table is: rename it"),
        (np.arange(5.0), np.arange(5.0), "features are an array of two axes, rows and columns, got 1"),
        ("rows.csv", FRAME.y, "target is the name of a column, or its values, got Series"),
    ],
)
def test_what_cannot_be_a_table_and_its_target_is_refused(
    tmp_path: Path, table: Any, target: Any, message: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        lntx.fit(table, target, root=tmp_path)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"sample_weight": FRAME.x}, 'weights of rows are a column of the table: data={"weight": COLUMN}'),
        ({"weights": "x"}, 'weights of rows are a column of the table: data={"weight": COLUMN}'),
        ({"alpha": 0.1}, "the known answer is that of least squares, without a penalty"),
        ({"fit_intercept": False}, "bias=False fits without one"),
        ({"missing": "drop"}, "fit takes missing as data={'missing': …}"),
        ({"learning_rate": 0.1}, "fit takes learning_rate as train={'learning_rate': …}"),
        ({"polinomial": 2}, "fit has no polinomial: did you mean polynomial?"),
    ],
)
def test_an_argument_of_another_library_is_answered(tmp_path: Path, option: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as refusal:
        lntx.fit(FRAME, target="y", root=tmp_path, **option)
    assert message in str(refusal.value)
    assert "--" not in str(refusal.value), "no option of a shell"


def test_a_path_may_hold_the_sign_of_a_formula(tmp_path: Path) -> None:
    path = tmp_path / "rows~1.csv"
    FRAME.to_csv(path, index=False)
    assert lntx.fit(str(path), "y", root=tmp_path, **OPTIONS).verdict == "pass"


def test_a_run_predicts_and_shows_its_residuals_and_pictures(tmp_path: Path) -> None:
    run = lntx.fit(FRAME, target="y", root=tmp_path)
    predictions = run.predict(FRAME[["x", "z"]])
    assert predictions.tolist() == lntx.predict(FRAME[["x", "z"]], run=run).tolist()
    np.testing.assert_allclose(run.residuals, FRAME.y - predictions, atol=1e-12)
    assert run.plot("residuals").axes
    with pytest.raises(BadInput, match="interval is one of"):
        run.predict(FRAME, interval="predict")
    with pytest.raises(BadInput, match="has no picture 'nothing': it has 'loss by epoch'"):
        run.plot("nothing")
    assert {"coefficients", "predict", "residuals", "plot", "verdict"} <= set(dir(run))
    assert not [name for name in dir(run) if name.startswith(("model_", "parse_", "_"))]


@pytest.mark.parametrize(
    "features",
    [
        FRAME[["x", "z"]].to_numpy().astype(">f8"),
        FRAME[["x", "z"]].to_numpy().astype(np.longdouble),
        torch.tensor(FRAME[["x", "z"]].to_numpy(), requires_grad=True),
        FRAME.assign(s=[object()] * 20)[["x", "z", "s"]],
    ],
)
def test_arrays_of_other_kinds_and_columns_that_are_not_used(tmp_path: Path, features: Any) -> None:
    names = ["x", "z"] if isinstance(features, pd.DataFrame) else None
    target = torch.tensor(FRAME.y.to_numpy()) if isinstance(features, torch.Tensor) else FRAME.y
    run = lntx.fit(features, target, features=names, root=tmp_path, **OPTIONS)
    expected = lntx.fit(FRAME, "y", root=tmp_path, **OPTIONS)
    assert run.learned_weights == expected.learned_weights


def test_what_a_mask_hides_is_missing(tmp_path: Path) -> None:
    features = FRAME[["x", "z"]].to_numpy()
    masked = np.ma.array(features, mask=features == 7)
    with pytest.raises(BadInput, match=r"missing|no value"):
        lntx.fit(masked, FRAME.y, root=tmp_path)


@pytest.mark.parametrize(
    "over",
    [{"nope": [1]}, {"train.learning_rate": 0.1}, {"train.learning_rate": [float("nan")]}, {"train.seed": []},
     {"train.learning_rate": "0.1"}, {3: [1]}],
)  # fmt: skip
def test_a_sweep_over_nothing_is_refused(tmp_path: Path, over: Any) -> None:
    with pytest.raises(BadInput):
        lntx.run_sweep(over, root=tmp_path)


def test_the_canary_and_the_sweep_have_names_in_python(tmp_path: Path) -> None:
    canary = lntx.run_canary(root=tmp_path)
    assert (canary.verdict, canary.deep) == ("pass", False)
    sweep = lntx.run_sweep({"train.seed": np.arange(3)}, data={"num_rows": 50}, root=tmp_path)
    assert [row.verdict for row in sweep.trials] == ["pass"] * 3
    with pytest.raises(BadInput, match="level"):
        lntx.run_canary(level=7)
    assert set(dir(lntx)) == {*lntx.__all__, "__version__"}
