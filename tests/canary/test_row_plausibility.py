"""Rows as they are drawn, checked a second way. Run: pytest tests/canary/test_row_plausibility.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lntx.canary.trainings.row_plausibility import implausible_rows
from lntx.config.schema import Data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"distribution": "integers", "low": -3, "high": 3}, None),
        ({"distribution": "uniform", "low": -1, "high": 1, "noise": 0.5}, None),
        ({"distribution": "normal", "low": -2, "high": 2, "noise": 0.5, "num_rows": 50}, None),
        ({"distribution": "normal", "low": 1, "high": 9, "num_rows": 3}, None),
    ],
)
def test_rows_as_they_are_drawn_are_plausible(data: dict[str, Any], said: str | None) -> None:
    for seed in range(20):
        assert implausible_rows(Data(weights=(3.7, -1.2), bias=2.0, seed=seed, **data)) is said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x, y: (x * 0, y), "x1 was drawn as 0.0 in every row"),
        (lambda x, y: (x[:, [0, 0]], y), "x2 was drawn just like x1"),
        (lambda x, y: (x + 0.5, y), "which integers rows do not have"),
        (lambda x, y: (x, y * (1 + 1e-14)), "from what its features give"),
        (lambda x, y: (x, y * np.nan), "was drawn with y = nan"),
    ],
)
def test_rows_that_are_drawn_wrongly_are_told(change: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lntx.canary.trainings import row_plausibility

    blocks = row_plausibility.generate_blocks
    monkeypatch.setattr(row_plausibility, "generate_blocks", lambda data: (change(x, y) for x, y in blocks(data)))
    assert said in (implausible_rows(Data(weights=(3.7, -1.2), bias=2.0, low=-3, high=3)) or "")


def test_noise_of_another_size_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from lntx.canary.trainings import row_plausibility

    blocks, data = row_plausibility.generate_blocks, Data(weights=(3.7,), noise=0.5)
    monkeypatch.setattr(
        row_plausibility, "generate_blocks", lambda _data: blocks(data.model_copy(update={"noise": 0.8}))
    )
    assert "the noise was drawn with standard deviation 0." in (implausible_rows(data) or "")
