"""Bytes that change, shrink, vanish or are exchanged: verify names them, one stage runs again, the bits come back.

Run: pytest tests/faults/test_damage.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import STAGES, Done, bits, copy, damaged, lntx_here, run, stage_of, states, stored_files

pytestmark = pytest.mark.timeout(300)

# The files of a root by what they are called before the digest; "record" and "run" stand for JSON of the history.
FILES = {
    "rows": "data/dataset-",
    "weights": "artifacts/train/model-",
    "history": "artifacts/train/history-",
    "fit": "artifacts/train/fit-",
    "evaluation": "artifacts/evaluate/evaluation-",
    "safetensors": "artifacts/export/model-{}.safetensors",
    "pt2": "artifacts/export/model-{}.pt2",
    "card": "artifacts/export/card-",
    "record of generate": "artifacts/records/generate/",
    "record of train": "artifacts/records/train/",
    "record of evaluate": "artifacts/records/evaluate/",
    "record of export": "artifacts/records/export/",
    "run": "artifacts/runs/",
    "current": "artifacts/current.json",
}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _delete(path: Path) -> None:
    path.unlink()


DAMAGES = {"a flipped bit": _flip, "a truncated file": _truncate, "an emptied file": _empty, "a deleted file": _delete}


def _place(root: Path, what: str) -> Path:
    start, _, end = FILES[what].partition("{}")
    (name,) = [name for name in stored_files(root) if name.startswith(start) and name.endswith(end)]
    return root / name


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_named_and_healed(
    clean: tuple[Path, Done], clean_bits: dict[str, list[str]], tmp_path: Path, how: str, what: str
) -> None:
    root = copy(clean[0], tmp_path / "root")
    path = _place(root, what)
    DAMAGES[how](path)
    name = path.relative_to(root).as_posix()
    # A record, a run or a pointer that is gone is not bytes that were damaged: nothing refers to it.
    is_history = name.startswith("artifacts/records/") or stage_of(name) is None
    expected = [] if how == "a deleted file" and is_history else [name]
    assert damaged(root) == expected
    healed = run(root)
    assert bits(healed) == clean_bits
    ran = [stage for stage, state in states(healed).items() if state == "ran"]
    assert ran == ([] if stage_of(name) is None else [stage_of(name)])
    if expected and what != "current":
        assert path.name in healed.err or Path(name).stem in healed.err
    assert damaged(root) == []
    assert set(states(run(root)).values()) == {"cached"}


def _exchange(root: Path) -> str:
    """Another result in place of the right one, whole in itself."""
    other = root.parent / "other"
    assert run(other, "--data.num-rows", "500").code == 0
    place = _place(root, "safetensors")
    shutil.copy(_place(other, "safetensors"), place)
    return place.relative_to(root).as_posix()


def _exchange_records(root: Path) -> str:
    """The record of one stage under the name of another's."""
    place = _place(root, "record of train")
    shutil.copy(_place(root, "record of export"), place)
    return place.relative_to(root).as_posix()


def _folder(name: str) -> Callable[[Path], str]:
    def remove(root: Path) -> str:
        shutil.rmtree(root / name)
        return name

    return remove


@pytest.mark.parametrize(
    ("damage", "reruns"),
    [
        pytest.param(_exchange, ["export"], id="a swapped artifact"),
        pytest.param(_exchange_records, ["train"], id="a swapped record"),
        pytest.param(_folder("data"), ["generate"], id="data gone"),
        pytest.param(_folder("artifacts/train"), ["train"], id="train gone"),
        pytest.param(_folder("artifacts/evaluate"), ["evaluate"], id="evaluate gone"),
        pytest.param(_folder("artifacts/export"), ["export"], id="export gone"),
        pytest.param(_folder("artifacts/records/train"), ["train"], id="records of train gone"),
        pytest.param(_folder("artifacts/records"), [*STAGES], id="records gone"),
        pytest.param(_folder("artifacts/runs"), [], id="runs gone"),
        pytest.param(_folder("artifacts/.locks"), [], id="locks gone"),
        pytest.param(_folder("artifacts"), [*STAGES], id="artifacts gone"),
    ],
)
def test_what_is_exchanged_or_gone_is_made_again(
    clean: tuple[Path, Done],
    clean_bits: dict[str, list[str]],
    tmp_path: Path,
    damage: Callable[[Path], str],
    reruns: list[str],
) -> None:
    root = copy(clean[0], tmp_path / "root")
    damage(root)
    healed = run(root)
    assert bits(healed) == clean_bits
    assert [stage for stage, state in states(healed).items() if state == "ran"] == reruns
    assert damaged(root) == []


def test_damage_of_other_results_is_set_aside_on_demand(clean: tuple[Path, Done], tmp_path: Path) -> None:
    """What no coming run reads stays named until it is healed."""
    root = copy(clean[0], tmp_path / "root")
    assert run(root, "--data.num-rows", "500").code == 0
    old = root / clean[1].json["stages"]["generate"]["files"][0]["path"]
    _flip(old)
    name = old.relative_to(root).as_posix()
    assert damaged(root) == [name]
    healed = lntx_here("verify", "--heal", "--json", root=root)
    assert (healed.code, healed.json["set_aside"]) == (0, True)
    assert list((root / "artifacts" / ".damaged").iterdir())
    assert bits(run(root)) == bits(clean[1])
    assert damaged(root) == []


def test_a_clock_that_was_set_back_hides_no_damage(clean: tuple[Path, Done], tmp_path: Path) -> None:
    """Files and notes from the future are neither trusted nor in the way."""
    root = copy(clean[0], tmp_path / "root")
    assert run(root, "--data.num-rows", "600000", "--data.distribution", "uniform").code == 0
    memo = root / "artifacts" / ".verified.json"
    said = json.loads(memo.read_text())
    (large,) = said
    said[large]["read_at"] += 10 * 365 * 86400
    memo.write_text(json.dumps(said))
    content = bytearray((root / large).read_bytes())
    content[1000] ^= 1
    (root / large).write_bytes(content)
    healed = run(root, "--data.num-rows", "600000", "--data.distribution", "uniform")
    assert states(healed)["generate"] == "ran"
    assert damaged(root) == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"a": {"state": 3}}', b"\xff\xfe"])
def test_a_damaged_memo_costs_reading_alone(clean: tuple[Path, Done], tmp_path: Path, content: bytes) -> None:
    root = copy(clean[0], tmp_path / "root")
    (root / "artifacts" / ".verified.json").write_bytes(content)
    assert set(states(run(root)).values()) == {"cached"}
