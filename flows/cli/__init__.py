"""The command line: options in, exit codes and text out. Each command calls the core or a flow."""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """The command `lntx`."""
    # The imports take most of a second, and Ctrl-C in them is no traceback.
    signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(130))
    from flows.cli.main import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
