"""The table of commands, and what all of them share. A command's module is imported when the command is used."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

from cyclopts import App, Parameter

from lntx import __version__

COMMANDS = {
    "flows.cli.run": ("run", "fit", "sweep", "plan", "predict"),
    "flows.cli.inspect": ("runs", "show", "diff", "report", "verify", "gc", "pin"),
    "flows.cli.canary": ("canary",),
    "flows.cli.server": ("up", "down"),
    "flows.cli.doctor": ("doctor",),
}
"""The functions that are commands, by module."""

app = App(
    name="lntx",
    help="A known-answer training pipeline: generate, train, evaluate, export.",
    version=__version__,
    default_parameter=Parameter(negative_iterable=(), negative_none=()),
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command()
for _module, _names in COMMANDS.items():
    for _name in _names:
        app.command(f"{_module}:{_name}", name=_name)

Flat = Parameter(name="*")
Local = Annotated[bool, Parameter(negative=())]


def print_json(value: dict[str, Any]) -> None:
    """Print the one object of --json."""
    # A terminal that cannot show a letter still gets JSON.
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    text = json.dumps(value, allow_nan=False, ensure_ascii=not is_unicode)
    if not text.isprintable():
        # Control characters beyond ASCII, and marks that turn the direction of text.
        text = "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)
    print(text)
