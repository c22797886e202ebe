"""Write docs/reference.md from the code: commands, keys, exit codes. Run: python docs/reference.py"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console

from flows.cli.app import app, command
from lntx.canary.deep import DeepCanary, DeepCase, OperatorReport
from lntx.canary.results import Canary
from lntx.config.schema import Pipeline
from lntx.errors import KINDS
from lntx.runs.run import Run

TARGET = Path(__file__).with_suffix(".md")
_COMMON = {"--root", "--json", "--quiet", "--verbose"}
_EXIT_CODES = (
    (0, "fine"),
    (1, "an error; a planted fault that was missed"),
    (2, "bad input or usage, known before the first step"),
    (3, "a wrong answer; a planted fault that was caught"),
    (4, "something is not fresh"),
    (5, "stored bytes are damaged"),
    (130, "interrupted"),
    (143, "terminated"),
)


def main() -> None:
    """Write the page."""
    TARGET.write_text(page(), encoding="utf-8")


def page() -> str:
    """The page."""
    parts = ["# Reference", "Made by `python docs/reference.py` from the code; a test compares them.", "## Commands"]
    parts.append("Each also takes `--root DIR`, `--json`, `--quiet` (`-q`), `--verbose` (`-v`) and `--help`.")
    parts.append("Those that run something also take the keys below.")
    for name in sorted(one for one in app if not one.startswith("-")):
        what, options = _help(name)
        parts += [f"### lntx {name}", what, _table(("option", "meaning"), options)]
    parts += ["## Configuration", "As options (`--data.num-rows`), in TOML (`[data] num_rows`), in variables"]
    parts[-1] += ' (`LNTX_DATA_NUM_ROWS`) and in Python (`data={"num_rows": …}`).'
    for section, field in Pipeline.model_fields.items():
        parts += [f"### {section}", _table(("key", "default", "meaning"), _keys(type(field.default)))]
    parts += ["## JSON", "Of `lntx run`, `fit` and `show`:", _table(("key", "meaning"), _fields(Run))]
    more = [row for row in _fields(Canary) if row not in _fields(Run)]
    parts += ["Of `lntx canary` also:", _table(("key", "meaning"), more)]
    parts += ["Of `lntx canary --deep`:", _table(("key", "meaning"), _fields(DeepCanary))]
    parts += ["Each of its `cases`:", _table(("key", "meaning"), _fields(DeepCase))]
    parts += ["Each of its `operators`:", _table(("key", "meaning"), _fields(OperatorReport))]
    parts += ['An error is `{"error": {"kind": …, "message": …, "exit_code": …}}`, its kind one of']
    parts[-1] += f" {', '.join(sorted(kind.kind for kind in KINDS))} or the name of an exception."
    parts += ["## Exit codes", _table(("code", "meaning"), [(str(code), what) for code, what in _EXIT_CODES])]
    return "\n\n".join(parts) + "\n"


def _help(name: str) -> tuple[str, list[tuple[str, str]]]:
    """What a command does, and its own options with their meaning, as its help says them."""
    stream = io.StringIO()
    command(name)
    app.help_print([name], console=Console(file=stream, width=1000, color_system=None))
    text = stream.getvalue()
    options = []
    for line in re.findall(r"^│ (.*?) *│$", text, re.M):
        words, _, meaning = line.strip().removeprefix("* ").strip().partition("  ")
        if words.split()[0] not in _COMMON and not re.match(r"--(data|train|evaluate|export)\.", words):
            options.append((f"`{words}`", meaning.strip().removesuffix(" [default: False]")))
    return _first_paragraphs(text), options


def _first_paragraphs(text: str) -> str:
    return "\n\n".join(
        " ".join(part.split())
        for part in text.split("╭", maxsplit=1)[0].split("\n\n")
        if part.strip() and "Usage:" not in part
    )


def _keys(section: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    for name, field in section.model_fields.items():
        yield f"`{name}`", f"`{field.default}`", " ".join((field.description or "").split())


def _fields(model: type[BaseModel]) -> list[tuple[str, str]]:
    return [(f"`{name}`", " ".join((field.description or "").split())) for name, field in model.model_fields.items()]


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    main()
