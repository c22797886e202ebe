"""Runs that are killed at any moment: what was stored stays, the next run ends in the same bits.

Run: pytest tests/faults/test_kills.py; the whole catalogue is in `make test-all`.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from driving import Done, bits, damaged, run, start, until, wait_for

pytestmark = pytest.mark.timeout(600)

# Each stage takes long enough to be killed in.
SETTINGS = ("--data.num-rows", "200000", "--data.noise", "0.5", "--data.bias", "1", "--data.distribution", "normal")
SECONDS = {"generate": 0.4, "train": 4.0, "evaluate": 0.3, "export": 1.5}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return bits(run(tmp_path_factory.mktemp("whole") / "root", *SETTINGS))


def _signalled(root: Path, stage: str, after: float, number: int, *settings: str) -> int:
    process = start(root, *(settings or SETTINGS))
    wait_for(process, f"{stage}: computing")
    time.sleep(after)
    process.send_signal(number)
    out, _ = process.communicate(timeout=300)
    # A run that has given its answer is over: what ends the process then is of no matter.
    return 0 if '"verdict"' in out else process.returncode


def _comes_back(root: Path, whole: dict[str, list[str]], *settings: str) -> Done:
    assert damaged(root) == []
    again = run(root, *(settings or SETTINGS))
    assert bits(again) == whole
    assert damaged(root) == []
    assert not [path for path in root.rglob(".staging-*") if path.is_dir()]
    return again


_KILLS = [pytest.param(stage, seed, marks=pytest.mark.slow) for stage in SECONDS for seed in range(1)]


@pytest.mark.parametrize(("stage", "seed"), _KILLS)
def test_a_run_that_is_killed_leaves_nothing_half_done(
    whole: dict[str, list[str]], tmp_path: Path, stage: str, seed: int
) -> None:
    root = tmp_path / "root"
    moment = random.Random(f"{stage} {seed}").uniform(0, SECONDS[stage])
    assert _signalled(root, stage, moment, signal.SIGKILL) in (-signal.SIGKILL, 0)
    _comes_back(root, whole)


@pytest.mark.parametrize(
    ("number", "code", "stage"),
    [
        pytest.param(signal.SIGTERM, 143, "train", id="SIGTERM"),
        pytest.param(signal.SIGINT, 130, "train", id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, "generate", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, "generate", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, "export", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, "export", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_told_to_end_says_so_and_comes_back(
    whole: dict[str, list[str]], tmp_path: Path, number: int, code: int, stage: str
) -> None:
    ended = _signalled(tmp_path / "root", stage, 0.1, number)
    # The last stage may be over when the signal comes.
    assert ended == code or (stage == "export" and ended == 0)
    _comes_back(tmp_path / "root", whole)


# Ten seconds of training: every epoch goes through the rows, and none is the last before its time.
LONG = (
    *("--data.num-rows", "20000", "--data.noise", "0.5", "--data.bias", "1", "--train.precondition", "none"),
    *("--train.tolerance", "0", "--train.max-epochs", "5000"),
)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], float]:
    done = run(tmp_path_factory.mktemp("long") / "root", *LONG)
    return bits(done), done.json["stages"]["train"]["seconds"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_killed_training_goes_on_and_ends_in_the_same_bits(
    long: tuple[dict[str, list[str]], float], tmp_path: Path, seed: int
) -> None:
    """Weights, history and exports are byte for byte those of the training that was left alone."""
    whole, seconds = long
    moment = random.Random(seed).uniform(0.3, 0.95) * seconds
    _signalled(tmp_path / "root", "train", moment, signal.SIGKILL, *LONG)
    assert damaged(tmp_path / "root") == []
    had_checkpoint = bool(list((tmp_path / "root").rglob(".staging-*/.resume/checkpoint")))
    again = start(tmp_path / "root", *LONG)
    out, err = again.communicate(timeout=200)
    assert bits(Done(code=again.returncode, out=out, err=err)) == whole
    assert ("goes on from epoch" in err) == had_checkpoint
    assert not list((tmp_path / "root").rglob(".staging-*"))


@pytest.mark.slow
def test_a_killed_generation_goes_on(tmp_path: Path) -> None:
    """Rows of several files: those that were finished are not made again."""
    settings = ("--data.num-rows", "60000000", "--until", "generate")
    whole = run(tmp_path / "whole", *settings).json["stages"]["generate"]["files"]
    assert len(whole) > 2
    process = start(tmp_path / "root", *settings)
    wait_for(process, "generate: computing")
    until(lambda: len(list((tmp_path / "root" / "data").glob(".staging-*/.resume/*.parquet"))) >= 2)
    process.kill()
    process.communicate()
    again = start(tmp_path / "root", *settings)
    out, err = again.communicate(timeout=200)
    assert Done(code=again.returncode, out=out, err=err).json["stages"]["generate"]["files"] == whole
    assert err.count("was finished before the interruption") >= 2
