"""Text from outside is shown as text, and has a size. Run: pytest tests/core/test_text.py"""

from __future__ import annotations

import html
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import lntx
from lntx.base.errors import BadInput
from lntx.base.text import MAX_MESSAGE, escape, for_message, listed, markdown, quoted
from lntx.config.loading import settle
from lntx.data.importing import wanted_columns
from lntx.data.tables import look_at
from lntx.report import report
from lntx.report.page import to_html, to_markdown
from lntx.store.store import Store

EVIL = "a\x1b[2J\n# FAKE \u202e<img src=x onerror=alert(1)>[b](http://e)`|$\x9b"


@given(st.text())
def test_escaped_text_is_one_printable_line_and_stays_as_it_is(text: str) -> None:
    found = escape(text)
    assert found.isprintable()
    assert escape(found) == found
    assert not text.isprintable() or found == text


@given(st.lists(st.text(), max_size=30), st.text(max_size=5000))
def test_a_message_has_a_size_and_a_line_for_each_sentence(lines: list[str], value: str) -> None:
    error = BadInput(*lines, f"data.path {value}")
    assert len(str(error)) <= MAX_MESSAGE + 30
    assert str(error).replace("\n", "").isprintable()
    assert str(error).count("\n") <= min(len(lines), 10)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert len(for_message(value)) <= 300
    assert len(quoted(value)) <= 300
    assert len(listed(lines)) < 10 * 70 + 30


@given(st.text("ab\\`*_[]()<>#!|~$&:/.\n\x1b@{}-", max_size=40))
def test_markdown_shows_text_as_it_is(text: str) -> None:
    """A renderer of Markdown makes a paragraph of it, and nothing else."""
    render = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render
    page = render(f"> so:{markdown(text)}:so")
    shown_as = page.removeprefix("<blockquote>\n<p>so:").removesuffix(":so</p>\n</blockquote>\n")
    assert "<" not in shown_as
    assert html.unescape(shown_as) == escape(text)


def test_ten_thousand_columns_and_a_cell_of_two_megabytes_make_short_messages(tmp_path: Path) -> None:
    wide = tmp_path / "wide.csv"
    wide.write_text(",".join(f"c{k}" for k in range(10_000)) + "\n" + ",".join("1" * 10_000) + "\n")
    with pytest.raises(BadInput) as caught:
        wanted_columns(settle(overrides={"data": {"path": str(wide), "target": "y"}}).data)
    assert "and 9,990 more" in str(caught.value)
    assert len(str(caught.value)) < 1000
    large = tmp_path / "large.csv"
    large.write_text("y,a\n1,1\n2," + "x" * 900_000 + "\n")
    with pytest.raises(BadInput) as caught:
        lntx.fit(large, target="y", root=tmp_path)
    assert "column 'a' is text in row 2 ('xxx" in str(caught.value)
    assert len(str(caught.value)) < 1000
    with pytest.raises(BadInput) as caught:
        settle(overrides={"data": {"distribution": "x" * 2_000_000}})
    assert len(str(caught.value)) < 500


def test_a_report_shows_names_as_text(tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({EVIL: [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.5, 4.0]}), table)
    run = lntx.fit(table, target="y", root=tmp_path, until="evaluate")
    page = report.report_page(report.gather_report(Store(tmp_path), run))
    for text in (to_markdown(page), to_html(page)):
        lines = text.replace("\n", "")
        assert lines.isprintable()
        assert "<img src=x" not in text
        assert "\n# FAKE" not in text
        assert "FAKE" in text
    assert "[b](http" not in to_markdown(page)


def test_files_are_named_as_text(tmp_path: Path) -> None:
    path = tmp_path / f"{EVIL.replace('/', '')}.csv"
    with pytest.raises(BadInput) as caught:
        look_at(path)
    assert str(caught.value).isprintable()
