"""One page about a run, in Markdown for Prefect's UI and in HTML for other uses: the same figures and pictures.

Reads results; decides nothing.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from pydantic import Field

from lntx import __version__, text
from lntx.config.schema import Section, changed_settings
from lntx.evaluation.verdict import Evaluation
from lntx.files import sha256_of
from lntx.report import plots
from lntx.runs.records import load_runs
from lntx.runs.run import Run
from lntx.runs.tables import HEADER, cells
from lntx.stages import Stage
from lntx.store.store import Store
from lntx.training.result import Epoch, read_history

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_T = TypeVar("_T")

_MAX_ROWS = 50
_LAST_RUNS = 30
_BLOCKS = "▁▂▃▄▅▆▇█"
_PICTURE = re.compile(r"^!\[([a-z ]+)\]\((data:image/png;base64,[A-Za-z0-9+/=]+)\)$", re.MULTILINE)


class Page(Section):
    """The contents of a report."""

    run: Run
    """The run that is reported."""

    history: tuple[Epoch, ...] = ()
    """Its training by epoch, as far as it is stored."""

    evaluation: Evaluation | None = None
    """Its evaluation, as far as it is stored."""

    last_runs: tuple[Run, ...] = ()
    """The runs before this one, the latest first."""

    drawn: dict[str, str] = Field(default_factory=dict)
    """The pictures in the report of an earlier run with the same results, as data URIs, by name."""


def gather_page(store: Store, run: Run, *, reuse: bool = False) -> Page:
    """Return what is stored about a run; missing or altered files are left out.

    reuse: take the pictures from an earlier report of the same results, if there is one: drawing them takes longer than
    the rest of a run whose results are stored.
    """
    last_runs = tuple(itertools.islice((one for one in load_runs(store) if one.run < run.run), _LAST_RUNS - 1))
    same = (one for one in last_runs if reuse and _same_results(one, run))
    drawn: dict[str, str] = next(filter(None, (_pictures_of(store, one) for one in same)), {})
    if drawn:
        return Page(run=run, last_runs=last_runs, drawn=drawn)
    history = _stored(store, run, "train", "history-", read_history)
    evaluation = _stored(
        store, run, "evaluate", "evaluation-", lambda path: Evaluation.model_validate_json(path.read_bytes())
    )
    return Page(
        run=run,
        history=tuple(history or ()),
        evaluation=evaluation,
        last_runs=last_runs,
    )


def _same_results(one: Run, other: Run) -> bool:
    stages: tuple[Stage, ...] = ("train", "evaluate")
    keys = [[run.stages[stage].key for stage in stages] for run in (one, other)]
    return one.report is not None and None not in keys[0] and keys[0] == keys[1]


def _pictures_of(store: Store, run: Run) -> dict[str, str]:
    """Return the pictures in the report of a run, by name; nothing if the report was changed or is gone."""
    path = store.artifacts / "reports" / f"{run.run}.md"
    if not store.is_own(path, store.journal.known()):
        return {}
    return dict(_PICTURE.findall(path.read_text(encoding="utf-8")))


def markdown(page: Page) -> str:
    """Return the page as Markdown with embedded pictures."""
    run = page.run
    parts = [f"# {_verdict(run)}"]
    parts += _certificate(run)
    if run.reason:
        parts.append(f"> {text.markdown(run.reason)}")
    parts += [f"> Warning: {text.markdown(warning)}" for warning in run.warnings]
    if run.learned_weights is not None:
        header, rows = _coefficients(run)
        parts.append(_table(header, [(text.markdown(name), *cells) for name, *cells in rows[:_MAX_ROWS]]))
        if len(rows) > _MAX_ROWS:
            parts.append(f"… and {len(rows) - _MAX_ROWS} more.")
    parts.append(_table(("figure", "value"), _figures(run)))
    parts.append("## Stages")
    parts.append(
        _table(
            ("stage", "state", "seconds", "files"),
            [(*cells, "<br>".join(f"`{file}`" for file in files)) for *cells, files in _stages(run)],
        )
    )
    for name, uri in (page.drawn or {name: plots.as_png(figure) for name, figure in _pictures(page)}).items():
        parts += [f"## {name.capitalize()}", f"![{name}]({uri})"]
    if run.verdict is not None and page.last_runs:
        parts += ["## Digits over the last runs", _trend(page)]
    parts.append(f"Run `{run.run}`, {run.created_at}.")
    return "\n\n".join(parts) + "\n"


def html(page: Page) -> str:
    """Return the page as one self-contained HTML file: no script, no request, light and dark mode."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    run = page.run
    header, rows = _coefficients(run) if run.learned_weights is not None else ((), ())
    template = Environment(
        loader=PackageLoader("lntx.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: text.escape(value) if type(value) is str else value,
    ).get_template("report.html.jinja")
    return template.render(
        run=run,
        verdict=_verdict(run),
        certificate=_certificate(run),
        header=header,
        rows=rows,
        figures=_figures(run),
        # Safe: drawn here, and all of its text is escaped by matplotlib.
        pictures=[(name, Markup(plots.as_svg(figure, name))) for name, figure in [*_pictures(page), *_over_time(page)]],
        stages=_stages(run),
        settings=[(key, str(value)) for key, value in changed_settings(run.config).items()],
        version=__version__,
    )


def _stored(store: Store, run: Run, stage: Stage, prefix: str, read: Callable[[Path], _T]) -> _T | None:
    for file in run.stages[stage].files if run.has_digest else ():
        path = store.root / file.path
        if path.name.startswith(prefix):
            try:
                return read(path) if sha256_of(path) == file.sha256 else None
            except (OSError, ValueError):
                return None
    return None


def _certificate(run: Run) -> list[str]:
    """Return what a pass says, in one sentence; nothing for another verdict."""
    said = f"The trained weights agree with the exact least-squares solution to {run.digits or 0:.4g} digits."
    return [said] if run.verdict == "pass" else []


def _verdict(run: Run) -> str:
    return {"pass": "PASS", "fail": f"FAIL · {run.blame}", None: "not evaluated"}[run.verdict]


def _coefficients(run: Run) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and rows of the table of coefficients: with tests and intervals where there is no truth."""
    assert run.learned_weights is not None
    head, *compared = run.compared
    if run.true_weights is None and run.reference_weights is not None:
        rows = [(row.name, learned, *cells(row)) for row, (_, learned, _) in zip(run.estimates, compared, strict=True)]
        return ("coefficient", "learned", *HEADER), rows
    if run.standard_errors is None:
        return ("coefficient", *head[1:]), [*map(tuple, compared)]
    errors = (*run.standard_errors, run.bias_standard_error)
    rows = [(*row, _number(error)) for row, error in zip(compared, errors, strict=False)]
    return ("coefficient", *head[1:], "standard error"), rows


def _figures(run: Run) -> list[tuple[str, str]]:
    figures = [
        ("digits", run.digits),
        ("ulps", run.ulps),
        ("epochs", run.epochs),
        ("learning rate", run.learning_rate),
        ("stable limit", run.stable_limit),
        ("coordinates", run.precondition),
        ("gradient", run.gradient),
        ("condition number", run.condition_number),
        ("mean squared error", run.mse),
        ("residual standard deviation", run.residual_sd),
        ("degrees of freedom", run.degrees_of_freedom),
        ("R²", run.r_squared),
        ("adjusted R²", run.adjusted_r_squared),
        ("F", run.f_statistic),
        ("p of F", run.f_p_value),
        ("rows", run.num_rows),
        ("dtype", run.dtype),
    ]
    return [(name, _number(value)) for name, value in figures if value is not None]


def _pictures(page: Page) -> list[tuple[str, Figure]]:
    """Return the pictures of the page, by name."""
    run = page.run
    drawn = []
    if len(page.history) > 1:
        drawn.append(("loss by epoch", plots.loss_curve(page.history)))
        drawn += _path(page)
    if run.learned_weights is not None and run.reference_weights is not None:
        known = run.true_weights is not None
        expected, bias = (run.true_weights, run.true_bias) if known else (run.reference_weights, run.reference_bias)
        assert expected is not None
        drawn.append(
            (
                "learned against true" if known else "learned against exact",
                plots.learned_against(
                    _with(run.learned_weights, run.learned_bias),
                    _with(expected, None if run.learned_bias is None else bias),
                    expected_is="true" if known else "exact least squares",
                ),
            )
        )
    if page.evaluation is not None and page.evaluation.residual_histogram is not None:
        drawn.append(("residuals", plots.residual_bars(page.evaluation.residual_histogram)))
        if run.true_weights is None and run.residual_sd:
            sample = page.evaluation.residual_sample
            drawn.append(("residual against fitted value", plots.residuals_against_fitted(sample)))
            drawn.append(("residuals against a normal law", plots.normal_quantiles(sample, run.residual_sd)))
    return drawn


def _path(page: Page) -> list[tuple[str, Figure]]:
    """Return the picture of the weights' path over the loss, if the surface is stored and the path is finite."""
    run, evaluation = page.run, page.evaluation
    if evaluation is None or evaluation.factor is None or run.reference_weights is None:
        return []
    path = np.array([epoch.coefficients for epoch in page.history])
    if not np.isfinite(path).all():
        return []
    num_rows = evaluation.num_rows
    spread = evaluation.residual_sd or 0.0
    figure = plots.path_over_loss(
        path,
        np.array(_with(run.reference_weights, run.reference_bias)),
        np.array(evaluation.factor) / math.sqrt(num_rows),
        spread**2 * evaluation.degrees_of_freedom / num_rows,
        [text.shown(name, text.MAX_NAME).replace("$", r"\$") for name in (*evaluation.features, "bias")],
    )
    return [("weights over the loss", figure)]


def _over_time(page: Page) -> list[tuple[str, Figure]]:
    if page.run.verdict is None or not page.last_runs:
        return []
    runs = _judged(page)
    figure = plots.digits_trend([run.digits for run in runs], [run.verdict == "pass" for run in runs])
    return [("digits over the last runs", figure)]


def _trend(page: Page) -> str:
    """Return the digits of the last runs as a row of blocks, as high as the digits are many."""
    runs = _judged(page)
    blocks = "".join("✗" if run.verdict == "fail" else _BLOCKS[int((run.digits or 0) // 2)] for run in runs)
    lowest = min(run.digits or 0.0 for run in runs)
    return f"`{blocks}` {len(runs)} runs, the latest last (✗ failed); fewest digits {lowest:.4g}"


def _judged(page: Page) -> list[Run]:
    """Return the last runs that have a verdict, this one last."""
    return [*reversed([run for run in page.last_runs if run.verdict is not None]), page.run]


def _stages(run: Run) -> list[tuple[str, str, str, list[str]]]:
    return [
        (stage, done.state, _number(done.seconds), [file.path for file in done.files])
        for stage, done in run.stages.items()
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _with(weights: tuple[float, ...], bias: float | None) -> tuple[float, ...]:
    return weights if bias is None else (*weights, bias)


def _number(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
