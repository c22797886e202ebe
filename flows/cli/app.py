"""The table of commands, and what all of them share. A command's module is imported when the command is used."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from lntx.base.version import __version__

if TYPE_CHECKING:
    from flows.cli.options import Common
    from lntx.config.schema import Section

COMMANDS = {
    "run": ("flows.cli.run", "Run the pipeline as a Prefect flow run, and print the verdict."),
    "fit": ("flows.cli.run", "Run the pipeline on a table of your own."),
    "sweep": ("flows.cli.run", "Train with many values of some keys, and list the results."),
    "plan": ("flows.cli.run", "Show what would run, and why."),
    "predict": ("flows.cli.run", "Predict with the model of the last passing run."),
    "runs": ("flows.cli.inspect", "List the runs."),
    "show": ("flows.cli.inspect", "Show a run: what was asked, its outcome, and its files."),
    "diff": ("flows.cli.inspect", "Show what differs between two runs."),
    "report": ("flows.cli.inspect", "Write the report of a run as an HTML file."),
    "verify": ("flows.cli.inspect", "Check every stored file for damage."),
    "gc": ("flows.cli.inspect", "Delete what no kept run needs."),
    "pin": ("flows.cli.inspect", "Keep a run, whatever gc deletes."),
    "push": ("flows.cli.inspect", "Copy the exports of a run to an object store."),
    "pull": ("flows.cli.inspect", "Copy the exports of a run from an object store."),
    "canary": ("flows.cli.canary", "Prove that this stack still trains correctly."),
    "up": ("flows.cli.server", "Start a Prefect server with schedules and alerts."),
    "down": ("flows.cli.server", "Stop the server that lntx up started."),
    "doctor": ("flows.cli.doctor", "Look for what is wrong with this machine."),
}
"""The module and a summary of each command: a list of them must not import their modules."""

app = App(
    name="lntx",
    help="A known-answer training pipeline: generate, train, evaluate, export.",
    version=__version__,
    default_parameter=Parameter(negative_iterable=(), negative_none=()),
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command()
for _name, (_module, _summary) in COMMANDS.items():
    app.command(f"{_module}:{_name}", name=_name, help=_summary, sort_key=_name)


def command(name: str) -> App:
    """Return a command; its help is its whole docstring, which says more than the summary."""
    entry = app[name]
    entry.help = None
    return entry


Flat = Parameter(name="*")
Local = Annotated[bool, Parameter(negative=())]


def print_result(common: Common, result: Section | dict[str, Any], print_text: Callable[[], None]) -> None:
    """Print the result of a command: one object with --json, else for a person."""
    if common.json:
        print_json(result if isinstance(result, dict) else result.model_dump(mode="json"))
    else:
        print_text()


def print_json(value: dict[str, Any]) -> None:
    """Print the one object of --json."""
    # A terminal that cannot show a letter still gets JSON.
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    text = json.dumps(value, allow_nan=False, ensure_ascii=not is_unicode)
    if not text.isprintable():
        # Control characters beyond ASCII, and marks that turn the direction of text.
        text = "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)
    print(text)
