"""Errors shown to the user, each with the exit code of the command. Knows no stage and no store."""

from collections.abc import Mapping
from typing import Any

from lntx.base.text import MAX_MESSAGE, escape, shorten

_MAX_LINES = 10


class LntxError(ValueError):
    """Base class of all deliberate errors. The message tells the user what is wrong, which value, and what to do.

    lines: one sentence each. Quoted external text is escaped, and a message has at most 2,000 characters.
    """

    kind = "Error"
    exit_code = 1

    def __init__(self, *lines: str) -> None:
        if len(lines) > _MAX_LINES:
            lines = (*lines[: _MAX_LINES - 1], f"… and {len(lines) - _MAX_LINES + 1} more")
        most = MAX_MESSAGE // max(1, len(lines))
        super().__init__(*(shorten(escape(line[: most + 1]), most) for line in lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


class BadInput(LntxError):
    """The configuration, the command line or the user's file cannot be used; nothing was computed.

    advice: settings by dotted key that get further, added to those that were given: lists by list, others by value. The
    command line prints them as options; `str` as Python takes them.
    """

    kind = "BadInput"
    exit_code = 2

    def __init__(self, *lines: str, advice: Mapping[str, Any] | None = None) -> None:
        super().__init__(*lines)
        self.advice = dict(advice or {})

    def __str__(self) -> str:
        if not self.advice:
            return super().__str__()
        sections: dict[str, dict[str, Any]] = {}
        for key, value in self.advice.items():
            section, name = key.split(".")
            sections.setdefault(section, {})[name] = value
        return "\n".join([*self.args, *(f"add to {name}: {values!r}" for name, values in sections.items())])


class WrongAnswer(LntxError):
    """A stage worked, but its answer differs from the known one; raised only if a verdict cannot be returned."""

    kind = "WrongAnswer"
    exit_code = 3

    result: object = None
    """The run or canary with that verdict, if there is one."""


class NotFresh(LntxError):
    """A stage outside the selection has no stored result for the selected stages to use."""

    kind = "NotFresh"
    exit_code = 4


class Damaged(LntxError):
    """Stored bytes have changed since they were written."""

    kind = "Damaged"
    exit_code = 5


class ServerUnreachable(LntxError):
    """The configured Prefect server does not answer, or refuses."""

    kind = "ServerUnreachable"


KINDS: tuple[type[LntxError], ...] = (LntxError, BadInput, WrongAnswer, NotFresh, Damaged, ServerUnreachable)
"""All error classes."""
