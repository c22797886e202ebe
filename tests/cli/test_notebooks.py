"""The notebooks are their texts with true outputs. Run: pytest -m slow tests/cli/test_notebooks.py"""

from __future__ import annotations

import functools
import math
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("tutorial*.py"))
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")

pytestmark = pytest.mark.slow


@functools.cache
def _script() -> dict[str, Any]:
    return runpy.run_path(str(FOLDER / "execute.py"))


@functools.cache
def _kept(source: Path) -> Any:
    import nbformat

    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def _outputs(cell: Any) -> list[tuple[str, str]]:
    """Return the text of each output, with its kind; prints that arrived in parts are one."""
    found: list[tuple[str, str]] = []
    for output in cell.get("outputs", ()):
        if output.output_type == "stream":
            if found and found[-1][0] == output.name:
                found[-1] = (output.name, found[-1][1] + output.text)
            else:
                found.append((output.name, output.text))
        else:
            found += [(kind, text) for kind, text in sorted(output.data.items()) if kind.startswith("text/")]
    return found


def _normalised(text: str) -> str:
    """Without what differs from run to run: names of runs, the width of columns, and, because another processor adds up
    in another order, the last digit of the trained weights.
    """
    text = re.sub(r"\d{8}-\d{6}-\d{6}", "RUN", text)
    text = re.sub(r"\b15\.\d+(?= digits)|(?<=正确位数 )15\.\d+", "15", text)
    text = re.sub(r"(at most|最多相差) [0-3] ulp", r"\1 few ulp", text)
    return " ".join(text.split())


def _agree(one: str, other: str) -> bool:
    """Compare texts; numbers up to 1e-9, because another processor adds up in another order."""
    one, other = _normalised(one), _normalised(other)
    numbers = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=False)
    return _NUMBER.sub("#", one) == _NUMBER.sub("#", other) and all(
        math.isclose(float(a), float(b), rel_tol=1e-9, abs_tol=1e-12) for a, b in numbers
    )


def test_there_is_one_in_each_language() -> None:
    assert [source.name for source in SOURCES] == ["tutorial.py", "tutorial.zh-CN.py"]
    kinds = [[cell.cell_type for cell in _kept(source).cells] for source in SOURCES]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_its_text(source: Path) -> None:
    read, kept = _script()["read"](source), _kept(source)
    told = "run: make notebooks"
    for cell, text in zip(kept.cells, read.cells, strict=True):
        for key in ("id", "cell_type", "metadata", "source"):
            assert cell[key] == text[key], told
    assert kept.metadata == read.metadata, told


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_what_it_shows(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    executed = _script()["executed"](source)
    # torch makes a folder of its own.
    assert [path for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")] == [], "it leaves files"
    for now, kept in zip(executed.cells, _kept(source).cells, strict=True):
        assert [kind for kind, _ in _outputs(now)] == [kind for kind, _ in _outputs(kept)], now.source
        for (kind, printed), (_, shown) in zip(_outputs(now), _outputs(kept), strict=True):
            assert kind != "stderr", printed
            assert _agree(printed, shown), f"{now.source}\nprints\n{printed}\nand shows\n{shown}\nrun: make notebooks"


@pytest.mark.parametrize(
    ("printed", "agrees"),
    [
        ("learned 3.7, run 20270101-000000-000001", True),
        ("learned 3.7000000000000006, run 20261126-064048-974927", True),
        ("learned 3.6999995, run 20261126-064048-974927", False),
        ("learned 3.7 3.7, run 20261126-064048-974927", False),
        ("taught 3.7, run 20261126-064048-974927", False),
    ],
)
def test_the_comparison_sees_another_ulp_of_float32(printed: str, agrees: bool) -> None:
    assert _agree(printed, "learned  3.7, run 20261126-064048-974927") == agrees
