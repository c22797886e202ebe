"""Draw docs/images/answer.svg: what the default run and the tutorial print, side by side. Run: python docs/answer.py"""

from __future__ import annotations

import html
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

PICTURE = Path(__file__).parent / "images" / "answer.svg"
_RUNS = (("lntx run", ()), ("lntx run --preset tutorial", ("--preset", "tutorial")))
_COLUMNS, _LINE, _LETTER, _GAP = 58, 17, 7.25, 14


def main() -> None:
    """Run both, and write the picture."""
    panes = [[f"$ {title}", *_lines(words)] for title, words in _RUNS]
    PICTURE.write_text(picture(panes), encoding="utf-8")


def _lines(words: tuple[str, ...]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "run", "--local", *words, "--root", folder],
            capture_output=True,
            text=True,
            check=False,
        )
    table, verdict = done.stdout.strip().split("\n\n")[-2:]
    # The name of the run, and the advice, would fill the picture.
    sentence = verdict.split(", run ")[0].split("; let the data")[0]
    return [*table.splitlines(), "", *textwrap.wrap(sentence, _COLUMNS)]


def picture(panes: list[list[str]]) -> str:
    """Return the panes as an SVG file without a font of its own."""
    width, height = _COLUMNS * _LETTER + 2 * _GAP, max(map(len, panes)) * _LINE + 2 * _GAP
    parts = []
    for number, lines in enumerate(panes):
        left = number * (width + _GAP)
        parts.append(f'<rect x="{left:g}" width="{width:g}" height="{height:g}" rx="8" fill="#14171a"/>')
        for row, line in enumerate(lines):
            is_right, is_wrong = line.startswith("PASS"), any(text.startswith("FAIL") for text in lines[: row + 1])
            colour = "#5fd39a" if is_right else "#ff8a80" if is_wrong else "#e6e8ea"
            parts.append(
                f'<text x="{left + _GAP:g}" y="{_GAP + (row + 0.8) * _LINE:g}" fill="{colour}" xml:space="preserve">'
                f"{html.escape(line)}</text>"
            )
    size = f"{2 * width + _GAP:g} {height:g}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img" '
        'aria-label="lntx run finds 3.7; the tutorial\'s settings do not, and lntx says why" '
        'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12">\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    main()
