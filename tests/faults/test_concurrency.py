"""Many runs at once: one key is computed once, other keys do not wait, nothing in use is taken away.

Run: pytest tests/faults/test_concurrency.py
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from driving import SETTINGS, Done, bits, command, damaged, lntx, run, start, states, until, wait_for

pytestmark = pytest.mark.timeout(600)


def _together(root: Path, settings: list[tuple[str, ...]]) -> list[Done]:
    processes = [
        subprocess.Popen(
            command("run", "--local", "--json", *one, root=root),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for one in settings
    ]
    ended = [process.communicate(timeout=500) for process in processes]
    return [
        Done(code=process.returncode, out=out, err=err) for process, (out, err) in zip(processes, ended, strict=True)
    ]


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_runs_of_one_key_compute_once(clean_bits: dict[str, list[str]], tmp_path: Path, count: int) -> None:
    done = _together(tmp_path / "root", [SETTINGS] * count)
    assert all(bits(one) == clean_bits for one in done)
    for stage in clean_bits:
        assert sorted(states(one)[stage] for one in done) == ["cached"] * (count - 1) + ["ran"]
    assert damaged(tmp_path / "root") == []
    assert len(lntx("runs", "--json", root=tmp_path / "root").json["runs"]) == count


@pytest.mark.slow
def test_runs_of_other_keys_do_not_disturb_each_other(tmp_path: Path) -> None:
    settings = [("--data.seed", str(seed), "--data.num-rows", "500") for seed in range(8)]
    done = _together(tmp_path / "root", settings)
    for one, asked in zip(done, settings, strict=True):
        assert set(states(one).values()) == {"ran"}
        assert bits(run(tmp_path / "root", *asked)) == bits(one)
    assert damaged(tmp_path / "root") == []


def test_a_killed_holder_blocks_nobody(tmp_path: Path) -> None:
    first = start(tmp_path / "root", "--data.num-rows", "50000000", "--until", "generate")
    wait_for(first, "generate: computing")
    second = start(tmp_path / "root", "--data.num-rows", "50000000", "--until", "generate")
    first.send_signal(signal.SIGKILL)
    out, err = second.communicate(timeout=300)
    first.communicate()
    assert states(Done(code=second.returncode, out=out, err=err))["generate"] == "ran"
    assert damaged(tmp_path / "root") == []


@pytest.mark.slow
def test_garbage_collection_leaves_what_a_run_uses(tmp_path: Path) -> None:
    """Rows that a training reads, of a configuration that no finished run has."""
    root = tmp_path / "root"
    settings = ("--data.num-rows", "30000", "--data.noise", "0.5", "--train.precondition", "none", "--train.bias")
    settings += ("--train.tolerance", "0", "--train.max-epochs", "2000")
    process = start(root, *settings)
    wait_for(process, "train: computing")
    (rows,) = (root / "data").glob("*.parquet")
    collected = lntx("gc", "--keep", "0", "--json", root=root)
    assert collected.code == 0
    assert collected.json["in_use"] >= 1
    assert rows.exists()
    out, err = process.communicate(timeout=300)
    done = Done(code=process.returncode, out=out, err=err)
    assert done.code == 0, err
    assert damaged(root) == []
    until(lambda: not list((root / "artifacts" / ".locks").glob("*.using")))
    assert bits(run(root, *settings)) == bits(done)
