"""Sweeps: what they say, agreement with single trainings, resuming. Run: pytest tests/core/test_sweep.py"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commandline import Cli

from lntx.base.errors import BadInput
from lntx.config.loading import settle
from lntx.config.schema import Pipeline
from lntx.data.dataset import open_dataset
from lntx.data.synthetic import generate_dataset
from lntx.evaluation.residuals import residual_figures
from lntx.sweep import sweep as sweeping
from lntx.sweep.grid import configure, parse_over, trials
from lntx.sweep.vectorized import plan_trial, problem_of, train_together
from lntx.training import fit as training


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["train.seed=0:4"], {"train.seed": [0, 1, 2, 3]}),
        (["train.seed=0:10:5,77"], {"train.seed": [0, 5, 77]}),
        (["train.learning_rate=0.01,auto"], {"train.learning_rate": [0.01, "auto"]}),
        (["train.learning_rate=0.001:0.1:x3"], {"train.learning_rate": [0.001, pytest.approx(0.01), 0.1]}),
        (["train.bias=true,false", "data.weights=1.5,2"], {"train.bias": [True, False], "data.weights": [1.5, 2.0]}),
    ],
)
def test_values_are_read(words: list[str], found: dict[str, list[Any]]) -> None:
    assert parse_over(words) == found


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("train.sed=1,2", "unknown key train.sed: did you mean train.seed?"),
        ("train.seed", "--over takes KEY=VALUES"),
        ("train.seed=3:1", "has no values"),
        ("train.seed=a:b", "is no range"),
        ("train.learning_rate=0:1:x5", "is no range"),
        ("train.seed=0:200000", "at most"),
    ],
)
def test_what_is_no_sweep_is_refused(word: str, line: str) -> None:
    with pytest.raises(BadInput, match=line):
        trials(parse_over([word]))


def test_every_combination_is_a_trial() -> None:
    grid = trials({"train.seed": [0, 1], "data.num_rows": [10, 20, 30]})
    assert len(grid) == 6
    assert grid[1] == {"train.seed": 0, "data.num_rows": 20}
    assert configure(Pipeline(), {"data.weights": 2.5}).data.true_weights == (2.5,)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [False, True])
def test_trainings_side_by_side_are_those_of_one_alone(tmp_path: Path, dtype: str, bias: bool) -> None:
    """Whatever the coordinates, the momentum and the rate: the same path within rounding, and the same end."""
    data = {"weights": [3.7, -1.2], "noise": 0.5, "num_rows": 400, "bias": 1.0 if bias else 0.0}
    ways = [
        {"precondition": precondition, "momentum": momentum, "seed": seed, "max_epochs": epochs}
        for precondition in ("none", "standardize", "qr")
        for momentum in (0.0, 0.5)
        for seed, epochs in ((0, 1), (1, 7), (2, 300))
    ]
    pipelines = [
        settle(overrides={"data": data, "train": way | {"dtype": dtype, "gradient": "moments"}}) for way in ways
    ]
    problem = problem_of(pipelines[0].data, bias=bias, folder=tmp_path)
    found = train_together([plan_trial(problem, pipeline) for pipeline in pipelines])
    generate_dataset(pipelines[0].data, tmp_path / "rows.parquet")
    rounding = 1e-11 if dtype == "float64" else 1e-4
    for pipeline, one in zip(pipelines, found, strict=True):
        dataset = open_dataset(tmp_path / "rows.parquet")
        _, alone, _ = training.fit(dataset, pipeline.train, bias=bias)
        left = residual_figures(dataset, alone.weights, alone.bias)
        assert one.weights == pytest.approx(alone.weights, rel=rounding)
        assert one.bias == (None if alone.bias is None else pytest.approx(alone.bias, rel=rounding * 10))
        assert one.loss == pytest.approx(left.mean_square, rel=1e-6 if dtype == "float64" else 1e-3)


def test_a_sweep_lists_its_trials_best_first_and_draws_them(cli: Cli) -> None:
    over = [
        "--over",
        "train.learning_rate=0.0001,0.01,0.5",
        "--over",
        "train.seed=0:5",
        "--over",
        "train.max_epochs=40",
    ]
    found = cli("sweep", *over, "--json")
    assert found.code == 0
    rows = found.json["trials"]
    assert [row["verdict"] for row in rows] == ["pass"] * 5 + ["fail"] * 5 + [None] * 5
    assert found.json["best"] == rows[0]
    assert {row["settings"]["train.learning_rate"] for row in rows[:5]} == {0.01}
    assert "stable limit" in rows[-1]["error"]
    assert (Path(found.json["picture"])).read_bytes().startswith(b"\x89PNG")
    text = cli("sweep", *over)
    assert "5 of 15 right, 15 from an earlier sweep" in text.out


def test_a_value_that_a_key_does_not_take_is_a_row(cli: Cli) -> None:
    found = cli("sweep", "--over", "train.momentum=0.5,2", "--json")
    assert found.code == 0
    assert [row["verdict"] for row in found.json["trials"]] == ["pass", None]
    assert "train.momentum must be" in found.json["trials"][1]["error"]


def test_a_sweep_with_nothing_right_is_a_wrong_answer(cli: Cli) -> None:
    assert cli("sweep", "--over", "train.learning_rate=0.0001", "--train.max-epochs", "5", "--json").code == 3


def test_a_sweep_over_data_makes_each_dataset(tmp_path: Path) -> None:
    over = {"data.seed": [0, 1], "data.num_rows": [10, 1000], "train.dtype": ["float32", "float64"]}
    found = sweeping.sweep(settle(overrides={"data": {"bias": 2.0}}), over, root=tmp_path)
    assert [row.verdict for row in found.trials] == ["pass"] * 8
    assert all(row.learned_weights is not None for row in found.trials)
    assert found.resumed == 0


@pytest.mark.slow
def test_large_trainings_are_runs_in_processes_and_small_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lntx.sweep.trials.BATCHED_NUMBERS", 3000)
    over = {"data.num_rows": [1000, 5000]}
    found = sweeping.sweep(Pipeline(), over, root=tmp_path, processes=1)
    assert {row.settings["data.num_rows"]: row.how for row in found.trials} == {1000: "batched", 5000: "process"}
    assert [row.verdict for row in found.trials] == ["pass", "pass"]
    again = sweeping.sweep(Pipeline(), over, root=tmp_path, processes=1)
    assert (again.resumed, again.trials) == (2, found.trials)


@pytest.mark.slow
def test_batches_are_trained_in_processes(tmp_path: Path) -> None:
    config = settle(overrides={"data": {"noise": 1.0}})
    found = sweeping.sweep(config, {"train.batch_size": [100, 500]}, root=tmp_path, processes=2)
    assert [(row.how, row.verdict) for row in found.trials] == [("process", "pass")] * 2


def test_a_line_that_was_cut_short_is_done_again(tmp_path: Path) -> None:
    """As a kill in the middle of a write leaves it."""
    over = {"train.seed": [0, 1, 2]}
    first = sweeping.sweep(Pipeline(), over, root=tmp_path)
    log = tmp_path / first.file
    log.write_bytes(log.read_bytes()[:-40])
    again = sweeping.sweep(Pipeline(), over, root=tmp_path)
    assert again.resumed == 2
    assert again.trials == first.trials
    assert len([json.loads(line) for line in log.read_text().splitlines() if line.endswith("}}")]) == 3


def _kill_itself(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_is_killed_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lntx.sweep.trials.run_trial", _kill_itself)
    found = sweeping.sweep(Pipeline(), {"train.batch_size": [10]}, root=tmp_path, processes=1)
    assert found.trials[0].error == "its process was killed"
    monkeypatch.undo()
    assert (
        sweeping.sweep(Pipeline(), {"train.batch_size": [10]}, root=tmp_path, processes=1).trials[0].verdict == "pass"
    )


def test_an_ill_conditioned_problem_goes_by_itself_and_passes(tmp_path: Path) -> None:
    """Powers up to ten: float64 matrices of many trainings would lose every digit."""
    x = [-8.8 + 0.07 * k for k in range(82)]
    rows = "".join(f"{value!r},{0.85 + 0.07 * math.sin(value)!r}\n" for value in x)
    (tmp_path / "rows.csv").write_text("x,y\n" + rows)
    data = {"path": str(tmp_path / "rows.csv"), "target": "y"}
    found = sweeping.sweep(settle(overrides={"data": data}), {"data.polynomial": [2, 10]}, root=tmp_path, processes=1)
    assert {row.settings["data.polynomial"]: row.how for row in found.trials} == {2: "batched", 10: "process"}
    assert [row.verdict for row in found.trials] == ["pass", "pass"]
    # A trial is no run: the history has none of it.
    assert not list((tmp_path / "artifacts" / "runs").iterdir())


def test_a_trial_that_breaks_is_a_row_beside_the_others(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("x,y\n1,2\n2,4.5\n3,6\n4,8\n")
    (tmp_path / "wild.csv").write_text("x,y\n1e-95,1e95\n2e-95,3e95\n3e-95,2e95\n4e-95,1e95\n")
    good, wild = str(tmp_path / "good.csv"), str(tmp_path / "wild.csv")
    found = cli("sweep", "--over", f"data.path={wild},{good},gone.csv", "--data.target", "y", "--json")
    assert found.code == 0
    assert [row["verdict"] for row in found.json["trials"]] == ["pass", None, None]
    assert "rescale" in found.json["trials"][1]["error"] + found.json["trials"][2]["error"]


def test_lists_are_swept_whole(cli: Cli) -> None:
    found = cli("sweep", "--over", "data.weights=[1,2],[3,4]", "--over", "train.seed=0:2", "--json")
    swept = sorted(row["settings"]["data.weights"] for row in found.json["trials"])
    assert swept == [[1, 2]] * 2 + [[3, 4]] * 2
    assert {row["verdict"] for row in found.json["trials"]} == {"pass"}


@pytest.mark.parametrize("word", ["train.learning_rate=NaN", "train.learning_rate=1e400", "train.seed=0:1000000000000"])
def test_values_that_are_none_are_bad_input(cli: Cli, word: str) -> None:
    assert cli("sweep", "--over", word, "--json").code == 2


def test_a_rate_over_the_limit_has_the_limit_in_its_row(cli: Cli) -> None:
    found = cli("sweep", "--over", "train.learning_rate=0.5,0.6", "--json")
    assert found.code == 2
    assert all(0.02 < row["stable_limit"] < 0.03 for row in found.json["trials"])


@pytest.mark.slow
def test_an_interrupted_sweep_ends_its_processes(tmp_path: Path) -> None:
    words = ["sweep", "--over", "data.seed=0:30", "--train.gradient", "autograd", "--data.num-rows", "200000"]
    words += ["--train.tolerance", "0", "--train.max-epochs", "300", "--processes", "2", "--root", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "flows.cli", *words], stderr=subprocess.PIPE, text=True)
    logs = tmp_path / "artifacts" / "sweeps"
    deadline = time.monotonic() + 120
    while not any(log.stat().st_size for log in logs.glob("*.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 143
    assert "Traceback" not in err
