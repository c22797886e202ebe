"""How the command line speaks: help, 80 columns, progress, the next command. Run: pytest tests/cli/test_manners.py"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import Cli

from flows.cli import progress
from flows.cli.app import COMMANDS, app, command
from lntx.base.progress import report_progress


def test_flags_are_shown_as_they_are_typed(cli: Cli) -> None:
    text = cli("run", "--help").out + cli("sweep", "--help").out + cli("up", "--help").out
    assert "STR..." not in text
    assert "--over KEY=VALUES" in text
    assert "--data.weights FLOAT " in text
    assert "--data.num-rows INT " in text


def test_a_summary_of_each_command_is_in_the_list_and_its_help_says_more(process: Cli) -> None:
    listed = " ".join(process("--help").out.replace("│", " ").split())
    for name, (_, summary) in COMMANDS.items():
        assert f"{name} {summary}" in listed
        # The list takes the summary, the command's own help its docstring.
        assert command(name).help == app[name].default_command.__doc__ != summary


def test_lists_fit_80_columns_and_say_what_differed(cli: Cli) -> None:
    many = [word for weight in range(9) for word in ("--data.weights", str(weight + 0.25))]
    cli("run", "--local", "--data.num-rows", "50", *many)
    cli("run", "--local", "--data.num-rows", "50", "--train.seed", "3")
    done = cli("runs", env={"COLUMNS": "80"})
    first, second = done.out.splitlines()[1:]
    assert "data.num_rows=50 train.seed=3" in first
    assert "data.weights=[0.25" in second
    swept = cli("sweep", "--over", "train.learning_rate=0.001:0.03:x3", "--over", "data.num_rows=50,60")
    assert max(len(line) for line in done.out.splitlines() + swept.out.splitlines()[:8]) <= 80


def test_the_best_trial_is_run_by_the_line_that_the_sweep_prints(cli: Cli) -> None:
    swept = cli(
        "sweep",
        "--over",
        "train.learning_rate=0.001:0.03:x4",
        "--over",
        "data.weights=[1.5,2]",
        "--over",
        "train.bias=true",
    )
    line = swept.out.splitlines()[-1]
    words = shlex.split(line.removeprefix("next: lntx ").removesuffix(" trains the best"))
    assert "--train.bias" in words
    assert cli(*words, "--local").code == 0


def test_the_next_command_of_a_plan_is_run(cli: Cli) -> None:
    assert cli("plan").out.splitlines()[-1] == "not fresh; next: lntx run with the same options"
    cli("run", "--local")
    assert cli("plan").out.splitlines()[-1] == "all fresh"


def test_an_error_is_said_once(cli: Cli) -> None:
    done = cli("run", "--local", "--preset", "tutorial")
    assert (done.out + done.err).count("too few steps") == 1


def test_long_work_shows_its_rate_and_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 10.0, 20.0, 20.1])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(progress, "_meter", progress._Meter())
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.progress_shown():
        for done in (0, 1000, 2000, 2001):
            report_progress(done, 5000, "rows")
    lines = capsys.readouterr().err.split("\x1b[2K")[1:]
    assert lines == ["rows: 1,000 of 5,000, 100/s, 40 s left\r", "rows: 2,000 of 5,000, 100/s, 30 s left\r"]


def test_off_a_terminal_no_progress_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However long the work takes: what reads the output must not depend on the speed of the machine."""
    now = iter(range(0, 10_000, 100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    monkeypatch.setattr(progress, "_meter", progress._Meter())
    with progress.progress_shown():
        for done in (0, 1000, 2000):
            report_progress(done, 5000, "rows")
    assert capsys.readouterr().err == ""


def test_the_command_can_be_run_twice_in_a_process(tmp_path: Path) -> None:
    """`flows.cli.main` is a function before and after: one name, one thing."""
    code = (
        "import flows.cli as cli\n"
        "for _ in range(2):\n"
        "    try: cli.main()\n"
        "    except SystemExit as end: assert not end.code\n"
    )
    words = ["runs", "--root", str(tmp_path)]
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, timeout=60)
