"""Only what lntx wrote is removed or moved, whatever others are called. Run: pytest tests/core/test_own_files.py"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lntx
from lntx.base.errors import BadInput
from lntx.config.loading import settle
from lntx.pipeline.conclude import write_report_file
from lntx.pipeline.table import TABLE
from lntx.pipeline.work import compute_generate
from lntx.runs.garbage import collect_garbage, pin
from lntx.runs.records import run_names, run_path
from lntx.runs.verify import mend_history, verify
from lntx.store.key import digest_of
from lntx.store.store import Store
from lntx.sweep.sweep import sweep

KEY = "0123456789abcdef" * 4
SMALL: dict[str, Any] = {"export": {"formats": ["safetensors"]}, "data": {"num_rows": 50}}


def _tree(root: Path, names: list[str]) -> dict[str, bytes | str]:
    """What stands at some paths: bytes of a file, where a link leads."""
    return {
        name: str((root / name).readlink()) if (root / name).is_symlink() else (root / name).read_bytes()
        for name in names
        if (root / name).is_symlink() or (root / name).is_file()
    }


def _everything(root: Path) -> None:
    """All that may remove or move something: runs, a crash in the middle, garbage collection, healing."""
    lntx.run(**SMALL, train={"seed": 5}, root=root)
    with pytest.MonkeyPatch.context() as patch:

        def crash(*_rest: Any) -> None:
            raise KeyboardInterrupt

        patch.setitem(TABLE, "evaluate", dataclasses.replace(TABLE["evaluate"], work=crash))
        with pytest.raises(KeyboardInterrupt):
            lntx.run(**SMALL, train={"seed": 6}, root=root)
    store = Store(root)
    verify(store, heal=True)
    collect_garbage(store, keep=0, damaged=False)
    lntx.run(**SMALL, train={"seed": 7}, root=root)
    collect_garbage(store, keep=1, older_than_s=0.0)
    verify(store, heal=True)


@pytest.mark.parametrize(
    "name",
    [
        "data/orders-0123456789abcdef.csv",
        "data/dataset-0123456789abcdef.parquet",
        "artifacts/train/model-0123456789abcdef.safetensors",
        "data/.staging-mine/notes.txt",
        f"data/.staging-{KEY}/dataset.parquet",
        f"artifacts/train/.staging-{KEY}/.resume/checkpoint",
        "artifacts/.notes.json-2024-01",
        "artifacts/runs/.20240101-000000-000000.json-77-deadbeef",
        "artifacts/runs/2024-notes.json",
        "artifacts/runs/20240101-000000-000000.json",
        f"artifacts/records/train/0123456789abcdef-{KEY}.json",
        "artifacts/reports/20240101-000000-000000.md",
        "artifacts/.locks/run-77-deadbeef.using",
        f"artifacts/.locks/{KEY}.lock",
        "artifacts/.damaged/artifacts-current.json",
    ],
)
def test_a_name_like_the_stores_makes_no_file_its_own(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    old = time.time() - 30 * 86400
    for place in (path, path.parent):
        os.utime(place, (old, old))
    _everything(tmp_path)
    assert path.read_bytes() == b"mine"


_FOLDERS = [
    *("data", "artifacts", "artifacts/train", "artifacts/evaluate", "artifacts/export", "artifacts/records/train"),
    *("artifacts/runs", "artifacts/reports", "artifacts/pins", "artifacts/sweeps", "artifacts/.locks"),
    *("artifacts/.damaged", f"data/.staging-{KEY}", "artifacts/export/.staging-x/.resume", "data/mine"),
]
_HEX = st.text("0123456789abcdef", min_size=16, max_size=16)
_RUN = st.from_regex(r"\A2[0-9]{7}-[0-9]{6}-[0-9]{6}\Z")
_NAMES = st.one_of(
    st.builds(
        "{}-{}.{}".format, st.sampled_from(["dataset", "model", "fit", "a"]), _HEX, st.sampled_from(["parquet", "csv"])
    ),
    st.builds("{}-{}.json".format, _HEX, st.just(KEY)),
    st.builds("{}.{}".format, _RUN, st.sampled_from(["json", "md", "html"])),
    st.builds(".{}.json-{}-{}".format, st.sampled_from(["current", "x"]), st.integers(0, 9999), _HEX),
    st.builds("run-{}-{}.using".format, st.integers(1, 9999), st.text("0123456789abcdef", min_size=8, max_size=8)),
    st.sampled_from(["checkpoint", "model.safetensors", "notes.txt", "dataset-00000.parquet", ".key", f"{KEY}.lock"]),
    st.from_regex(r"\A[a-zA-Z0-9 ._-]{1,20}\Z").filter(lambda name: name.strip(". ") != ""),
)
_OURS = re.compile(r"artifacts/(current\.json|\.journal\.jsonl(\.new)?|\.verified\.json)|artifacts/\.locks/store\.lock")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    foreign=st.dictionaries(
        st.tuples(st.sampled_from(_FOLDERS), _NAMES),
        st.one_of(st.binary(max_size=40), st.sampled_from(["a copy of ours", "a link to ours", KEY])),
        min_size=5,
        max_size=25,
    )
)
def test_whatever_stands_beside_our_own_stays(
    tmp_path_factory: pytest.TempPathFactory, foreign: dict[tuple[str, str], bytes | str]
) -> None:
    """Any name in any folder, with any bytes, those of our own files too: the same path and bytes after everything."""
    root = tmp_path_factory.mktemp("root")
    lntx.run(**SMALL, root=root)
    ours = sorted(path for folder in ("data", "artifacts") for path in (root / folder).rglob("*") if path.is_file())
    names = []
    for (folder, name), content in foreign.items():
        path = root / folder / name
        # A staging folder that holds its own key is ours by definition.
        is_mark = (folder, name, content) == (f"data/.staging-{KEY}", ".key", KEY)
        if is_mark or path.exists() or _OURS.fullmatch(f"{folder}/{name}"):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        copied = ours[len(name) % len(ours)]
        if content == "a link to ours":
            path.symlink_to(copied)
        else:
            path.write_bytes(
                copied.read_bytes()
                if content == "a copy of ours"
                else content
                if isinstance(content, bytes)
                else content.encode()
            )
        names.append(f"{folder}/{name}")
    before = _tree(root, names)
    _everything(root)
    assert _tree(root, names) == before


def test_what_is_in_the_way_is_kept_aside_and_nothing_there_is_replaced(tmp_path: Path) -> None:
    run = lntx.run(**SMALL, root=tmp_path)
    path = tmp_path / run.stages["generate"].files[0].path
    for content in (b"first", b"second"):
        path.write_bytes(content)
        lntx.run(**SMALL, root=tmp_path)
    aside = tmp_path / "artifacts" / ".damaged"
    assert sorted(one.read_bytes() for one in aside.iterdir()) == [b"first", b"second"]
    collect_garbage(Store(tmp_path), keep=0)
    assert len(list(aside.iterdir())) == 2
    collect_garbage(Store(tmp_path), keep=0, damaged=True, dry_run=True)
    assert len(list(aside.iterdir())) == 2
    collect_garbage(Store(tmp_path), keep=0, damaged=True)
    assert list(aside.iterdir()) == []


def test_own_files_go_whether_a_journal_knows_them_or_their_record(tmp_path: Path) -> None:
    first = lntx.run(**SMALL, root=tmp_path)
    lntx.run(**SMALL, train={"seed": 1}, root=tmp_path)
    (tmp_path / "artifacts" / ".journal.jsonl").unlink()
    last = lntx.run(**SMALL, train={"seed": 2}, root=tmp_path)
    # One whose record is lost, which the journal knows alone.
    lost = lntx.run(**SMALL, train={"seed": 3}, root=tmp_path)
    for path in (tmp_path / "artifacts" / "records" / "train").glob(f"*{lost.stages['train'].key}*"):
        path.unlink()
    run_path(Store(tmp_path), lost.run).unlink()
    pointer = tmp_path / "artifacts" / "current.json"
    pointer.write_text(json.dumps({"run": last.run, "exports": last.exports}))
    collect_garbage(Store(tmp_path), keep=1)
    needed = {file.path for report in last.stages.values() for file in report.files}
    left = {
        path.relative_to(tmp_path).as_posix()
        for folder in ("data", "artifacts/train", "artifacts/evaluate", "artifacts/export")
        for path in (tmp_path / folder).iterdir()
    }
    assert left == needed
    assert run_names(Store(tmp_path)) == [last.run]
    assert first.stages["generate"].files[0].path in needed


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    lntx.run(**SMALL, root=tmp_path)
    lntx.run(**SMALL, train={"seed": 1}, root=tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    before = _tree(tmp_path, names)
    found = collect_garbage(Store(tmp_path), keep=0, dry_run=True)
    assert found.removed
    assert _tree(tmp_path, [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]) == before
    collect_garbage(Store(tmp_path / "none"), keep=0, dry_run=True)
    assert not (tmp_path / "none").exists()


def _forged(path: Path, change: Any) -> None:
    """Change a record, and give it a digest that fits."""
    values = json.loads(path.read_text())
    values.pop("digest", None)
    change(values)
    path.write_text(json.dumps({**values, "digest": digest_of(values)}))


@pytest.mark.parametrize(
    "place", ["../outside/keep.txt", "/{}/outside/keep.txt", "data/../../outside/keep.txt", "artifacts/train/../../x"]
)
def test_a_path_in_a_record_never_leaves_its_folder(tmp_path: Path, place: str) -> None:
    outside = tmp_path / "outside" / "keep.txt"
    outside.parent.mkdir()
    outside.write_text("mine")
    root = tmp_path / "root"
    lntx.run(**SMALL, root=root)
    lntx.run(**SMALL, train={"seed": 1}, root=root)
    place = place.format(str(tmp_path).strip("/"))

    def change(values: dict[str, Any]) -> None:
        values["files"][0]["path"] = place

    for path in (root / "artifacts" / "records").rglob("*.json"):
        _forged(path, change)
    for path in (root / "artifacts" / "runs").glob("*.json"):
        _forged(path, lambda values: values.update(report=place, exports={"safetensors": place}))
    (root / "artifacts" / "current.json").write_text(json.dumps({"run": place, "exports": {"safetensors": place}}))
    (root / "artifacts" / ".journal.jsonl").write_text(json.dumps({"path": place, "sha256": None}))
    _everything(root)
    assert outside.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "root"]


def test_a_key_in_a_record_opens_no_file_outside(tmp_path: Path) -> None:
    outside = tmp_path / "uv.lock"
    outside.write_text("mine")
    root = tmp_path / "root"
    lntx.run(**SMALL, root=root)
    (path,) = (root / "artifacts" / "records" / "train").iterdir()
    _forged(path, lambda values: values.update(key="../../../uv"))
    collect_garbage(Store(root), keep=0, dry_run=True)
    collect_garbage(Store(root), keep=0)
    assert outside.read_text() == "mine"
    lock = root / "artifacts" / ".locks" / f"{KEY}.lock"
    lock.write_text("mine")
    with Store(root).lock(KEY):
        assert lock.read_text() == "mine"


def test_data_and_artifacts_may_be_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("data", "artifacts"):
        (tmp_path / f"real {name}").mkdir()
        (root / name).symlink_to(tmp_path / f"real {name}")
    run = lntx.run(**SMALL, root=root)
    assert {report.state for report in lntx.run(**SMALL, root=root).stages.values()} == {"cached"}
    lntx.run(**SMALL, train={"seed": 1}, root=root)
    collect_garbage(Store(root), keep=1)
    assert not (root / run.stages["train"].files[0].path).exists()
    assert verify(Store(root)).damaged == ()


def test_old_reports_and_sweeps_go_too(tmp_path: Path) -> None:
    run = lntx.run(**SMALL, root=tmp_path)
    store = Store(tmp_path)
    with store.shared():
        page = write_report_file(store, run, "html", "a page")
    found = sweep(settle(overrides={"data": {"num_rows": 50}}), {"train.seed": [1, 2]}, root=tmp_path)
    lntx.run(**SMALL, train={"seed": 1}, root=tmp_path)
    collect_garbage(store, keep=1)
    assert not page.exists()
    assert (tmp_path / found.file).exists()
    collect_garbage(store, keep=1, older_than_s=0.0)
    assert list((tmp_path / "artifacts" / "sweeps").iterdir()) == []


def test_a_folder_of_somebody_elses_is_not_computed_into(tmp_path: Path) -> None:
    """Nor is a link followed, or a file taken that stages do not make, in a folder of ours either."""
    run = lntx.run(**SMALL, root=tmp_path)
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    for name in ("model.txt", "fit.json", "sub/card.json", ".key"):
        (outside / name).write_text(run.stages["train"].key or "")
    keys = {stage: report.key for stage, report in run.stages.items()}
    (tmp_path / "artifacts" / "train" / f".staging-{keys['train']}").symlink_to(outside)
    ours = tmp_path / "artifacts" / "evaluate" / f".staging-{keys['evaluate']}"
    (ours / "mynotes").mkdir(parents=True)
    (ours / ".key").write_text(str(keys["evaluate"]))
    mine = [ours / "mynotes" / "model.bak", ours / "dataset.json"]
    for path in mine:
        path.write_text("mine")
    before = _tree(tmp_path, [path.relative_to(tmp_path).as_posix() for path in [*outside.rglob("*"), *mine]])
    assert lntx.run(**SMALL, root=tmp_path, force="all").verdict == "pass"
    collect_garbage(Store(tmp_path), keep=9)
    assert _tree(tmp_path, list(before)) == before


def test_files_in_the_places_of_the_journal_the_pointer_and_sweeps_are_kept(tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    (artifacts / "current.json").write_text("mine")
    (artifacts / ".journal.jsonl.new").write_text("mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("mine")
    lntx.run(**SMALL, root=tmp_path)
    assert [path.read_text() for path in (artifacts / ".damaged").iterdir()] == ["mine"]
    (artifacts / ".damaged").rename(tmp_path / "before")
    (artifacts / ".damaged").symlink_to(elsewhere)
    collect_garbage(Store(tmp_path), keep=1, damaged=True)
    assert (elsewhere / "file").read_text() == "mine"
    assert (artifacts / ".journal.jsonl.new").read_text() == "mine"
    asked = settle(overrides={"data": {"num_rows": 50}}), {"train.seed": [1, 2]}
    first = sweep(*asked, root=tmp_path / "other")
    for name in (first.file, first.picture):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    assert sweep(*asked, root=tmp_path).sweep == first.sweep
    assert sorted(path.read_text() for path in elsewhere.iterdir()) == ["mine"] * 3


@pytest.mark.timeout(150)
def test_a_pipe_for_a_journal_stops_a_run_at_once(tmp_path: Path) -> None:
    lntx.run(**SMALL, root=tmp_path)
    (tmp_path / "artifacts" / ".journal.jsonl").unlink()
    os.mkfifo(tmp_path / "artifacts" / ".journal.jsonl")
    with pytest.raises(OSError, match=r"not a regular file|No such device"):
        lntx.run(**SMALL, train={"seed": 1}, root=tmp_path)


@pytest.mark.parametrize("harm", ["an altered byte", "no digest", "gone", "the pointer's"])
def test_what_a_run_that_cannot_be_read_may_need_stays(tmp_path: Path, harm: str) -> None:
    """Pinned, or the last passing one: its results stay, and why is said."""
    first = lntx.run(**SMALL, root=tmp_path)
    store = Store(tmp_path)
    path = run_path(store, first.run)
    if harm != "the pointer's":
        pin(store, first.run)
        lntx.run(**SMALL, train={"seed": 1}, root=tmp_path)
        lntx.run(**SMALL, train={"seed": 2}, root=tmp_path)
    if harm == "no digest":
        values = json.loads(path.read_text())
        del values["digest"]
        path.write_text(json.dumps(values))
    elif harm == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text().replace("pass", "pasS", 1))
    mend_history(store)
    found = collect_garbage(store, keep=0)
    assert all((tmp_path / file.path).exists() for report in first.stages.values() for file in report.files)
    assert found.held
    if harm == "gone":
        pin(store, first.run, remove=True)
        assert collect_garbage(store, keep=0).held == ()


def test_damage_is_set_aside_from_another_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """data/ may be a link to one: a move becomes a copy."""
    run = lntx.run(**SMALL, root=tmp_path)
    path = tmp_path / run.stages["generate"].files[0].path
    path.write_bytes(b"mine")
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if target.parent.name == ".damaged":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert lntx.run(**SMALL, root=tmp_path).stages["generate"].state == "ran"
    assert [one.read_bytes() for one in (tmp_path / "artifacts" / ".damaged").iterdir()] == [b"mine"]


@pytest.mark.timeout(150)
def test_a_folder_of_a_stage_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "train").symlink_to(tmp_path / "not mounted")
    with pytest.raises(OSError, match="File exists"):
        lntx.run(**SMALL, root=tmp_path)


def test_rows_of_a_file_that_changed_are_not_stored_under_its_old_name(tmp_path: Path) -> None:
    """Between the digest and the reading: a run that waits for another's lock may wait for hours."""
    table = tmp_path / "table.csv"
    table.write_text("y,a\n2,1\n4,2\n6,3\n")

    def change_first(*rest: Any) -> Any:
        table.write_text("y,a\n20,1\n40,2\n60,3\n")
        return compute_generate(*rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TABLE, "generate", dataclasses.replace(TABLE["generate"], work=change_first))
        with pytest.raises(BadInput, match="changed while it was read"):
            lntx.fit(table, target="y", root=tmp_path, export={"formats": ["safetensors"]})
    table.write_text("y,a\n2,1\n4,2\n6,3\n")
    assert lntx.fit(table, target="y", root=tmp_path).learned_weights == (2.0,)
