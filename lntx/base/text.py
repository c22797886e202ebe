"""Make external text safe to display: escape control characters and limit lengths."""

from __future__ import annotations

import datetime
import html
import json
import logging
import os
import re
from collections.abc import Iterable, Sequence

MAX_VALUE, MAX_NAME, MAX_NAMES, MAX_MESSAGE = 300, 64, 10, 2000
"""Maximum characters of a value, characters of a name, names in a list, and characters of a message."""

_MARKUP = re.compile(r"[\\`*_\[\]|~#!$@{}]|(?<=[A-Za-z]):(?=/)|(?<=www)\.", re.IGNORECASE)


def escape(text: str) -> str:
    r"""Return one printable line: control characters, line breaks and bidirectional marks become \x1b, \n, \u202e."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def shorten(text: str, most: int) -> str:
    """Cut text to at most `most` characters; an ellipsis marks the cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def for_message(value: object, most: int = MAX_VALUE) -> str:
    """Return a value for a message: escaped, and at most `most` characters long."""
    # Cut before escaping too: a value may have millions of characters.
    return shorten(escape(str(value)[: most + 1]), most)


def quoted(value: object, most: int = MAX_VALUE) -> str:
    """Return the repr of a value, at most `most` characters long."""
    text = repr(value[: most + 1] if isinstance(value, (str, bytes)) else value)
    return shorten(escape(text[: most + 1]), most)


def example(value: object) -> str:
    """Return a value of the user's table for a message, in brackets; nothing where values are hidden (LNTX_VALUES)."""
    return "" if os.environ.get("LNTX_VALUES") == "hidden" else f" ({quoted(value, MAX_NAME)})"


def listed(names: Iterable[object]) -> str:
    """Return names for a message: the first ten, quoted, and the number of the others."""
    all_names = [*names]
    more = len(all_names) - MAX_NAMES
    text = ", ".join(quoted(name, MAX_NAME) for name in all_names[:MAX_NAMES])
    return f"{text} and {more:,} more" if more > 0 else text


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ": did you mean …?" with the most similar known word; nothing if no word is similar."""
    import difflib

    close = difflib.get_close_matches(word[:MAX_NAME], list(known), n=1, cutoff=0.6)
    if not close:
        return ""
    name = close[0] if re.fullmatch(r"[\w.-]+", close[0]) else quoted(close[0], MAX_NAME)
    return f": did you mean {name}?"


def markdown(value: object) -> str:
    """Escape text for Markdown, so that it contains no markup, HTML or link."""
    return html.escape(_MARKUP.sub(r"\\\g<0>", escape(str(value))), quote=False)


def align(rows: Sequence[Sequence[str]], *, within: int = MAX_MESSAGE) -> list[str]:
    """Return rows as lines of aligned columns, two spaces apart. within: the most characters of a line."""
    cells = [[for_message(cell) for cell in row] for row in rows]
    widths = [max(len(row[j]) for row in cells) for j in range(len(cells[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    return [shorten(line, within) for line in lines]


class EscapedLines(logging.Filter):
    """Escapes each log message, so that it stays on one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape and shorten the message; always return true."""
        record.msg, record.args = shorten(escape(record.getMessage()), MAX_MESSAGE), None
        return True


class JsonLines(logging.Formatter):
    """Writes a log line as a JSON object: time (ISO 8601 in UTC), level, logger and message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object of a line."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        fields = {"time": time, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        return json.dumps(fields)
