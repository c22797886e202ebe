"""Where commands may write, and how they show what comes from outside. Run: pytest tests/cli/test_outputs.py"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import webbrowser
from pathlib import Path

import pytest
from commandline import Cli

import lntx
from lntx.store.store import Store

EVIL = "a\x1b[2J\nPASS  15.95 digits\u202e\x9b"


@pytest.fixture
def fitted(tmp_path: Path) -> Path:
    """A table with a model, and the root of both."""
    root = tmp_path / "here"
    root.mkdir(exist_ok=True)
    table = root / "table.csv"
    table.write_text("y,a\n3,1\n5,2\n7,3\n9,4\n")
    assert lntx.fit(table, target="y", root=root, export={"formats": ["safetensors"]}).verdict == "pass"
    return table


def test_an_output_never_replaces_its_input_or_a_file_of_the_store(cli: Cli, fitted: Path) -> None:
    root = fitted.parent
    run = lntx.runs.records.read_run(Store(root))
    (root / "link.csv").symlink_to(fitted)
    (root / "hard.csv").hardlink_to(fitted)
    rows = run.stages["generate"].files[0].path
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for output in ("table.csv", "link.csv", "hard.csv", rows, "artifacts/records/x.csv", "artifacts/.server/x.csv"):
        for force in ((), ("--force",)):
            done = cli("predict", "--input", str(fitted), "--output", str(root / output), *force)
            assert (done.code, len(done.err.splitlines())) == (2, 1), output
            assert "choose another place" in done.err
    for words in (("report", "--output"), ("canary", "--local", "--junit")):
        for output in ("artifacts/current.json", run.exports["safetensors"], rows):
            done = cli(*words, str(root / output), "--force")
            assert (done.code, "among the files that lntx stores" in done.err) == (2, True)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("words", [("predict", "--input", "table.csv", "--output"), ("report", "--output")])
def test_another_file_is_replaced_on_demand_alone(cli: Cli, fitted: Path, words: tuple[str, ...]) -> None:
    other = fitted.parent / "other.csv"
    other.write_text("mine")
    os.link(other, fitted.parent / "second name")
    done = cli(*words, "other.csv")
    assert (done.code, other.read_text()) == (2, "mine")
    assert "exists: choose another place, or replace it with --force" in done.err
    assert cli(*words, "other.csv", "--force").code == 0
    assert other.read_text() != "mine"
    assert (fitted.parent / "second name").read_text() == "mine"
    assert cli(*words, "new.csv").code == 0
    for place in ("none/new.csv", "."):
        assert cli(*words, place).code == 2


def test_a_report_replaces_itself_and_no_other(cli: Cli, fitted: Path) -> None:
    path = Path(cli("report", "--json").json["report"])
    assert cli("report").code == 0
    (fitted.parent / path).write_text("mine")
    done = cli("report")
    assert (done.code, (fitted.parent / path).read_text()) == (2, "mine")
    assert "lntx did not write it" in done.err


def test_a_report_opens_in_the_browser(cli: Cli, fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or len(opened) == 1)
    assert cli("report", "--open").code == 0
    assert opened[0].startswith("file:///")
    done = cli("report", "--open")
    assert (done.code, "no browser can be started here: open" in done.err) == (1, True)


def test_predict_says_which_model_answers(cli: Cli, fitted: Path) -> None:
    run = cli("runs", "--json").json["runs"][0]["run"]
    done = cli("predict", "3")
    assert (done.out, done.err) == ("7\n", f"lntx: by run {run}, a model of a\n")
    found = cli("predict", "3", "--json").json
    assert (found["run"], found["features"]) == (run, ["a"])


def test_names_from_outside_cannot_control_the_terminal(cli: Cli, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = tmp_path / "here" / "table.parquet"
    pq.write_table(pa.table({EVIL: [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.5, 3.0, 4.0]}), table)
    for words in (
        ("fit", str(table), "--target", "y", "--local"), ("fit", str(table), "--target", "none", "--local"),
        ("fit", str(table), "--target", "y", "--local", "--json"), ("show",), ("show", "--json"), ("predict", "1"),
        ("predict", "1", "--json"), ("fit", EVIL + ".csv", "--target", "y", "--local"), ("plan", "--config", EVIL),
        ("show", EVIL), ("run", "--preset", EVIL), ("run", f"--{EVIL}"), ("predict", "1", "--model", EVIL),
    ):  # fmt: skip
        done = cli(*words)
        shown = done.out + done.err
        assert shown.replace("\n", "").isprintable(), words
        assert sum(line.startswith("PASS") for line in shown.splitlines()) <= (words[0] in ("fit", "show")), words
        assert done.code in (0, 1, 2), (words, shown)
    assert cli("predict", "1", "--json").json["features"] == [EVIL]


def test_a_problem_is_told_once_and_before_a_server_is_started(process: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "text.csv").write_text("a,b\n1,2\n")
    for path, said in (
        ("pipe.csv", "not a regular file"),
        ("text.csv", "has no column 'y'"),
        ("x.txt", "No such file"),
    ):
        done = process("fit", str(tmp_path / path), "--target", "y", timeout=200)
        assert (done.code, done.err.count(said), len(done.err.splitlines())) == (2, 1, 1), done.err
    assert not list(tmp_path.rglob("prefect.db"))


def _read_only(root: Path) -> None:
    """Mount the root read-only, in a namespace of this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(0x00020000) == 0
    assert libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) == 0
    for flags in (0x1000, 0x1000 | 0x20 | 0x1):
        assert libc.mount(str(root).encode(), str(root).encode(), None, flags, None) == 0


def test_a_read_only_root_is_said_in_a_line(fitted: Path) -> None:
    root = fitted.parent
    try:
        subprocess.run(["true"], preexec_fn=lambda: _read_only(root), check=True)
    except subprocess.SubprocessError:
        pytest.skip("needs the right to mount: run as root")
    run = lntx.runs.records.read_run(Store(root)).run
    for words in (
        ("pin", run),
        ("report",),
        ("up", "--no-canary"),
        ("run", "--local"),
        ("verify", "--heal"),
        ("gc", "--keep", "1"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *words, "--json", "--root", str(root)],
            capture_output=True, text=True, preexec_fn=lambda: _read_only(root), check=False,
        )  # fmt: skip
        if words[0] == "verify":
            assert done.returncode == 0
            continue
        assert done.returncode in (1, 2), words
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "Read-only file system" in json.loads(done.stdout)["error"]["message"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("gc", "--keep", "0.5"), "must be an integer, got '0.5'"),
        (("canary", "--repeat", "0.6"), "must be an integer, got '0.6'"),
        (("sweep", "--over", "train.seed=1,2", "--processes", "1.5"), "must be an integer, got '1.5'"),
        (("up", "--port", "4200.6"), "must be an integer, got '4200.6'"),
        (("plan", "--train.max-epochs", "3.0"), "train.max_epochs must be an integer, got '3.0'"),
        (("sweep", "--over", "train.max_epochs=0:99999999999999999999999"), "is no range"),
        (("up", "--cron", "0 0 30 2 *"), "never matches a date"),
        (("up", "--webhook", "http://"), "--webhook names no host"),
        (("up", "--timezone", ""), "--timezone must be a name"),
    ],
)
def test_options_are_never_rounded_or_taken_for_others(cli: Cli, words: tuple[str, ...], said: str) -> None:
    done = cli(*words)
    assert (done.code, said in done.err, len(done.err.splitlines())) == (2, True, 1), done.err


def test_output_that_cannot_be_written_is_a_line_at_most(tmp_path: Path) -> None:
    for redirect, code in ((">/dev/full", 1), (">&-", 0)):
        line = f"{sys.executable} -m flows.cli runs --root {tmp_path} {redirect}"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert (done.returncode, "Traceback" in done.stderr, len(done.stderr.splitlines()) <= 1) == (code, False, True)


def test_ctrl_c_during_the_imports_is_no_traceback(tmp_path: Path) -> None:
    for delay in (0.1, 0.3):
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "plan", "--root", str(tmp_path)], stderr=subprocess.PIPE, text=True
        )
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=200)
        assert "flows" not in err
        assert "lntx/" not in err


def test_predictions_never_become_part_of_the_table_that_is_read(cli: Cli, tmp_path: Path) -> None:
    import pandas as pd

    folder = tmp_path / "here" / "parts"
    folder.mkdir(parents=True)
    frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "y": [1.0, 2.0, 3.0]})
    for name in ("one", "two"):
        frame.to_parquet(folder / f"{name}.parquet")
    assert cli("fit", "parts", "--target", "y", "--local").code == 0
    before = (folder / "one.parquet").read_bytes()
    for table, output in (
        ("parts", "parts/one.parquet"),
        ("parts", "parts/new.parquet"),
        ("p*/*.parquet", "parts/b.parquet"),
    ):
        done = cli("predict", "--input", table, "--output", output, "--force")
        assert (done.code, "choose another place" in done.err) == (2, True), done.err
    assert (folder / "one.parquet").read_bytes() == before
    assert cli("predict", "--input", "parts", "--output", "out.parquet", "--json").json["num_rows"] == 6
