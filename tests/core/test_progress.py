"""How far a stage is, told to a listener. Run: pytest tests/core/test_progress.py"""

from __future__ import annotations

from pathlib import Path

import pytest

import lntx
from lntx.data import dataset
from lntx.progress import heard_by


def _told(root: Path, **settings: object) -> list[tuple[float, str]]:
    told: list[tuple[float, str]] = []
    with heard_by(lambda part, what: told.append((part, what))):
        lntx.run(root=root, **settings)
    return told


def test_rows_and_epochs_are_told(tmp_path: Path) -> None:
    told = _told(tmp_path, data={"num_rows": 200_000})
    assert told[0] == (65536 / 200_000, "rows: 65,536 of 200,000")
    assert (1.0, "rows: 200,000 of 200,000") in told
    assert "epochs, at most: 1 of 1,000" in [what for _, what in told]
    assert all(0 < part <= 1 for part, _ in told)


def test_passes_over_rows_that_are_not_kept_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MEMORY_BYTES", 10_000)
    told = _told(tmp_path, data={"num_rows": 5000})
    assert (1.0, "rows of this pass: 5,000 of 5,000") in told
