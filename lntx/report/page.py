"""A page: headline, notes, tables and pictures; as Markdown for Prefect, as HTML for a file, as text for a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from lntx.base import text
from lntx.base.version import __version__
from lntx.report import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_ROWS = 200
_NUMBER = re.compile(r"(-?\d+)((?:\.\d+)?(?:e[+-]\d+)?)")
_NO_NUMBER = ("–", "")
# As wide as a digit.
_FIGURE_SPACE = "&#8199;"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a page."""

    title: str = ""
    """What it shows; empty for the main table."""

    header: Sequence[str]
    """Names of the columns."""

    rows: Sequence[Sequence[str]]
    """One cell for each column; a line break separates several things in one cell."""

    legend: str = ""
    """How to read it."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a page."""

    name: str
    """What it shows."""

    drawing: Callable[[], Figure] | str
    """Draws it; or the data URI of a PNG."""

    words: str = ""
    """What stands in its place in Markdown, if anything."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What is shown about a result, whatever it is shown on."""

    headline: str
    """The verdict."""

    verdict: str | None = None
    """pass, fail or None; it gives the headline its colour."""

    sentences: Sequence[str] = ()
    """What the verdict says, in words."""

    notes: Sequence[str] = ()
    """Reason, warnings, and what else a reader must know."""

    tables: Sequence[Table] = ()
    """The tables."""

    pictures: Sequence[Picture] = ()
    """The pictures."""

    footer: str = ""
    """What the page is about."""


def to_markdown(page: Page, *, max_rows: int = _MAX_ROWS) -> str:
    """Return the page as Markdown, with the pictures inside. max_rows: rows of a table; the rest is counted."""
    parts = [f"# {text.markdown(page.headline)}", *page.sentences]
    parts += [f"> {text.markdown(note)}" for note in page.notes]
    for table in page.tables:
        parts += [f"## {table.title}"] if table.title else []
        lines = [table.header, ["---"] * len(table.header), *([*map(_cell, row)] for row in table.rows[:max_rows])]
        parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
        parts += [f"… and {len(table.rows) - max_rows} more."] if len(table.rows) > max_rows else []
        parts += [table.legend] if table.legend else []
    for picture in page.pictures:
        parts += [f"## {picture.name.capitalize()}", picture.words or f"![{picture.name}]({_png(picture)})"]
    parts += [page.footer] if page.footer else []
    return "\n\n".join(parts) + "\n"


def to_html(page: Page) -> str:
    """Return the page as one self-contained HTML file: no script, no request, light and dark mode."""
    from jinja2 import Environment, PackageLoader

    template = Environment(
        loader=PackageLoader("lntx.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: text.escape(value) if type(value) is str else value,
    ).get_template("page.html.jinja")
    drawings = [(picture.name, picture.drawing) for picture in page.pictures if not isinstance(picture.drawing, str)]
    # Safe: drawn here, and all of its text is escaped by matplotlib.
    pictures = [(name, Markup(plots.as_svg(draw(), name))) for name, draw in drawings]
    tables = []
    for table in page.tables:
        columns = [_on_the_point([*column]) for column in zip(*table.rows, strict=True)]
        numeric = [Markup(' class="number"' if is_numeric else "") for is_numeric, _ in columns]
        rows = [*zip(*(cells for _, cells in columns), strict=True)]
        tables.append((table, rows, numeric or [Markup("")] * len(table.header)))
    return template.render(page=page, tables=tables, pictures=pictures, version=__version__)


def to_text(page: Page) -> list[str]:
    """Return the page as lines for a terminal: tables, notes, and the headline last."""
    lines: list[str] = []
    for table in page.tables:
        lines += [*text.align([table.header, *table.rows]), *([table.legend] if table.legend else []), ""]
    return [*lines, *page.sentences, *page.notes, page.headline]


def _on_the_point(cells: list[str]) -> tuple[bool, list[str]]:
    """Return whether a column is one of numbers, and its cells, padded so that their decimal points are in one line."""
    parts = [_NUMBER.fullmatch(cell) for cell in cells]
    if not any(parts) or not all(part or cell in _NO_NUMBER for part, cell in zip(parts, cells, strict=True)):
        return False, cells
    widths = [len(part[2]) if part else 0 for part in parts]
    # Safe: a number has no markup.
    return True, [
        Markup(cell + _FIGURE_SPACE * (max(widths) - width)) for cell, width in zip(cells, widths, strict=True)
    ]


def _cell(value: str) -> str:
    return "<br>".join(text.markdown(line) for line in value.split("\n"))


def _png(picture: Picture) -> str:
    return picture.drawing if isinstance(picture.drawing, str) else plots.as_png(picture.drawing())
