"""Make a page of each finding as mkdocs builds the site: its text, what was measured in which torch, and a feed.

The text is a section of findings.md; what was measured is benchmarks/results/findings.json, which
`python benchmarks/findings --record` fills.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]
_SECTION = re.compile(r"^## (.+?)\n\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_SCRIPT = re.compile(r"`benchmarks/findings/(\w+)\.py`")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and the feed."""
    page = (_ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    measured = json.loads((_ROOT / "benchmarks" / "results" / "findings.json").read_text(encoding="utf-8"))
    items = []
    for title, text in _SECTION.findall(page):
        scripts = _SCRIPT.findall(text)
        if not scripts:
            continue
        name = scripts[0]
        # One folder further down.
        moved = re.sub(r"\]\((?!https?:|#)", "](../", text).replace("](#", "](../findings.md#")
        content = "\n\n".join([f"# {title}", moved.strip(), *(_table(script, measured) for script in scripts)])
        files.append(File.generated(config, f"findings/{name}.md", content=content + "\n"))
        items.append((title, f"findings/{name}.html", text.split(". ")[0]))
    files.append(File.generated(config, "findings.xml", content=_feed(items)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Link each section of findings.md to its page."""
    if page.file.src_uri != "findings.md":
        return markdown

    def linked(section: re.Match[str]) -> str:
        scripts = _SCRIPT.findall(section[2])
        more = f"\n\n[In other versions and kernels](findings/{scripts[0]}.md)\n\n" if scripts else "\n\n"
        return section[0].rstrip() + more

    return _SECTION.sub(linked, markdown)


def _table(script: str, measured: dict[str, dict[str, list[float]]]) -> str:
    return "\n".join(
        ["| torch, kernels | true | torch | error / allowed |", "|---|---|---|---|", *_rows(script, measured)]
    ) + (f"\n\nRun it yourself, in a clone: `python benchmarks/findings/{script}.py`")


def _rows(script: str, measured: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    for stack, results in sorted(measured.items(), key=lambda entry: [*map(int, re.findall(r"\d+", entry[0])[:3])]):
        if script not in results:
            yield f"| {stack} | – | not run | – |"
            continue
        true, found, allowed = results[script]
        share = abs(found - true) / allowed
        yield f"| {stack} | {true:.6g} | {found:.6g} | {share:.3g}{'' if share > 1 else ' (right)'} |"


def _feed(items: list[tuple[str, str, str]]) -> str:
    entries = "".join(
        f"<item><title>{escape(title)}</title><link>{link}</link><description>{escape(text)}</description></item>"
        for title, link, text in items
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<rss version="2.0"><channel><title>What lntx found in torch</title>'
        f"<link>findings.html</link><description>Calls whose result is farther from the true value than rounding "
        f"explains.</description>{entries}</channel></rss>\n"
    )
