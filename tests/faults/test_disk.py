"""Full disks, read-only folders and unusual roots. Run: pytest tests/faults/test_disk.py"""

from __future__ import annotations

import ctypes
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driving import SETTINGS, Done, bits, copy, damaged, lntx, run, states

pytestmark = pytest.mark.timeout(300)

_CAP_DAC_OVERRIDE = 1
_PR_CAPBSET_DROP = 24


def _no_file_beyond(size: int) -> Callable[[], None]:
    """A disk on which no file can become larger."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _as_anybody() -> None:
    """Let file modes count even for root: lntx is then refused what another user would be."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)


@pytest.mark.parametrize(
    "size", [1000, *(pytest.param(size, marks=pytest.mark.slow) for size in (0, 1500, 5000, 30_000))]
)
def test_a_full_disk_is_said_and_loses_nothing(
    clean: tuple[Path, Done], clean_bits: dict[str, list[str]], tmp_path: Path, size: int
) -> None:
    root = copy(clean[0], tmp_path / "root")
    other = ("--data.num-rows", "4000", "--data.noise", "0.5", "--data.bias", "1")
    full = run(root, *other, before=_no_file_beyond(size))
    assert full.code == 1
    assert "cannot write" in full.json["error"]["message"]
    assert "Traceback" not in full.err
    assert damaged(root) == []
    assert bits(run(root)) == clean_bits
    assert run(root, *other).code == 0
    assert damaged(root) == []


@pytest.fixture
def locked() -> Iterator[Callable[[Path], None]]:
    """Folders that nobody may write to, until the test has ended."""
    folders: list[Path] = []

    def lock(folder: Path) -> None:
        folders.append(folder)
        folder.chmod(0o555)

    yield lock
    for folder in folders:
        folder.chmod(0o755)


@pytest.mark.parametrize(
    "name",
    ["artifacts", *(pytest.param(name, marks=pytest.mark.slow) for name in ("data", "artifacts/records"))],
)
def test_a_read_only_folder_is_named_before_anything_starts(
    clean: tuple[Path, Done], tmp_path: Path, name: str, locked: Callable[[Path], None]
) -> None:
    root = copy(clean[0], tmp_path / "root")
    shutil.rmtree(root / "artifacts" / ".locks")
    locked(root / name)
    refused = run(root, before=_as_anybody)
    assert refused.code == 2
    assert "cannot write to" in refused.json["error"]["message"]
    # To look is allowed.
    assert lntx("plan", *SETTINGS, root=root, before=_as_anybody).code == 0
    assert lntx("show", root=root, before=_as_anybody).code == 0
    assert lntx("verify", root=root, before=_as_anybody).code == 0


@pytest.mark.slow
def test_a_result_that_cannot_be_placed_is_an_error_of_one_line(
    clean: tuple[Path, Done], clean_bits: dict[str, list[str]], tmp_path: Path, locked: Callable[[Path], None]
) -> None:
    root = copy(clean[0], tmp_path / "root")
    locked(root / "artifacts" / "train")
    refused = run(root, *SETTINGS, "--force", "train", before=_as_anybody)
    assert refused.code == 1
    assert "artifacts/train" in refused.json["error"]["message"]
    (root / "artifacts" / "train").chmod(0o755)
    assert bits(run(root)) == clean_bits


def test_a_root_may_be_a_link_with_spaces_and_chinese_and_may_move(
    clean: tuple[Path, Done], clean_bits: dict[str, list[str]], tmp_path: Path
) -> None:
    place = tmp_path / "一个 folder with spaces" / "数据"
    place.parent.mkdir()
    copy(clean[0], place)
    link = tmp_path / "link"
    link.symlink_to(place, target_is_directory=True)
    through = run(link)
    assert set(states(through).values()) == {"cached"}
    assert bits(through) == clean_bits
    moved = tmp_path / "moved away"
    place.rename(moved)
    assert set(states(run(moved)).values()) == {"cached"}
    assert damaged(moved) == []
    assert lntx("predict", "3", root=moved).code == 0


@pytest.mark.slow
def test_two_roots_know_nothing_of_each_other(clean: tuple[Path, Done], tmp_path: Path) -> None:
    other = run(tmp_path / "other", "--data.num-rows", "500")
    assert states(other) == dict.fromkeys(states(other), "ran")
    assert len(lntx("runs", "--json", root=tmp_path / "other").json["runs"]) == 1
    assert other.json["run"] not in str(lntx("runs", "--json", root=clean[0]).json)
