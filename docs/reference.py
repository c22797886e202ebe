"""Write docs/reference/ from the code: commands, keys, JSON, exit codes. Run: python docs/reference.py"""

from __future__ import annotations

import ast
import functools
import inspect
import io
import itertools
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.console import Console

from flows.cli.app import app, command
from lntx.base.errors import KINDS
from lntx.canary.suite.results import Canary, CaseReport, FaultReport, OperatorReport
from lntx.cluster.nodes import NodeReport, NodesReport
from lntx.config.schema import Pipeline
from lntx.doctor import Finding
from lntx.runs.exchange import Copied
from lntx.runs.garbage import Collection
from lntx.runs.history import Difference, RunSummary
from lntx.runs.run import Run
from lntx.runs.verify import Check
from lntx.sweep.sweep import Sweep
from lntx.sweep.trials import Row

FOLDER = Path(__file__).parent / "reference"
TRIED = Path(__file__).parents[1] / "lntx" / "tried.json"
_VERSIONS = (
    "lntx was run in these environments, and is not claimed to work in others. `floors` has the lowest version of each "
    "dependency that pyproject.toml admits, `newest` the highest; the others have the versions of constraints.txt. "
    "`make floors`, `make newest` and `make python-3.12` do it again. `lntx doctor` notes versions that are not there."
)
_EXIT_CODES = (
    (0, "fine"),
    (1, "an error; a problem that `doctor` found; a planted fault that was missed; a canary without a verdict"),
    (2, "bad input or usage; for `sweep` also: no combination could be trained"),
    (3, "a wrong answer; a planted fault that was caught"),
    (4, "`plan`: a stage is not fresh; with `--from` or `--only`: the result of an earlier stage is not stored"),
    (5, "stored bytes are damaged; not of `verify --heal`, which has moved them away"),
    (130, "interrupted (Ctrl-C)"),
    (143, "terminated (SIGTERM)"),
)

_JSON = (
    "Every command takes `--json`: one object on stdout; only `lntx up --systemd` still prints its unit. Where this "
    "page says None, JSON has `null`."
)
_LAYERS = """\
A key can be given in four places. If it is in several, the later one in this list wins:

1. `--preset NAME`: a named configuration. `tutorial` is the only one.
2. `--config FILE`: a TOML file, with one table per section.
3. An environment variable, `LNTX_SECTION_KEY`: `LNTX_DATA_NUM_ROWS=5000`. A list is JSON, or values with commas between
   them: `LNTX_DATA_WEIGHTS=3.7,-1.2`. `null` stands for `None`.
4. An option, `--section.key`, with a hyphen for each underscore: `--data.num-rows 5000`. For a list, repeat the option.

An unknown key is refused in each of them. In Python, a section is an argument: `lntx.run(data={"num_rows": 5000})`; it
wins over the environment, too. A file with all four sections:

```toml
[data]
weights = [3.7, -1.2]
num_rows = 5000

[train]
learning_rate = 0.01

[evaluate]
false_alarm_rate = 1e-9

[export]
formats = ["safetensors"]
```"""


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Return the pages by the name of their file."""
    made = "Made from the code by `python docs/reference.py`; a test compares them."
    common = [*_options("runs"), ("`--help -h`", "Show the help of the command.")]
    commands = ["Every command also takes these options:", _table(("option", "meaning"), common)]
    commands.append(
        "`run`, `fit`, `plan`, `sweep` and `up` take the keys of the [configuration](configuration.md), too."
    )
    commands.append("`lntx --install-completion` makes the shell complete commands and options.")
    for name in sorted(one for one in app if not one.startswith("-")):
        options = [row for row in _options(name) if row not in common]
        if any(row[0].startswith("`--config") for row in options):
            options = [row for row in options if not re.match(r"`--(data|train|evaluate|export)\.", row[0])]
        what = _first_paragraphs(_help(name))
        commands += [f"## lntx {name}", what, *([_table(("option", "meaning"), options)] if options else [])]
    keys = [_LAYERS]
    for section, field in Pipeline.model_fields.items():
        keys += [f"## {section}", _table(("key", "default", "values", "meaning"), _keys(type(field.default)))]
    answers = [f"## {title}\n\n{_table(('key', 'meaning'), rows)}" for title, rows in _answers()]
    answers.append("## Errors")
    answers.append('An error is `{"error": {"kind": …, "message": …, "exit_code": …}}`, its kind one of')
    kinds = sorted({*(kind.kind for kind in KINDS), "DiskFull", "Interrupted", "NotPermitted", "Running"})
    answers[-1] += f" {', '.join(kinds)} or the name of an exception."
    codes = _table(("code", "meaning"), [(str(code), what) for code, what in _EXIT_CODES])
    return {
        f"{name}.md": "\n\n".join([f"# {title}", made, *parts]) + "\n"
        for name, title, parts in (
            ("commands", "Commands", commands),
            ("configuration", "Configuration", keys),
            ("json", "JSON", [_JSON, *answers]),
            ("exit-codes", "Exit codes", [codes]),
            ("versions", "Versions", [_VERSIONS, *_tried()]),
        )
    }


def _tried() -> list[str]:
    """Return a table of the environments in which lntx was run, and one of the versions of the packages."""
    rows = json.loads(TRIED.read_text(encoding="utf-8"))
    runs = [
        (row["name"], row["date"], row["python"], f"{row['machine']}, {row['kernels']}", "; ".join(row["worked"]))
        for row in rows
    ]
    packages = [
        (f"`{name}`", *(row["versions"].get(name, "–") for row in rows))
        for name in sorted({name for row in rows for name in row["versions"]})
    ]
    header = ("environment", "date", "Python", "processor, kernels of torch", "what worked: commands, tests")
    return [_table(header, runs), _table(("package", *(row["name"] for row in rows)), packages)]


def _answers() -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the keys of each object of --json."""
    run, canary = _fields(Run), _fields(Canary)
    return [
        (
            "lntx run, fit and show",
            [*run, ("`lineage`", "Of `show` only: the steps from the export back to the rows.")],
        ),
        (
            "lntx canary",
            [("…", "Not of `--deep`: the keys of `lntx run`, of the first wrong case, else of the first."), *canary],
        ),
        ("lntx canary: cases", _fields(CaseReport)),
        ("lntx canary: operators", _fields(OperatorReport)),
        ("lntx canary: fault", _fields(FaultReport)),
        ("lntx canary --every-node", _fields(NodesReport)),
        ("lntx push", _fields(Copied)),
        ("lntx pull", _fields(Copied)),
        ("lntx canary --every-node: places", _fields(NodeReport)),
        ("lntx plan", [("`stages`", "By stage: `state` and `reason`.")]),
        (
            "lntx predict",
            [
                ("`prediction`, or `output` and `num_rows`", "The number, or the file that was written and its rows."),
                ("`run`, `features`", "The run whose model answered, and its features."),
            ],
        ),
        ("lntx sweep", _fields(Sweep)),
        ("lntx sweep: trials", _fields(Row)),
        ("lntx runs", [("`runs`", "The runs, the latest first.")]),
        ("lntx runs: runs", _fields(RunSummary)),
        ("lntx diff", _fields(Difference)),
        ("lntx report", [("`run`, `report`", "The run, and the file that was written.")]),
        ("lntx verify", _fields(Check)),
        ("lntx gc", _fields(Collection)),
        ("lntx pin", [("`run`, `pinned`, `pins`", "The run, whether it is pinned, and all that are.")]),
        (
            "lntx doctor",
            [("`problems`", "Their number."), *((f"`findings`: {name}", what) for name, what in _fields(Finding))],
        ),
        (
            "lntx up",
            [
                ("`url`, `secret_file`, `logs`, `pid`", "The server, its password, its logs, its supervisor."),
                ("`limits`", "What is kept, and how long."),
            ],
        ),
        ("lntx down", [("`was_up`", "Whether there was a server.")]),
    ]


@functools.cache
def _help(name: str) -> str:
    """Return the help of a command."""
    stream = io.StringIO()
    command(name)
    app.help_print([name], console=Console(file=stream, width=1000, color_system=None))
    return stream.getvalue()


def _options(name: str) -> list[tuple[str, str]]:
    """Return the options of a command with their meaning, as its help says them."""
    options = []
    for line in re.findall(r"^│ (.*?) *│$", _help(name), re.M):
        words, _, meaning = line.strip().removeprefix("* ").strip().partition("  ")
        options.append((f"`{words}`", meaning.strip().removesuffix(" [default: False]")))
    return options


def _first_paragraphs(text: str) -> str:
    return "\n\n".join(
        " ".join(part.split())
        for part in text.split("╭", maxsplit=1)[0].split("\n\n")
        if part.strip() and "Usage:" not in part
    )


def _keys(section: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    schemas = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        values = _values(schemas[name])
        yield f"`{name}`", f"`{field.default}`", values, " ".join((field.description or "").split())


# Beyond these a bound only keeps a number finite.
_UNBOUNDED = 9e18


def _values(schema: dict[str, Any]) -> str:
    """Return the values that a JSON schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(_values(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        inner = _values(schema["items"])
        return f"list of {inner}" if "`" in inner else f"list: {inner}"
    if schema["type"] not in ("integer", "number"):
        return {"boolean": "`true`, `false`", "string": "text" if schema.get("maxLength") != 1 else "a character"}[
            schema["type"]
        ]
    limits = [
        f"{word} {schema[key]:,.10g}"
        for key, word in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in schema and abs(schema[key]) < _UNBOUNDED
    ]
    return ", ".join([schema["type"], *limits])


def _fields(model: type[BaseModel]) -> list[tuple[str, str]]:
    said = {name: text for base in reversed(model.__mro__) for name, text in _docstrings(base).items()}
    return [(f"`{name}`", " ".join(said.get(name, "").split())) for name in model.model_fields]


def _docstrings(model: type) -> dict[str, str]:
    """Return the text under each field of a class; only the models of the configuration carry it at run time."""
    if not issubclass(model, BaseModel) or model is BaseModel:
        return {}
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: text.value.value
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    # Brackets outside of code would be read as a link.
    return re.sub(r"\[(?=default|choices|required)", r"\\[", text.replace("|", "\\|"))


if __name__ == "__main__":
    main()
