"""What `verify` names, what it heals, and what it knows to be lost. Run: pytest tests/core/test_verify.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lntx
from lntx.runs import load_run
from lntx.store import Store
from lntx.verification import mend_history, verify

SMALL: dict[str, Any] = {"export": {"formats": ["safetensors"]}, "data": {"num_rows": 50}}


def _damaged(root: Path) -> list[str]:
    return [damage.path for damage in verify(Store(root)).damaged]


@pytest.mark.parametrize("stage", ["generate", "train", "evaluate", "export"])
@pytest.mark.parametrize("harm", ["gone", "altered"])
def test_healing_ends_it_and_the_loss_is_known(tmp_path: Path, stage: Any, harm: str) -> None:
    """After `--heal` nothing is damaged, the run says what it lost, and the next run has it again."""
    run = lntx.run(**SMALL, root=tmp_path)
    file = run.stages[stage].files[0].path
    path = tmp_path / file
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(b"other")
    assert _damaged(tmp_path) == [file]
    healed = verify(Store(tmp_path), heal=True)
    assert (healed.set_aside, [damage.path for damage in healed.damaged]) == (True, [file])
    again = verify(Store(tmp_path))
    assert again.damaged == ()
    assert [(loss.path, loss.run) for loss in again.losses] == [(file, run.run)]
    assert load_run(Store(tmp_path), run.run).lost == (file,)
    assert list(Store(tmp_path).records(stage)) == []
    if harm == "altered":
        assert b"other" in [kept.read_bytes() for kept in (tmp_path / "artifacts" / ".damaged").iterdir()]
    cured = lntx.run(**SMALL, root=tmp_path)
    assert cured.stages[stage].state == "ran"
    found = verify(Store(tmp_path))
    assert (found.damaged, found.losses) == ((), ())


def test_exports_that_a_run_or_the_pointer_names_are_missed_when_their_record_is_gone_too(tmp_path: Path) -> None:
    run = lntx.run(**SMALL, root=tmp_path)
    path = tmp_path / run.exports["safetensors"]
    for record in (tmp_path / "artifacts" / "records" / "export").iterdir():
        record.unlink()
    assert _damaged(tmp_path) == []
    path.unlink()
    assert _damaged(tmp_path) == [run.exports["safetensors"]]
    (tmp_path / "artifacts" / "runs" / f"{run.run}.json").unlink()
    assert _damaged(tmp_path) == ["artifacts/current.json"]
    verify(Store(tmp_path), heal=True)
    assert _damaged(tmp_path) == []


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 50_000, b"\xff", b"[]", b'{"digest": 1, "format": []}', b"9" * 10_000]
)
def test_a_record_that_is_anything_is_one_damaged_record(tmp_path: Path, content: bytes) -> None:
    run = lntx.run(**SMALL, root=tmp_path)
    (record,) = (tmp_path / "artifacts" / "records" / "train").iterdir()
    record.write_bytes(content)
    (tmp_path / "artifacts" / "runs" / f"{run.run}.json").write_bytes(content)
    names = {f"artifacts/records/train/{record.name}", f"artifacts/runs/{run.run}.json"}
    assert set(_damaged(tmp_path)) == names
    mend_history(Store(tmp_path))
    assert _damaged(tmp_path) == []
    assert {path.read_bytes() for path in (tmp_path / "artifacts" / ".damaged").iterdir()} == {content}
    assert [report.state for report in lntx.run(**SMALL, root=tmp_path).stages.values()].count("ran") == 1


def test_what_is_removed_meanwhile_is_no_damage(tmp_path: Path) -> None:
    """A collection that runs while `verify` reads takes nothing that `verify` then misses."""
    from lntx.garbage import collect_garbage

    lntx.run(**SMALL, root=tmp_path)
    lntx.run(**SMALL, train={"seed": 1}, root=tmp_path)
    calls: list[int] = []

    def collect(_done: int, _all: int) -> None:
        if not calls:
            collect_garbage(Store(tmp_path), keep=1)
        calls.append(1)

    assert verify(Store(tmp_path), progress=collect).damaged == ()
    assert calls
