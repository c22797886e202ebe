"""Transcripts in the documents are what the commands print. Run: pytest tests/cli/test_transcripts.py"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from commandline import Cli

DOCS = Path(__file__).parents[2] / "docs"


def _plain(text: str, folder: Path) -> str:
    """Without what differs from run to run: paths, times, names of runs."""
    text = text.replace(f"{folder}/", "")
    return re.sub(r"\d{8}-\d{6}-\d{6}", "RUN", re.sub(r"ran +\d+\.\d\d s", "ran", text)).strip()


def test_a_messy_file_becomes_a_fit_by_following_the_messages(cli: Cli, tmp_path: Path) -> None:
    page = (DOCS / "tables.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"```csv\n(.*?)```", page, re.S)
    (settings,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    folder = tmp_path / "here"
    folder.mkdir(exist_ok=True)
    (folder / "orders.csv").write_text(table)
    (folder / "orders.toml").write_text(settings)
    codes = []
    for block in re.findall(r"```console\n(.*?)```", page, re.S):
        for use in re.split(r"^\$ lntx ", block, flags=re.M)[1:]:
            words, _, printed = use.partition("\n")
            done = cli(*shlex.split(words))
            codes.append(done.code)
            assert _plain(done.out + done.err, folder) == _plain(printed, folder), words
    assert codes == [2, 2, 0]
    by_file = cli("run", "--config", "orders.toml", "--local", "--json")
    assert {report["state"] for report in by_file.json["stages"].values()} == {"cached"}
