"""The command line as a user meets it, without Prefect: output, exit codes, one-line errors.

Run: pytest tests/cli
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commandline import DATA, Cli

RUN_KEYS = {
    "verdict", "blame", "reason", "true_weights", "true_bias", "learned_weights", "learned_bias", "reference_weights",
    "reference_bias", "standard_errors", "bias_standard_error", "residual_sd", "digits", "epochs", "num_rows",
    "gradient", "precondition", "stages", "exports", "report", "run", "flow_run_id", "flow_run_url", "features",
}  # fmt: skip


def test_a_run_prints_stages_weights_and_the_verdict_last(process: Cli) -> None:
    done = process("run", "--local")
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["generate", "ran"], ["train", "ran"], ["evaluate", "ran"], ["export", "ran"],
    ]  # fmt: skip
    assert lines[5].split() == ["learned", "exact", "true"]
    assert lines[6].split() == ["x", "3.7", "3.7", "3.7"]
    assert re.fullmatch(r"PASS  15\.95 digits, 3 epochs, run \S+; next: lntx report", lines[-1])
    again = process("--json", "run", "--local")
    assert again.code == 0
    assert {stage["state"] for stage in again.json["stages"].values()} == {"cached"}
    assert set(again.json) >= RUN_KEYS
    assert "\x1b" not in done.out + done.err
    assert process("plan").code == 0
    predicted = process("predict", "3")
    assert (predicted.code, predicted.out) == (0, "11.1\n")
    predicted = process("predict", "--json", "3")
    assert predicted.json == {"prediction": 3 * 3.7, "run": predicted.json["run"], "features": ["x"]}
    assert f"by run {predicted.json['run']}, a model of x" in predicted.err
    shown = process("show")
    assert again.json["run"] in shown.out
    told = process("show", again.json["run"], "--json").json
    assert [step["stage"] for step in told.pop("lineage")] == ["export", "evaluate", "train", "generate"]
    assert told == again.json


def test_the_tutorial_exits_3_with_json_and_with_text(cli: Cli) -> None:
    done = cli("run", "--local", "--preset", "tutorial", "--json")
    assert done.code == 3
    assert (done.json["verdict"], done.json["blame"]) == ("fail", "training")
    assert done.json["learned_bias"] is not None
    text = cli("run", "--local", "--preset", "tutorial")
    assert text.code == 3
    assert text.out.splitlines()[-1].startswith("FAIL  training: ")
    advice = done.json["reason"].split("add ")[1].split()
    assert cli("run", "--local", "--preset", "tutorial", *advice).code == 0


def test_lists_repeat_the_flag_and_booleans_are_negated(cli: Cli) -> None:
    flags = ["--data.weights", "3.7", "--data.weights", "-1.2", "--data.weights", "0.5", "--data.bias", "2"]
    done = cli("run", "--until", "evaluate", "--local", *flags, "--json")
    assert done.code == 0
    assert done.json["features"] == ["x1", "x2", "x3"]
    assert done.json["digits"] >= 13
    assert done.json["learned_bias"] == pytest.approx(2, rel=1e-13)
    assert cli("run", "--local", "--train.bias", "--until", "train", "--json").json["learned_bias"] is not None
    assert cli("run", "--local", "--train.no-bias", "--until", "train", "--json").json["learned_bias"] is None


def test_plan_says_what_would_run_and_exits_4(cli: Cli) -> None:
    empty = cli("plan", "--json")
    assert empty.code == 4
    assert {stage["state"] for stage in empty.json["stages"].values()} == {"missing"}
    assert cli("run", "--local", "--until", "evaluate").code == 0
    changed = cli("plan", "--train.learning-rate", "0.01", "--json")
    assert changed.code == 4
    assert changed.json["stages"] == {
        "generate": {"state": "fresh", "reason": None},
        "train": {"state": "stale", "reason": "train.learning_rate: auto → 0.01"},
        "evaluate": {"state": "depends", "reason": "reused if train gives the same results"},
        "export": {"state": "missing", "reason": "never computed"},
    }
    assert cli("plan", "--until", "train").code == 0
    forced = cli("plan", "--force", "train", "--json").json["stages"]
    assert forced["train"] == {"state": "stale", "reason": "forced"}
    assert cli("plan", "--force").code == 4


def test_nist_files_are_fitted_to_their_digits(cli: Cli) -> None:
    done = cli("fit", str(DATA / "NoInt1.csv"), "--target", "y", "--no-bias", "--local", "--json")
    assert done.code == 0
    assert f"{done.json['learned_weights'][0]:.15g}" == "2.07438016528926"
    assert f"{done.json['standard_errors'][0]:.15g}" == "0.0165289256198347"
    assert done.json["true_weights"] is None
    text = cli("fit", "--local", "--target", "y", str(DATA / "Norris.csv"), "--features", "x")
    assert text.code == 0
    assert "standard error" in text.out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run", "--data.num-rowz", "5"], "unknown option --data.num-rowz: did you mean --data.num-rows?"),
        (["run", "--data.num-rows", "many"], "data.num_rows must be an integer"),
        (["run", "--data.num-rows", "0"], "data.num_rows must be greater than or equal to 1, got 0"),
        (["run", "--data.num-rows", "-5"], "data.num_rows must be greater than or equal to 1, got -5"),
        (["run", "--data.weights", "nan"], "data.weights.0 must be a finite number, got nan"),
        (["run", "--data.weights", "inf"], "data.weights.0 must be a finite number, got inf"),
        (["run", "--train.learning-rate", "fast"], "train.learning_rate must be 'auto' or a number"),
        (["run", "--train.precondition", "qrr"], "got 'qrr': did you mean qr?"),
        (["fit", str(DATA / "Norris.csv"), "--target", "yy"], "has no column 'yy': did you mean y?"),
        (["canary", "--inject", "flipped-row-bits"], "did you mean flipped-row-bit?"),
        (["sweep", "--over", "train.sed=1"], "unknown key train.sed: did you mean train.seed?"),
        (["rnu"], 'Did you mean "run"?'),
        (["run", "--train.learning-rate", "1"], "must be below the stable limit"),
        (["run", "--train.device", "cuda"], "train.device is cuda, but torch finds no CUDA device"),
        (["run", "--train.bias", "--data.low", "5", "--data.high", "5"], "feature 'x' is constant (5)"),
        (["run", "--train.bias", "--data.num-rows", "1"], "1 row is too few for 2 weights"),
        (["run", "--preset", "tutorail"], "got 'tutorail': did you mean tutorial?"),
        (["run", "--config", "none.toml"], "config file none.toml: No such file or directory"),
        (["run", "--from", "trian"], '"trian"'),
        (["run", "--only", "train", "--until", "export"], "cannot be combined"),
        (["run", "--force", "trian"], "got 'trian': did you mean train?"),
        (["run", "--data.path", "none.csv", "--data.target", "y"], "none.csv cannot be read: No such file"),
        (["fit", "none.csv", "--target", "y"], "none.csv cannot be read: No such file"),
        (["fit", str(DATA / "Norris.csv"), "--target", "z"], "has no column 'z'"),
        (["fit", str(DATA / "Norris.csv")], "--target"),
        (["predict", "3"], "there is no passing run"),
        (["predict", "3", "--run", "x"], "there is no run 'x'"),
        (["predict", "3", "--model", "none.pt2"], "there is no model at none.pt2"),
        (["predict"], "give either numbers"),
        (["predict", "three"], "three"),
        (["show"], "there is no run"),
        (["show", "x"], "there is no run 'x'"),
        (["bogus"], "bogus"),
        (["run", "--root", "/proc/lntx"], "cannot write to"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(cli: Cli, words: list[str], line: str) -> None:
    local = ["--local"] if words[0] in ("run", "fit") else []
    done = cli(*words, *local)
    assert (done.code, done.out) == (2, "")
    assert line in done.err
    assert len(done.err.splitlines()) == 1
    said = cli(*words, *local, "--json")
    assert said.code == 2
    error = said.json["error"]
    assert (error["exit_code"], error["kind"]) == (2, "BadInput")
    assert line in error["message"]


def test_force_takes_no_file_for_a_stage(cli: Cli) -> None:
    done = cli("fit", "--force", str(DATA / "Norris.csv"), "--target", "y", "--local", "--until", "train")
    assert done.code == 0, done.err
    done = cli("run", "--force", "train", "--local", "--until", "train", "--json")
    assert done.json["stages"]["train"]["state"] == "ran"


def test_predictions_that_are_no_numbers_are_refused(cli: Cli) -> None:
    assert cli("run", "--local").code == 0
    for value in ("nan", "inf", "1e308"):
        done = cli("predict", value, "--json")
        assert (done.code, done.json["error"]["kind"]) == (2, "BadInput")


def test_a_stage_without_its_input_exits_4(cli: Cli) -> None:
    done = cli("run", "--local", "--only", "train", "--json")
    assert (done.code, done.json["error"]["kind"]) == (4, "NotFresh")


def test_a_root_is_made_and_a_file_in_its_place_is_refused(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "new" / "root"
    assert cli("run", "--local", "--until", "generate", "--root", str(root)).code == 0
    assert list((root / "data").glob("dataset-*.parquet"))
    other = tmp_path / "by variable"
    assert cli("run", "--local", "--until", "generate", env={"LNTX_ROOT": str(other)}).code == 0
    assert (other / "data").is_dir()
    file = tmp_path / "file"
    file.touch()
    assert cli("run", "--local", "--root", str(file)).code == 2


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_is_predicted_by_its_columns_names(cli: Cli, tmp_path: Path, suffix: str) -> None:
    weights = ["--data.weights", "2", "--data.weights", "-1", "--data.bias", "1"]
    assert cli("run", "--local", *weights).code == 0
    source, target = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    table = pd.DataFrame({"name": ["a", "b", "c"], "x2": [1, 2, 3], "x1": [0.5, 1.5, -2.0]})
    write, read = (table.to_csv, pd.read_csv) if suffix == "csv" else (table.to_parquet, pd.read_parquet)
    write(source, index=False)
    done = cli("predict", "--input", str(source), "--output", str(target))
    assert (done.code, done.out) == (0, f"3 predictions in {target}\n")
    found = read(target)
    assert found["name"].tolist() == ["a", "b", "c"]
    assert np.allclose(found["prediction"], [1.0, 2.0, -6.0], rtol=1e-12)
    source.unlink()
    table.drop(columns="x2").to_csv(source, index=False) if suffix == "csv" else table.drop(columns="x2").to_parquet(
        source
    )
    missing = cli("predict", "--input", str(source), "--output", str(tmp_path / "other.csv"))
    assert missing.code == 2
    assert "has no column 'x2'" in missing.err
    assert not (tmp_path / "other.csv").exists()
    assert cli("predict", "1", "2", "3").code == 2
    assert cli("predict", "2", "1").out == "4\n"


def test_a_table_to_predict_may_be_written_in_another_way(cli: Cli, tmp_path: Path) -> None:
    cli("run", "--local")
    (tmp_path / "in.csv").write_bytes("x;prix €\n1,5;ä\n".encode("cp1252"))
    words = ["predict", "--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    refused = cli(*words)
    assert "--data.delimiter" in refused.err or "--data.encoding" in refused.err
    done = cli(*words, "--data.delimiter", ";", "--data.decimal", ",", "--data.encoding", "cp1252")
    assert done.out.startswith("1 prediction in ")
    assert (tmp_path / "out.csv").read_text(encoding="cp1252") == "x;prix €;prediction\n1,5;ä;5,550000000000001\n"
    assert "add --input FILE" in cli("predict", "3", "--data.delimiter", ";").err


def test_unusable_parquet_is_refused(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"y": [1.0, 2.0, 3.0], "a": [1, 2, None]}), path)
    assert "column 'a' has no value in row 3" in cli("fit", str(path), "--target", "y", "--local").err
    path.write_bytes(path.read_bytes()[:-10])
    done = cli("fit", str(path), "--target", "y", "--local")
    assert done.code == 2
    assert "cannot be read as Parquet" in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_its_code_and_no_traceback(tmp_path: Path, number: int, code: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", "--local", "--data.num-rows", "300000000"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "data").glob(".staging-*/**/*.parquet*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=200)
    assert process.returncode == code
    assert "Traceback" not in err
    assert ("the same command goes on" in err) == (number == signal.SIGINT)
    assert list((tmp_path / "data").glob("*.parquet")) == []


def test_a_closed_pipe_is_no_error_worth_a_word(tmp_path: Path) -> None:
    command = f"{sys.executable} -m flows.cli run --help | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_every_command_and_every_option_is_explained(process: Cli) -> None:
    commands = ("run", "fit", "plan", "predict", "show", "sweep", "runs", "diff", "verify", "gc", "pin")
    overview = process("--help").out
    for command in commands:
        assert f" {command} " in overview
        text = process(command, "--help", env={"COLUMNS": "200"}).out
        options = re.findall(r"│ (?:\* )?\s*((?:--|-[a-z]\b|[A-Z]).*?)\s{2,}(.*?)\s*│", text)
        for option, explanation in options:
            assert explanation, f"{command}: {option}"
        named = " ".join(option for option, _ in options)
        for common in ("--root", "--json", "--quiet -q", "--verbose -v"):
            assert common in named


def test_an_unexpected_error_is_one_line_without_v(cli: Cli, tmp_path: Path) -> None:
    """A full disk, as a limit on file size."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)); import flows.cli as c; c.main()"
    )
    words = ["run", "--local", "--until", "generate", "--json", "--root", str(tmp_path / "root")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["exit_code"] == 1
    assert "File too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1
