"""The command line: reads options, prints text, returns exit codes. Each command calls the core or a flow."""

from __future__ import annotations

# Built in, unlike signal and typing, whose imports Ctrl-C could end.
import _signal  # type: ignore[import-not-found]
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command `lntx`."""
    # The imports take most of a second: Ctrl-C in them must not print a traceback.
    _signal.signal(_signal.SIGINT, lambda _number, _frame: os._exit(130))
    from flows.cli.entry import run_command

    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    run_command()
