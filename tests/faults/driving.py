"""Drive the command line in processes of its own, and compare roots. Used by the catalogue of faults."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from commandline import Done

from flows.cli.entry import run_command

SETTINGS = ("--data.num-rows", "3000", "--data.noise", "0.5", "--data.bias", "1")
"""What most cases run: quick, and with every kind of file."""

STAGES = ("generate", "train", "evaluate", "export")


def command(*words: str, root: Path) -> list[str]:
    return [sys.executable, "-m", "flows.cli", *words, "--root", str(root)]


def lntx(*words: str, root: Path, env: dict[str, str] | None = None, before: Callable[[], None] | None = None) -> Done:
    """Run a command to its end. before: called in the process, before it becomes lntx."""
    done = subprocess.run(
        command(*words, root=root),
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        preexec_fn=before,
        check=False,
        timeout=600,
    )
    return Done(code=done.returncode, out=done.stdout, err=done.stderr)


def lntx_here(*words: str, root: Path) -> Done:
    """The same in this process, which spares the imports: where the state on the disk is what is tested."""
    core = logging.getLogger("lntx")
    level, propagate, handlers = core.level, core.propagate, list(core.handlers)
    code, out, err = 0, io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run_command([*words, "--root", str(root)])
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        core.level, core.propagate, core.handlers[:] = level, propagate, handlers
    return Done(code=code, out=out.getvalue(), err=err.getvalue())


def run(root: Path, *settings: str, **options: Any) -> Done:
    """`lntx run --local` with the usual settings, or with others; with options in a process of its own."""
    words = ("run", "--local", "--json", *(settings or SETTINGS))
    return lntx(*words, root=root, **options) if options else lntx_here(*words, root=root)


def start(root: Path, *settings: str) -> subprocess.Popen[str]:
    """The same, to be killed; its log lines tell how far it is."""
    return subprocess.Popen(
        command("run", "--local", "--json", "-v", *(settings or SETTINGS), root=root),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    """Read its log up to a line."""
    assert process.stderr is not None
    for said in process.stderr:
        if line in said:
            return
    raise AssertionError(f"it ended without saying {line!r}")


def bits(done: Done) -> dict[str, list[str]]:
    """Digests of the files of each stage, by the order of their names."""
    assert done.code == 0, done.out + done.err
    stages = done.json["stages"]
    return {stage: [file["sha256"] for file in stages[stage]["files"]] for stage in STAGES}


def states(done: Done) -> dict[str, str]:
    """The outcome of each stage."""
    return {stage: report["state"] for stage, report in done.json["stages"].items()}


def damaged(root: Path) -> list[str]:
    """What `lntx verify` names; its exit code goes with it."""
    done = lntx_here("verify", "--json", root=root)
    found = [damage["path"] for damage in done.json["damaged"]]
    assert done.code == (5 if found else 0)
    return found


def copy(root: Path, to: Path) -> Path:
    shutil.copytree(root, to, symlinks=True)
    return to


def stored_files(root: Path) -> list[str]:
    """Every file that a run left and that must be what it was, relative to the root."""
    folders = (
        "data",
        "artifacts/train",
        "artifacts/evaluate",
        "artifacts/export",
        "artifacts/records",
        "artifacts/runs",
    )
    found = [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    return sorted(path.relative_to(root).as_posix() for path in [*found, root / "artifacts" / "current.json"])


def stage_of(name: str) -> str | None:
    """The stage that a stored file belongs to; none for the history."""
    parts: Sequence[str] = Path(name).parts
    if parts[0] == "data":
        return "generate"
    if parts[1] == "records":
        return parts[2]
    return parts[1] if parts[1] in STAGES else None


def until(condition: Callable[[], bool], *, seconds: float = 300.0, every: float = 0.01) -> None:
    """Wait for something that must come, however slow the machine; asked every so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(every)
