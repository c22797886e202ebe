"""What moved on a user's file since the last passing run. Run: pytest tests/core/test_shifts.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import lntx


def _write(path: Path, slope: float, *, seed: int = 0, more: bool = False) -> None:
    draw = np.random.default_rng(seed)
    a, b = draw.normal(size=(2, 400))
    table = {"a": a, "b": b, "y": 2 * a + slope * b + draw.normal(size=400)}
    pd.DataFrame({**table, "c": draw.normal(size=400)} if more else table).to_csv(path, index=False)


def test_weights_that_moved_and_columns_that_came_are_told(tmp_path: Path) -> None:
    """Other rows of the same law move nothing; another law does, and so does another column."""
    file, root = tmp_path / "rows.csv", tmp_path / "root"
    for seed in range(3):
        _write(file, 1.0, seed=seed)
        assert lntx.fit(file, target="y", root=root).warnings == ()
    last = lntx.fit(file, target="y", root=root).run
    _write(file, 1.5, seed=3)
    moved = lntx.fit(file, target="y", root=root)
    assert moved.verdict == "pass"
    (sentence,) = moved.warnings
    assert sentence.startswith("b moved from 1.0")
    assert sentence.endswith(" standard errors")
    assert f"since run {last}," in sentence
    assert lntx.fit(file, target="y", root=root).warnings == (), "told once"
    _write(file, 1.5, seed=3, more=True)
    told = lntx.fit(file, target="y", root=root)
    assert [text.split(" since")[0] for text in told.warnings] == ["columns that are new"]
    _write(file, 1.5, seed=3)
    gone = lntx.fit(file, target="y", root=root)
    assert gone.warnings[0].startswith("columns that are no longer there since run")
    assert gone.warnings[0].endswith(": c")


def test_the_limit_is_a_setting_and_other_files_are_other_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    _write(first, 1.0)
    _write(second, 3.0)
    lntx.fit(first, target="y", root=tmp_path / "root")
    assert lntx.fit(second, target="y", root=tmp_path / "root").warnings == ()
    _write(first, 1.4, seed=1)
    quiet = lntx.fit(first, target="y", root=tmp_path / "root", evaluate={"shift_limit": 1000})
    assert quiet.warnings == ()


def test_synthetic_rows_do_not_move(tmp_path: Path) -> None:
    lntx.run(root=tmp_path, until="evaluate")
    assert lntx.run(data={"weights": [9.0]}, root=tmp_path, until="evaluate").warnings == ()
