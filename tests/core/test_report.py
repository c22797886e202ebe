"""The report of a run, in Markdown and in HTML. Run: pytest tests/core/test_report.py"""

from __future__ import annotations

import base64
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lntx
from lntx.base.errors import BadInput
from lntx.pipeline.conclude import write_report_file
from lntx.report import page as pages
from lntx.report.report import Report, gather_report, report_page
from lntx.runs.records import read_run, write_run
from lntx.store.store import Store

SETTINGS = {"weights": (3.7, -1.2), "bias": 2.0, "noise": 0.5}


class _Outline(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    lntx.run(preset="tutorial", root=folder)
    for _ in range(2):
        lntx.run(data=SETTINGS, root=folder)
    return folder


def _page(root: Path, name: str | None = None) -> Report:
    store = Store(root)
    return gather_report(store, read_run(store, name))


def html(report: Report) -> str:
    return pages.to_html(report_page(report))


def markdown(report: Report) -> str:
    return pages.to_markdown(report_page(report))


DRAWN = ["loss by epoch", "weights over the loss", "learned against true", "residuals"]


def test_the_html_needs_nothing_else(root: Path) -> None:
    """One file without script, request or link, for light and dark and for a phone."""
    text = html(_page(root))
    outline = _Outline(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(outline.tags)
    assert not [name for name, _ in outline.attributes if name in ("src", "onclick", "onload", "srcset")]
    links = [value or "" for name, value in outline.attributes if name in ("href", "xlink:href")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "prefers-color-scheme: dark" in text
    assert ("name", "viewport") in outline.attributes
    assert outline.tags.count("svg") == 5
    labels = [value for name, value in outline.attributes if name == "aria-label"]
    assert labels == [*DRAWN, "digits over the last runs"]
    assert text.index("<h2>Figures") < text.index("<h2>Pictures")
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(ids) == len(set(ids)), "pictures share no id"
    referred = {link[1:] for link in links} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert referred <= set(ids)
    assert "#010203" not in text, "the pictures take the page's colour"


def test_html_and_markdown_tell_the_same_figures(root: Path) -> None:
    page = _page(root)
    text, outline = markdown(page), _Outline(html(page))
    run = page.run
    assert run.learned_weights is not None
    for figure in (*map(repr, run.learned_weights), f"{run.residual_sd:.6g}", run.run, "PASS", "data.noise"):
        assert figure in outline.text
        assert figure in text or figure == "data.noise"
    pictures = re.findall(r"!\[([^\]]+)\]\(data:image/png;base64,([^)]+)\)", text)
    assert [name for name, _ in pictures] == DRAWN
    assert "## Digits over the last runs\n\n`██` 2 runs of the same data and settings, the latest last" in text
    assert all(base64.b64decode(content).startswith(b"\x89PNG") for _, content in pictures)


def test_a_wrong_answer_says_why_first(root: Path) -> None:
    names = sorted(path.stem for path in (root / "artifacts" / "runs").glob("*.json"))
    page = _page(root, names[0])
    text = html(page)
    assert re.search(r'<h1 class="fail">y = .*·x, [\d,]+ rows: FAIL · training</h1>', text)
    assert "too few steps" in text
    assert page.last_runs == ()


def test_the_trend_is_that_of_runs_of_the_same_data_and_settings(tmp_path: Path) -> None:
    for data in ({}, SETTINGS, {}, {"seed": 1}, {}):
        lntx.run(root=tmp_path, data=data)
    text = markdown(_page(tmp_path))
    assert "`███` 3 runs of the same data and settings, the latest last (✗ failed); fewest digits 15.95; train" in text


def test_figures_made_of_rounding_errors_are_not_told_as_figures(tmp_path: Path) -> None:
    """F of 3.5e35 and a mean squared error of 1.6e-30 say nothing about the model."""
    exact = markdown(report := gather_report(Store(tmp_path), lntx.run(root=tmp_path)))
    assert report.run.f_statistic is not None
    for name in ("mean squared error", "residual standard deviation", "F"):
        assert f"| {name} | exact to rounding |" in exact
    noisy = markdown(gather_report(Store(tmp_path), lntx.run(root=tmp_path, data={"noise": 1e-9})))
    assert "exact to rounding" not in noisy


def test_pictures_of_the_same_results_are_drawn_once(tmp_path: Path) -> None:
    lntx.run(root=tmp_path)
    store = Store(tmp_path)
    first = read_run(store)
    with store.shared():
        write_report_file(store, first, "md", markdown(gather_report(store, first)))
    write_run(store, first.model_copy(update={"report": f"artifacts/reports/{first.run}.md"}))
    again = lntx.run(root=tmp_path)
    page = gather_report(store, again, reuse=True)
    assert (page.history, [*page.pictures]) == ((), DRAWN)
    assert re.findall(r"!\[.*", markdown(page)) == re.findall(r"!\[.*", markdown(gather_report(store, again)))
    other = lntx.run(root=tmp_path, train={"seed": 5})
    assert gather_report(store, other, reuse=True).pictures == {}
    report = tmp_path / "artifacts" / "reports" / f"{first.run}.md"
    report.write_text(report.read_text() + "changed")
    assert gather_report(store, again, reuse=True).pictures == {}


def test_what_is_gone_is_left_out(root: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(root, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "artifacts" / "train")
    labels = re.findall(r'aria-label="([^"]+)"', html(_page(tmp_path / "copy")))
    assert labels == ["learned against true", "residuals", "digits over the last runs"]


def test_names_of_a_file_are_text_and_no_markup(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("<script>alert(1)</script>,y\n" + "".join(f"{k},{2 * k + k % 3}\n" for k in range(20)))
    lntx.fit(file, target="y", root=tmp_path / "root")
    text = html(_page(tmp_path / "root"))
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_the_report_of_a_table_has_its_formula_its_tests_and_their_picture(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    area, floor = rng.uniform(20, 100, 60), rng.integers(0, 9, 60)
    frame = pd.DataFrame({"area": area, "floor": floor, "rent": 9 * area + rng.normal(0, 20, 60)})
    lntx.fit(frame, target="rent", root=tmp_path)
    outline = _Outline(text := html(_page(tmp_path)))
    assert '<h1 class="pass">rent ~ 2 columns: PASS</h1>' in text
    assert ("aria-label", "coefficients in standard errors") in outline.attributes
    # The learned weights are those of the table, in all digits that it shows.
    assert "< 2e-16" in outline.text
    assert "learned" not in outline.text.split("Figures")[0].split("Coefficients")[1]


def test_every_feature_is_in_the_html_and_no_column_is_empty(tmp_path: Path) -> None:
    lntx.run(data={"num_features": 60}, root=tmp_path)
    text = html(_page(tmp_path))
    assert "<td>x60</td>" in text
    assert '<th scope="col" class="number">true</th>' in text
    lntx.run(data={"num_features": 60}, until="train", train={"seed": 1}, root=tmp_path)
    assert '<th scope="col">exact</th>' not in html(_page(tmp_path))


@pytest.mark.parametrize("weights", [[3.7], [3.7, -1.2], [1.0, 2.0, 3.0]])
def test_the_path_lies_on_the_loss_that_was_trained(tmp_path: Path, weights: list[float]) -> None:
    """The surface comes from the exact sums, the losses of the path from training."""
    run = lntx.run(data={"weights": weights, "noise": 0.5, "bias": 1.0}, root=tmp_path)
    page = _page(tmp_path)
    assert page.evaluation is not None
    assert page.evaluation.factor is not None
    assert run.reference_weights is not None
    assert run.residual_sd is not None
    solution = np.array([*run.reference_weights, run.reference_bias])
    least = run.residual_sd**2 * page.evaluation.degrees_of_freedom / page.evaluation.num_rows
    for before, after in itertools.pairwise(page.history):
        # The loss of an epoch is that of the weights before its step.
        above = np.array(page.evaluation.factor) @ (np.array(before.coefficients) - solution)
        assert least + above @ above / page.evaluation.num_rows == pytest.approx(after.loss, rel=1e-9)


def test_residuals_are_counted_once_each(root: Path) -> None:
    page = _page(root)
    assert page.evaluation is not None
    histogram = page.evaluation.residual_histogram
    assert histogram is not None
    assert sum(histogram) == page.run.num_rows
    assert max(histogram) == max(histogram[15:27]), "most lie about zero"


@pytest.mark.parametrize("size", ["1e-90", "1e90"])
def test_pictures_of_very_small_and_very_large_rows_are_drawn(tmp_path: Path, size: str) -> None:
    rows = {"distribution": "uniform", "low": float(size), "high": 9 * float(size), "weights": [3.0, -2.0]}
    lntx.run(data=rows, train={"bias": False}, root=tmp_path)
    assert "weights over the loss" in html(_page(tmp_path))


def test_a_loss_that_ends_at_zero_is_drawn(tmp_path: Path) -> None:
    """A weight goes to 0, and the loss through hundreds of decades."""
    rows = np.array([(54, 2), (71, 3), (90, 3), (112, 4), (130, 5), (65, 2)])
    lntx.fit(pd.DataFrame({"a": rows[:, 0], "b": rows[:, 1], "y": 2 * rows[:, 0] + 7}), target="y", root=tmp_path)
    assert "mean squared error" in html(_page(tmp_path))


def test_a_notebook_shows_what_was_learned_and_the_export_is_found(tmp_path: Path) -> None:
    wrong = lntx.run(preset="tutorial", root=tmp_path)
    assert wrong.learned_weights is not None
    assert f"<td>{wrong.learned_weights[0]!r}</td>" in wrong._repr_html_()
    with pytest.raises(BadInput, match="has no export 'safetensors'"):
        wrong.export_path()
    right = lntx.run(root=tmp_path)
    assert tuple(lntx.load_model(right.export_path()).weights) == (3.7,)
