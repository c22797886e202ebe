"""What `verify` names, what it heals, and what it knows to be lost. Run: pytest tests/core/test_verify.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lntx
from lntx.base.progress import on_progress
from lntx.runs.garbage import collect_garbage
from lntx.runs.history import list_runs
from lntx.runs.records import load_run, read_run, run_path
from lntx.runs.verify import mend_history, verify
from lntx.store.key import digest_of
from lntx.store.sealed import OtherVersion
from lntx.store.store import Store

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
    from lntx.runs.garbage import collect_garbage

    lntx.run(**SMALL, root=tmp_path)
    lntx.run(**SMALL, train={"seed": 1}, root=tmp_path)
    calls: list[int] = []

    def collect(_done: int, _total: int, _what: str) -> None:
        if not calls:
            collect_garbage(Store(tmp_path), keep=1)
        calls.append(1)

    with on_progress(collect):
        assert verify(Store(tmp_path)).damaged == ()
    assert calls


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 2}, r"was written by a newer lntx \(format 2\): upgrade lntx"),
        ({"a key of a newer one": 1}, r"was written by a newer lntx \(it has more keys\): upgrade lntx"),
        ({"stages": {}}, "was written by a version of lntx with other stages: read it with that version"),
    ],
)
def test_a_run_of_another_version_stays_and_breaks_nothing(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    first = lntx.run(**SMALL, root=tmp_path)
    path = run_path(Store(tmp_path), first.run)
    content = _sealed_again(path, change)
    assert _damaged(tmp_path) == []
    assert [*list_runs(Store(tmp_path))] == []
    with pytest.raises(OtherVersion, match=why):
        read_run(Store(tmp_path), first.run)
    collected = collect_garbage(Store(tmp_path), keep=1, older_than_s=0)
    assert (collected.removed, len(collected.held)) == ((), 1)
    assert lntx.run(**SMALL, root=tmp_path).verdict == "pass"
    assert verify(Store(tmp_path), heal=True).damaged == ()
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        {"digits": None}, {"reference_weights": []}, {"true_weights": [1.0, 2.0]},
        {"standard_errors": []}, {"learned_weights": [1.0] * 5}, {"created_at": "0001-01-01T00:00:00+00:00"}, None,
    ],
)  # fmt: skip
def test_a_run_that_no_run_writes_breaks_nothing(tmp_path: Path, change: dict[str, Any] | None) -> None:
    """None: its digest is gone."""
    first = lntx.run(**SMALL, root=tmp_path)
    path = run_path(Store(tmp_path), first.run)
    if change is None:
        values = json.loads(path.read_text())
        del values["digest"]
        path.write_text(json.dumps(values))
    else:
        _sealed_again(path, change)
    assert _damaged(tmp_path) == [f"artifacts/runs/{first.run}.json"]
    assert [*list_runs(Store(tmp_path))] == []
    assert lntx.run(**SMALL, root=tmp_path).verdict == "pass"
    assert _damaged(tmp_path) == []


def _sealed_again(path: Path, change: dict[str, Any]) -> bytes:
    """Change a file, as another version would write it; return its bytes."""
    values = {**json.loads(path.read_text()), **change}
    del values["digest"]
    path.write_text(json.dumps({**values, "digest": digest_of(values)}))
    return path.read_bytes()


@pytest.mark.parametrize("stage", ["generate", "evaluate"])
def test_a_record_without_its_files_is_computed_again(tmp_path: Path, stage: Any) -> None:
    lntx.run(**SMALL, root=tmp_path)
    (path,) = (tmp_path / "artifacts" / "records" / stage).iterdir()
    for files in ([], [{"name": "x.txt", "path": "data/x-0.txt", "sha256": "0" * 64, "size": 0}]):
        values = {**json.loads(path.read_text()), "files": files}
        del values["digest"]
        path.write_text(json.dumps({**values, "digest": digest_of(values)}))
        assert lntx.run(**SMALL, root=tmp_path).stages[stage].state == "ran"
