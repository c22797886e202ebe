"""Interrupted work goes on where it stopped, and ends in the same bits. Run: pytest tests/core/test_resume.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lntx.base.files import sha256_of
from lntx.config.loading import settle
from lntx.config.schema import Data
from lntx.data import shards as parts
from lntx.data.dataset import open_dataset, read_blocks
from lntx.data.synthetic import generate_dataset
from lntx.training import checkpoints
from lntx.training import fit as training
from lntx.training.result import Fit


class _Killed(BaseException):
    """In place of a signal."""


def _fit(folder: Path, config: Any, checkpoint: Path | None = None) -> tuple[Fit, Any]:
    path = folder / "rows.parquet"
    if not path.exists():
        generate_dataset(config.data, path)
    _, fit, history = training.fit(open_dataset(path), config.train, bias=config.learns_bias, checkpoint=checkpoint)
    return fit, history


@pytest.mark.parametrize(
    "train",
    [
        pytest.param({"precondition": "none", "max_epochs": 60}, marks=pytest.mark.slow),
        {"precondition": "none", "momentum": 0.9, "max_epochs": 60},
        pytest.param({"precondition": "none", "gradient": "moments", "max_epochs": 60}, marks=pytest.mark.slow),
        {"precondition": "standardize", "gradient": "moments", "momentum": 0.5},
        {"precondition": "standardize", "dtype": "float32", "momentum": 0.5},
        pytest.param({"batch_size": 64, "max_epochs": 40}, marks=pytest.mark.slow),
        {"batch_size": 64, "momentum": 0.5, "precondition": "standardize"},
        pytest.param({"batch_size": 100, "tolerance": 0, "max_epochs": 30}, marks=pytest.mark.slow),
        # Exact steps follow at the end.
        {"data": {"weights": [1e9, 1e-9], "noise": 0.0}},
    ],
    ids=str,
)
def test_a_training_that_was_killed_anywhere_ends_in_the_same_bits(
    tmp_path: Path, train: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"weights": [1.5, -2.5], "bias": 0.5, "noise": 0.1, "num_rows": 500, **train.get("data", {})}
    train = {name: value for name, value in train.items() if name != "data"}
    config = settle(overrides={"data": data, "train": train})
    whole = _fit(tmp_path, config)
    monkeypatch.setattr(checkpoints, "_NO_SOONER_S", 0.0)
    monkeypatch.setattr(checkpoints, "_TIMES_ITS_COST", 0)
    epochs = len(whole[1]) - 1
    checkpoint = tmp_path / "checkpoint"
    real = checkpoints.Checkpoints.save
    for kept in sorted({1, 2, epochs // 2, epochs - 2, epochs - 1}):

        def save(self: Any, state: dict[str, Any], kept: int = kept) -> None:
            real(self, state)
            if len(state["history"]) > kept:
                raise _Killed

        checkpoint.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints.Checkpoints, "save", save)
            with pytest.raises(_Killed):
                _fit(tmp_path, config, checkpoint)
        assert checkpoint.exists()
        assert _fit(tmp_path, config, checkpoint) == whole


def test_a_damaged_checkpoint_is_none(tmp_path: Path) -> None:
    saved = checkpoints.Checkpoints(tmp_path / "checkpoint")
    assert saved.load() is None
    saved.save({"epochs": 3})
    assert saved.load() == {"epochs": 3}
    content = bytearray((tmp_path / "checkpoint").read_bytes())
    content[-20] ^= 1
    (tmp_path / "checkpoint").write_bytes(content)
    assert saved.load() is None
    (tmp_path / "checkpoint").write_bytes(b"")
    assert saved.load() is None


def test_checkpoints_cost_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is due after sixty times what the last one took."""
    now = [100.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    saved = checkpoints.Checkpoints(tmp_path / "checkpoint")
    assert not saved.due
    now[0] += 1.0
    assert saved.due
    real = checkpoints.sync
    monkeypatch.setattr(checkpoints, "sync", lambda path: (now.__setitem__(0, now[0] + 2.0), real(path)))
    saved.save({})
    now[0] += 119.0
    assert not saved.due
    now[0] += 2.0
    assert saved.due


@pytest.mark.parametrize("distribution", ["integers", "normal"])
def test_a_generation_that_was_killed_goes_on_and_makes_the_same_files(
    tmp_path: Path, distribution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_PART_NUMBERS", 2**18)
    monkeypatch.setattr("lntx.base.workers.cores", lambda: 1)
    data = Data.model_validate({"num_rows": 700_000, "distribution": distribution, "noise": 0.5})
    for name in ("whole", "killed", "whole/.resume", "killed/.resume"):
        (tmp_path / name).mkdir()
    whole = parts.generate_parts(data, tmp_path / "whole", tmp_path / "whole" / ".resume")
    assert len(whole) == 6
    real, written = parts.generate_dataset, []

    def stop_at_the_fourth(data: Data, path: Path, **rows: int) -> str:
        written.append(path.name)
        if len(written) == 4:
            raise _Killed
        return real(data, path, **rows)

    monkeypatch.setattr(parts, "generate_dataset", stop_at_the_fourth)
    arguments = (data, tmp_path / "killed", tmp_path / "killed" / ".resume")
    with pytest.raises(_Killed):
        parts.generate_parts(*arguments)
    # One of the finished files is damaged meanwhile: it is made again, the others are not.
    second = tmp_path / "killed" / ".resume" / "dataset-00001.parquet"
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    before = len(written)
    assert parts.generate_parts(*arguments) == whole
    again = set(written[before:])
    assert again >= {"dataset-00001.parquet", "dataset-00003.parquet", "dataset-00005.parquet"}
    # The fifth may have been begun before the fourth failed.
    assert again <= {f"dataset-0000{k}.parquet" for k in (1, 3, 4, 5)}
    for name, sha256 in whole.items():
        assert sha256_of(tmp_path / "killed" / name) == sha256


def test_rows_in_several_files_are_those_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_PART_NUMBERS", 2**18)
    data = Data.model_validate({"num_rows": 300_001, "weights": [1.0, 2.0], "noise": 0.5})
    (tmp_path / ".resume").mkdir()
    names = sorted(parts.generate_parts(data, tmp_path, tmp_path / ".resume"))
    generate_dataset(data, tmp_path / "one.parquet")
    several = open_dataset(*(tmp_path / name for name in names))
    assert several.num_rows == 300_001
    for part, block in zip(
        read_blocks(several, read_rows=777), read_blocks(open_dataset(tmp_path / "one.parquet")), strict=True
    ):
        assert (part.x == block.x).all()
        assert (part.y == block.y).all()
