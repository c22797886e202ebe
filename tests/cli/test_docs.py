"""What the documents show exists: every command, and every option. Run: pytest tests/cli/test_docs.py"""

from __future__ import annotations

import functools
import html
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commandline import Cli

from flows.cli.app import app
from lntx.config.loading import KEYS
from lntx.config.schema import Pipeline

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])
COMMANDS = {name for name in app if not name.startswith("-")}
EVERYWHERE = {"--help", "-h", "--version", "--install-completion"}


@functools.cache
def _options(command: str) -> set[str]:
    return {
        name
        for argument in app[command].assemble_argument_collection(default_parameter=app.default_parameter)
        for name in argument.names
    } | EVERYWHERE


def _shown(text: str) -> list[str]:
    """Uses of the command: lines of a console, and text between backticks; a pipe or a comment ends one."""
    lines = re.findall(r"^\$ (?:\S+/)?lntx (.*)$", text, re.M) + re.findall(r"`(?:\S+/)?lntx ([^`\n]+)`", text)
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
        lines += re.findall(r"^lntx (.*)$", block, re.M)
    return [re.split(r"[|#]", line)[0] for line in lines]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_that_are_shown_exist(document: Path) -> None:
    for use in _shown(document.read_text(encoding="utf-8")):
        command, *words = use.split()
        if command.startswith("-"):
            assert command in EVERYWHERE, use
            continue
        assert command in COMMANDS, use
        known = _options(command)
        for word in words:
            if re.fullmatch(r"--[a-z][a-z.-]*(=.*)?", word):
                assert word.split("=")[0] in known, use


def test_every_command_is_shown_somewhere() -> None:
    everything = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    assert {use.split()[0] for use in _shown(everything)} >= COMMANDS


@functools.cache
def _pages() -> dict[str, str]:
    made: dict[str, str] = runpy.run_path(str(ROOT / "docs" / "reference.py"))["pages"]()
    return made


def test_the_reference_is_what_the_code_says() -> None:
    """Every command, option, configuration key, JSON key and exit code."""
    pages = _pages()
    for name, text in pages.items():
        assert text == (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8"), "run: python docs/reference.py"
    parts = dict(re.findall(r"^## lntx (.*?)\n(.*?)(?=^## |\Z)", pages["commands.md"], re.M | re.S))
    common = pages["commands.md"].split("\n## ")[0]
    for name in COMMANDS:
        shown = common + parts[name]
        for option in _options(name) - EVERYWHERE:
            key = option.removeprefix("--").removeprefix("no-").replace(".no-", ".").replace("-", "_")
            if "--config" in _options(name) and key in KEYS:
                assert f"| `{key.split('.')[1]}` |" in pages["configuration.md"], option
            elif option.startswith("-") and key not in Pipeline.model_fields:
                assert re.search(rf"`(?:[^`]* )?{option}(?: [^`]*)?`", shown), f"{name}: {option}"
        assert f"## lntx {name}" in pages["json.md"] or name in ("fit", "show")


def test_what_commands_print_as_json_stands_in_the_reference(cli: Cli) -> None:
    pages = _pages()
    parts = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", pages["json.md"], re.M | re.S))
    for seed in ("0", "1"):
        run = cli("run", "--local", "--train.seed", seed, "--json").json["run"]
    other = cli("runs", "--json").json["runs"][1]["run"]
    for command in (
        "show", "plan", "predict 3", "runs", f"diff {run} {other}", "report", "verify", "gc --keep 1 --dry-run",
        "pin " + run, "doctor", "down", "sweep --over train.seed=0,1", "canary --local",
    ):  # fmt: skip
        name = command.split()[0]
        shown = parts["lntx run, fit and show" if name == "show" else f"lntx {name}"]
        if name == "canary":
            shown += parts["lntx run, fit and show"]
        for key in cli(*command.split(), "--json").json:
            assert f"`{key}`" in shown or f"`{key}:" in shown or f"`{key}`:" in shown, f"{name}: {key}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<(?:script|img|link)[^>]* (?:src|href)=\"?https?://", text)
        assert not re.search(r"-+\s*8\s*(?:<|&lt;)\s*-+", text), (
            f"{page}: a mark for a snippet stands in place of its text"
        )
    finding = (tmp_path / "findings" / "fused_sgd.html").read_text(encoding="utf-8")
    assert "<td>2.13.0, x86_64 AVX2</td>" in finding
    feed = ElementTree.parse(tmp_path / "findings.xml").getroot()
    assert all((tmp_path / (item.findtext("link") or "")).is_file() for item in feed.iter("item"))
    shown = html.unescape(re.sub(r"<[^>]+>", "", (tmp_path / "how-to" / "own-flow.html").read_text(encoding="utf-8")))
    for example in ("own_loader", "own_check", "own_publisher"):
        for line in (ROOT / "examples" / f"{example}.py").read_text(encoding="utf-8").splitlines():
            assert line in shown, f"{example}: {line}"


def test_the_picture_shows_what_the_readme_shows() -> None:
    picture = (ROOT / "docs" / "images" / "answer.svg").read_text(encoding="utf-8")
    lines = html.unescape("\n".join(re.findall(r">([^<]*)</text>", picture)))
    assert "   learned  exact  true\nx  3.7      3.7    3.7\n\nPASS  15.95 digits, 3 epochs\n" in lines
    assert "FAIL  training: x was learned as 2.036 where the exact\nanswer is 3.7: too few steps" in lines
    assert "x  3.7      3.7    3.7\n\nPASS  15.95 digits, 3 epochs" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_fits_two_screens() -> None:
    for name in ("README.md", "README.zh-CN.md"):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 150
