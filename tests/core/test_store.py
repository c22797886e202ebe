"""The store: whole files or none, verified hits, quarantine, locks. Run: pytest tests/core/test_store.py"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from lntx.base.errors import BadInput, LntxError
from lntx.base.files import write_json
from lntx.store.key import Identity
from lntx.store.record import Record
from lntx.store.store import Store

IDENTITY = Identity(stage="train", code={"model": "1"}, versions={}, config={"train.seed": 0}, inputs={"generate": "a"})


def _published(store: Store, content: bytes = b"weights") -> Record:
    store.prepare()
    with store.staging("train", IDENTITY.key) as folder:
        (folder / "model.bin").write_bytes(content)
        (folder / "fit.json").write_text("{}")
        return store.publish(IDENTITY, folder, seconds=1.0, environment={})


def test_what_is_published_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = _published(store)
    found = store.find(IDENTITY)
    assert found.state == "fresh"
    assert found.record == record
    model = record.file("model.bin")
    assert store.path(model).read_bytes() == b"weights"
    assert model.path == f"artifacts/train/model-{model.sha256[:16]}.bin"
    assert not list((tmp_path / "artifacts" / "train").glob(".staging*"))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(b"weightS"), "was altered"),
        (lambda path: path.write_bytes(b"weight"), "has 6 bytes in place of 7"),
        (lambda path: path.write_bytes(b""), "has 0 bytes in place of 7"),
    ],
)
def test_a_harmed_file_is_never_a_hit(tmp_path: Path, harm: object, reason: str) -> None:
    store = Store(tmp_path)
    path = store.path(_published(store).file("model.bin"))
    assert callable(harm)
    harm(path)
    found = store.find(IDENTITY)
    assert found.state == "damaged"
    assert f"{path.relative_to(tmp_path)} {reason}" in (found.reason or "")
    _published(store)
    assert store.find(IDENTITY).state == "fresh"


def test_a_large_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    content = os.urandom(5 * 2**20)
    path = store.path(_published(store, content).file("model.bin"))
    hashed: list[str] = []
    from lntx.store import stat_cache

    real = stat_cache.sha256_of
    monkeypatch.setattr(stat_cache, "sha256_of", lambda file: hashed.append(file.name) or real(file))
    # Its digest was taken when it was published.
    assert store.find(IDENTITY).state == "fresh"
    assert path.name not in hashed
    # The same size, and the time of modification put back: the time of change tells.
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=times)
    assert store.find(IDENTITY).state == "damaged"


def test_a_damaged_record_is_not_used_and_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = _published(store)
    (path,) = (tmp_path / "artifacts" / "records" / "train").glob(f"*{record.key}.json")
    values = json.loads(path.read_text())
    values["seconds"] = 2.0
    path.write_text(json.dumps(values))
    found = store.find(IDENTITY)
    assert found.state == "damaged"
    assert "not those that were written" in (found.reason or "")
    for junk in ("", "[]", "{}", '{"format": 1}', "\x00"):
        path.write_text(junk)
        assert store.find(IDENTITY).state == "damaged"
    store.set_aside(store.record_path(IDENTITY))
    assert [kept.name for kept in (tmp_path / "artifacts" / ".damaged").iterdir()] == [
        f"artifacts-records-train-{path.name}"
    ]
    assert store.find(IDENTITY).state == "missing"


def test_a_record_of_a_newer_lntx_is_refused_politely(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = _published(store)
    (path,) = (tmp_path / "artifacts" / "records" / "train").glob(f"*{record.key}.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(LntxError, match=r"written by a newer lntx \(format 2\): upgrade lntx"):
        store.find(IDENTITY)
    assert json.loads(path.read_text())["format"] == 2


def test_a_quarantined_record_is_kept_and_never_a_hit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = _published(store)
    store.quarantine(record, "the answer was wrong")
    found = store.find(IDENTITY)
    assert found.state == "quarantined"
    assert found.record is not None
    assert found.record.files == record.files
    assert "the answer was wrong" in (found.reason or "")


def test_foreign_files_among_the_records_are_passed_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = _published(store)
    folder = tmp_path / "artifacts" / "records" / "train"
    (folder / "notes.txt").write_text("mine")
    (folder / "other.json").write_text("{}")
    assert list(store.records("train")) == [record]


def test_a_failed_stage_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()

    def fail() -> None:
        with store.staging("train", IDENTITY.key) as folder:
            (folder / "model.bin").write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list((tmp_path / "artifacts" / "train").iterdir()) == []
    assert store.find(IDENTITY).state == "missing"


def test_a_root_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(BadInput, match="is not a folder"):
        Store(file)
    with pytest.raises(BadInput, match="choose --root"):
        Store("/proc/lntx").prepare()


def _hold(root: Path, held: Event) -> None:
    with Store(root).lock("key"):
        held.set()
        time.sleep(60)


def test_a_killed_holder_frees_its_lock(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    held = multiprocessing.get_context("spawn").Event()
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path, held))
    holder.start()
    assert held.wait(30)
    with store.lock("another key"):
        pass
    holder.kill()
    holder.join()
    with store.lock("key"):
        pass


def test_json_files_are_replaced_whole_and_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "current.json"
    write_json(path, {"run": "a"})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"run": float("nan")})
    assert json.loads(path.read_text()) == {"run": "a"}
    assert list(tmp_path.iterdir()) == [path]
    before = os.umask(0o022)
    try:
        write_json(path, {"run": "b"})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
