"""Text from outside, made safe to show: control characters escaped, lengths bounded. Knows nothing of where it goes."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Iterable

MAX_VALUE, MAX_NAME, MAX_NAMES, MAX_MESSAGE = 300, 64, 10, 2000
"""Characters of a value, characters of a name, names in a list, characters of a message."""

_MARKUP = re.compile(r"[\\`*_\[\]|~#!$@{}]|(?<=[A-Za-z]):(?=/)|(?<=www)\.", re.IGNORECASE)


def escape(text: str) -> str:
    r"""One line that shows as it is: control characters, line breaks and bidirectional marks as \x1b, \n, \u202e."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def shorten(text: str, most: int) -> str:
    """At most so many characters, the cut marked by an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def shown(value: object, most: int = MAX_VALUE) -> str:
    """A value for a message: escaped, and no longer than so many characters."""
    # Cut before as well: a value may have millions of characters.
    return shorten(escape(str(value)[: most + 1]), most)


def quoted(value: object, most: int = MAX_VALUE) -> str:
    """A value as Python writes it, no longer than so many characters."""
    text = repr(value[: most + 1] if isinstance(value, (str, bytes)) else value)
    return shorten(escape(text[: most + 1]), most)


def listed(names: Iterable[object]) -> str:
    """Names for a message: the first ten, quoted, and how many more there are."""
    all_names = [*names]
    more = len(all_names) - MAX_NAMES
    text = ", ".join(quoted(name, MAX_NAME) for name in all_names[:MAX_NAMES])
    return f"{text} and {more:,} more" if more > 0 else text


def markdown(value: object) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no link."""
    return html.escape(_MARKUP.sub(r"\\\g<0>", escape(str(value))), quote=False)


class EscapedLines(logging.Filter):
    """Makes each log line one line of text, whatever it quotes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true."""
        record.msg, record.args = shorten(escape(record.getMessage()), MAX_MESSAGE), None
        return True
