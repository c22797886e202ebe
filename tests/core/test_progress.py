"""How far a stage is, told to a listener. Run: pytest tests/core/test_progress.py"""

from __future__ import annotations

from pathlib import Path

import pytest

import lntx
from lntx.base.progress import on_progress, report_progress
from lntx.data import dataset

Told = list[tuple[int, int, str]]


def _told(root: Path, **settings: object) -> Told:
    told: Told = []
    with on_progress(lambda *words: told.append(words)):
        lntx.run(root=root, **settings)
    return told


def test_rows_and_epochs_are_told(tmp_path: Path) -> None:
    told = _told(tmp_path, data={"num_rows": 200_000})
    assert told[0] == (65536, 200_000, "rows")
    assert (200_000, 200_000, "rows") in told
    assert (1, 1000, "epochs, at most") in told
    assert all(0 < done <= total for done, total, _ in told)


def test_passes_over_rows_that_are_not_kept_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MEMORY_BYTES", 10_000)
    told = _told(tmp_path, data={"num_rows": 5000})
    assert (5000, 5000, "rows of this pass") in told


def test_listeners_around_each_other_all_hear() -> None:
    inner: Told = []
    outer: Told = []
    with on_progress(lambda *words: outer.append(words)), on_progress(lambda *words: inner.append(words)):
        report_progress(1, 2, "rows")
    assert inner == outer == [(1, 2, "rows")]
