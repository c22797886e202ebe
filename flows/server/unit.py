"""Write a systemd unit that runs `lntx up` with the same options; quote each value by systemd's rules or refuse it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.server.home import Home
from lntx.base.errors import BadInput
from lntx.base.text import quoted

_UNIT = """\
# ~/.config/systemd/user/lntx.service
#   systemctl --user daemon-reload && systemctl --user enable --now lntx
# and, so that it starts with the machine and outlives your logout:
#   loginctl enable-linger
[Unit]
Description=lntx: Prefect server, deployments and schedules of {root}
After=network.target

[Service]
WorkingDirectory={folder}
{environment}ExecStart={command}
# Not after lntx down, nor where the options are wrong.
Restart=on-failure
RestartPreventExitStatus=2
RestartSec=10
# The supervisor alone is told to end, and ends the others in order.
KillMode=mixed
TimeoutStopSec=90

[Install]
WantedBy=default.target
"""


def unit(home: Home, words: Sequence[str], secrets: Mapping[str, str]) -> str:
    """Return a systemd unit that runs the same command in the foreground.

    words: the command line without the program. secrets: variables with passwords; they are written to a file that
    only its owner can read, and the options that hold them are left out.

    Raises: BadInput: a unit cannot contain one of the values.
    """
    words = [*words]
    if "--root" in words:
        k = words.index("--root")
        words = [*words[:k], *words[k + 2 :]]
    for name in ("--database", "--webhook", "--notify"):
        while name in words:
            k = words.index(name)
            words = [*words[:k], *words[k + 2 :]]
    words = [word for word in words if not word.startswith(("--database=", "--webhook=", "--notify="))]
    words = [word for word in words if not re.fullmatch(r"--|--(systemd|foreground)(=.*)?|--root=.*", word, re.DOTALL)]
    command = [sys.executable, "-m", "flows.cli", *words, "--foreground", "--root", str(home.root)]
    if "$" in sys.executable:
        raise BadInput(f"a systemd unit cannot hold the program {quoted(sys.executable)}: install lntx elsewhere")
    return _UNIT.format(
        root=_unit_text(str(home.root)),
        folder=_unit_path(str(Path.cwd())),
        environment=f"EnvironmentFile={_unit_path(str(home.write_environment(secrets)))}\n" if secrets else "",
        command=" ".join(_unit_word(word) for word in command),
    )


def _unit_text(value: str) -> str:
    """Escape a value that systemd does not unquote: % begins a specifier, and a final \\ would continue the line."""
    if not value.isprintable() or value != value.strip() or value.endswith("\\"):
        raise BadInput(f"a systemd unit cannot hold {quoted(value)}: rename it")
    return value.replace("%", "%%")


def _unit_path(value: str) -> str:
    # Whether systemd treats these as quoting here depends on its version.
    if any(sign in value for sign in "\"'\\"):
        raise BadInput(f"a systemd unit cannot hold the folder {quoted(value)}: start lntx up elsewhere")
    return _unit_text(value)


def _unit_word(word: str) -> str:
    """Quote a word of a command by systemd's rules: systemd.service(5), command lines."""
    if not word.isprintable():
        raise BadInput(f"a systemd unit cannot hold {quoted(word)}: put it into a file for --config")
    word = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[A-Za-z0-9%$_/.,:=+-]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
