"""The command line: reads options, prints text, returns exit codes. Each command calls the core or a flow."""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command `lntx`."""
    # The imports take most of a second: Ctrl-C in them must not print a traceback.
    signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(130))
    from flows.cli.entry import run_command

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_command()
