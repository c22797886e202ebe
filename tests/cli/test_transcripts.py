"""What the documents show is what the commands print. Run: pytest tests/cli/test_transcripts.py

A `console` block is run, each page in a folder of its own; a line `…` stands for any lines, `…` in a line for any text.
A block with a title is a file of that name. Blocks called `sh` need other machines or services: they are not run.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = [page for page in PAGES if "```console" in page.read_text(encoding="utf-8")]
# Where the documents say that a server's folder is.
_FOLDER = "/srv/lntx"


def _quick(page: Path) -> bool:
    return page.name == "program.md"


# A page of many commands takes minutes where other tests run beside it.
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=() if _quick(page) else pytest.mark.slow) for page in SHOWN],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_a_page_shows_what_its_commands_print(page: Path, tmp_path: Path) -> None:
    for command, shown, printed in play(page, tmp_path):
        assert re.fullmatch(pattern(shown), plain(printed) + "\n"), f"$ {command}\n{printed}"


def test_the_chinese_readme_shows_the_same() -> None:
    english, chinese = (
        re.findall(r"^```console\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.M | re.S)
        for name in ("README.md", "README.zh-CN.md")
    )
    assert english == chinese


def test_blocks_that_are_not_run_are_few_and_need_what_a_test_has_not() -> None:
    pages = {page.name for page in PAGES if "```sh\n" in page.read_text(encoding="utf-8")}
    outside = {
        "exchange.md",
        "fleet.md",
        "gpu.md",
        "index.md",
        "install.md",
        "monitor.md",
        "own-flow.md",
        "own-table.md",
        "postgresql.md",
        "ray.md",
        "upgrade.md",
        "work-pool.md",
    }
    assert pages <= outside | {"README.md", "README.zh-CN.md", "schedule.md"}


def play(page: Path, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Run the console blocks of a page; yield each command, what the page shows, and what was printed."""
    text = page.read_text(encoding="utf-8")
    for name, content in re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```', text, re.M | re.S):
        (folder / name).write_text(content, encoding="utf-8")
    shutil.copytree(ROOT / "tests" / "data", folder / "tests" / "data")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
            for use in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, shown = use.partition("\n")
                asked = re.sub(r"^lntx up\b", f"lntx up --port {port}", command)
                # What make run runs, once everything is installed.
                asked = re.sub(r"^make run\b", "lntx run", asked)
                asked = re.sub(r"^python\b", sys.executable, asked)
                printed = _run(asked, folder)
                yield command, shown, printed.replace(str(folder.resolve()), _FOLDER).replace(str(port), "4200")
    finally:
        _run("lntx down", folder)


def _run(command: str, folder: Path) -> str:
    """Return what a command prints, with the newest lntx first on the path."""
    home = folder / ".bin"
    home.mkdir(exist_ok=True)
    script = home / "lntx"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m flows.cli "$@"\n')
    script.chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LNTX_", "PREFECT_"))},
        "PATH": f"{home}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "80",
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    return done.stdout


def plain(text: str) -> str:
    """Return text without what differs from run to run: times, names of runs, digests, drawn seeds, sizes, the last
    digits of numbers, and the lines of Prefect's log and of progress.
    """
    for what, name in (
        (
            r"^\d\d:\d\d:\d\d\.\d+ \| .*\n|^See https://docs.prefect.io.*\n|^[a-z ,]+: [\d,]+ of [\d,]+(, .* left)?\n",
            "",
        ),
        (rf"{_FOLDER}/(?!artifacts)", ""),
        (r"\d{8}-\d{6}-\d{6}", "RUN"),
        (r"ran +\d+\.\d\d s", "ran"),
        # The column of seconds of a canary.
        (r" +\d+\.\d\d$", " S"),
        (r"(?<![\d.])\b[0-9a-f]{12,64}\b", "DIGEST"),
        (r"(?<![\d.])\b\d{15,20}\b(?!\.)", "SEED"),
        (r"(\.\d{10})\d+", r"\1"),
        # The last unit in the last place depends on the processor.
        (r"\b15\.\d+ digits", "15 digits"),
        (r"[\d,]+ bytes", "N bytes"),
        (r"[ \t]+", " "),
        (r" $", ""),
    ):
        text = re.sub(what, name, text, flags=re.M)
    return text.strip()


def pattern(shown: str) -> str:
    """Return a regular expression for what a page shows."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else ".*".join(map(re.escape, line.split("…"))) + "\n"
        for line in plain(shown).split("\n")
    ]
    return "".join(lines)
