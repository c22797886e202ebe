"""What tests share: a root of their own, and the real command line in a subprocess."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Tests run side by side, one on each core: more threads for each would wait for each other (twice as long, measured).
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import hypothesis
import pytest
from commandline import Cli, Done

from flows.cli.entry import run_command

# A busy machine is no failure; the timeout of pytest ends what hangs.
hypothesis.settings.register_profile("lntx", deadline=None)
hypothesis.settings.load_profile("lntx")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LNTX_"):
            monkeypatch.delenv(name)


@pytest.fixture
def process(tmp_path: Path) -> Cli:
    """Run `lntx WORDS` as a process of its own, as a user would; env adds variables."""
    folder = _workplace(tmp_path)

    def run(*words: str, env: dict[str, str] | None = None, timeout: float = 280) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *words],
            cwd=folder,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    return run


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """The same in this process, which spares the imports."""
    monkeypatch.chdir(_workplace(tmp_path))
    core = logging.getLogger("lntx")
    before = (core.level, core.propagate, list(core.handlers))

    def run(*words: str, env: dict[str, str] | None = None) -> Done:
        capfd.readouterr()
        with monkeypatch.context() as patch:
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                run_command(words)
        core.handlers[:] = before[2]
        captured = capfd.readouterr()
        return Done(code=int(ended.value.code or 0), out=captured.out, err=captured.err)

    yield run
    core.level, core.propagate = before[:2]


def _workplace(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir(exist_ok=True)
    return folder


# What waits longest first, so that no process ends long after the others; the tests of flows share one server.
_LONGEST = ("flows", "service", "faults", "canary", "cli", "cluster")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def room(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return _LONGEST.index(folder) if folder in _LONGEST else len(_LONGEST)

    items.sort(key=room)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file go to one process, those of flows too, unless asked otherwise (--dist loadfile)."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Rooms(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::", 1)[0]
            return "tests/flows" if path.startswith("tests/flows/") else path

    return Rooms(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database",
        choices=("sqlite", "postgresql"),
        default="sqlite",
        help="what the Prefect server of the flow tests keeps its state in",
    )
    parser.addoption(
        "--no-skips",
        action="store_true",
        help="fail if a test is skipped for want of anything but a GPU",
    )
    parser.addoption("--screenshots", help="folder to keep screenshots of the browser tests in")


def pytest_configure(config: pytest.Config) -> None:
    # The one that hears of all tests, where they run in several processes.
    if config.getoption("--no-skips") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_NoSkips())


class _NoSkips:
    """Turns a skipped test into a failed session."""

    def __init__(self) -> None:
        self._skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail") and "GPU" not in str(report.longrepr):
            self._skipped.append(f"{report.nodeid}: {report.longrepr}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for one in self._skipped:
            terminalreporter.write_line(f"skipped, which --no-skips forbids: {one}", red=True)
