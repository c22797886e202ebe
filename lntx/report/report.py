"""The page about a run: its verdict, coefficients, figures, stages and pictures.

Reads results; decides nothing.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from pydantic import Field

from lntx.base import text
from lntx.base.errors import BadInput
from lntx.base.files import sha256_of
from lntx.base.stages import Stage
from lntx.config.schema import Section, changed_settings
from lntx.evaluation.verdict import Evaluation
from lntx.report import plots
from lntx.report.page import Page, Picture, Table
from lntx.runs.records import load_runs
from lntx.runs.run import Run
from lntx.runs.tables import HEADER, cells
from lntx.store.store import Store
from lntx.training.result import Epoch, read_history

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_T = TypeVar("_T")

_LAST_RUNS = 30
_BLOCKS = "▁▂▃▄▅▆▇█"
# Largest residual, relative to the spread of the target, that may be rounding alone.
_ROUNDING = 100 * np.finfo(np.float64).eps
_EXACT = "exact to rounding"
_RESIDUAL_FIGURES = ("mean squared error", "residual standard deviation", "F", "p of F")
_WHOSE = {
    **dict.fromkeys(("R²", "adjusted R²", "residual standard deviation", "F", "p of F"), "exact solution"),
    "mean squared error": "learned model",
}
_PICTURE = re.compile(r"^!\[([a-z ]+)\]\((data:image/png;base64,[A-Za-z0-9+/=]+)\)$", re.MULTILINE)


class Report(Section):
    """The contents of a report."""

    run: Run
    """The run that is reported."""

    history: tuple[Epoch, ...] = ()
    """Its training by epoch, as far as it is stored."""

    evaluation: Evaluation | None = None
    """Its evaluation, as far as it is stored."""

    last_runs: tuple[Run, ...] = ()
    """The runs before this one of the same data and settings, the latest first."""

    pictures: dict[str, str] = Field(default_factory=dict)
    """The pictures in the report of an earlier run with the same results, as data URIs, by name."""


def gather_report(store: Store, run: Run, *, reuse: bool = False) -> Report:
    """Return what is stored about a run; missing or altered files are left out.

    reuse: take the pictures from an earlier report of the same results, if there is one: drawing them takes longer than
    the rest of a run whose results are stored.
    """
    earlier_runs = (earlier for earlier in load_runs(store) if earlier.run < run.run and _same_task(earlier, run))
    last_runs = tuple(itertools.islice(earlier_runs, _LAST_RUNS - 1))
    same = (earlier for earlier in last_runs if reuse and _same_results(earlier, run))
    pictures: dict[str, str] = next(filter(None, (_pictures_of(store, earlier) for earlier in same)), {})
    if pictures:
        return Report(run=run, last_runs=last_runs, pictures=pictures)
    history = _stored(store, run, "train", "history-", read_history)
    evaluation = _stored(
        store, run, "evaluate", "evaluation-", lambda path: Evaluation.model_validate_json(path.read_bytes())
    )
    return Report(run=run, history=tuple(history or ()), evaluation=evaluation, last_runs=last_runs)


def _same_task(first: Run, other: Run) -> bool:
    return (first.config.data, first.config.train) == (other.config.data, other.config.train)


def _same_results(first: Run, other: Run) -> bool:
    stages: tuple[Stage, ...] = ("train", "evaluate")
    keys = [[run.stages[stage].key for stage in stages] for run in (first, other)]
    return first.report is not None and None not in keys[0] and keys[0] == keys[1]


def _pictures_of(store: Store, run: Run) -> dict[str, str]:
    """Return the pictures in the report of a run, by name; nothing if the report was changed or is gone."""
    path = store.artifacts / "reports" / f"{run.run}.md"
    if not store.is_own(path, store.journal.known()):
        return {}
    return dict(_PICTURE.findall(path.read_text(encoding="utf-8")))


def report_page(report: Report) -> Page:
    """Return the page about a run."""
    run = report.run
    tables = []
    if run.learned_weights is not None:
        header, rows = coefficients(run)
        tables.append(Table(title="Coefficients", header=header, rows=rows))
    tables.append(Table(title="Figures", header=("figure", "value"), rows=_figures(run)))
    tables.append(Table(title="Stages", header=("stage", "state", "seconds", "files"), rows=_stages(run)))
    settings = [(key, _word(value)) for key, value in changed_settings(run.config).items()]
    if settings:
        tables.append(Table(title="Settings that are not the defaults", header=("setting", "value"), rows=settings))
    stored = [Picture(name=name, drawing=uri) for name, uri in report.pictures.items()]
    return Page(
        headline=f"{_subject(run)}: {_verdict(run)}",
        verdict=run.verdict,
        sentences=_certificate(run),
        notes=[*([run.reason] if run.reason else []), *(f"Warning: {warning}" for warning in run.warnings)],
        tables=tables,
        pictures=[*(stored or _pictures(report)), *_over_time(report)],
        footer=f"Run {run.run}, {run.created_at}.",
    )


def draw(run: Run, name: str | None) -> Figure:
    """Draw a picture of a run's report, the first by default. Raises: BadInput: there is no such picture."""
    pictures = {picture.name: picture for picture in _pictures(gather_report(Store(run.root), run))}
    if not pictures:
        raise BadInput(f"run {run.run} has no pictures: it trained nothing")
    name = name or next(iter(pictures))
    if name not in pictures:
        raise BadInput(f"run {run.run} has no picture {text.quoted(name)}: it has {text.listed(pictures)}")
    drawing = pictures[name].drawing
    assert not isinstance(drawing, str)
    return drawing()


def _stored(store: Store, run: Run, stage: Stage, prefix: str, read: Callable[[Path], _T]) -> _T | None:
    for file in run.stages[stage].files:
        path = store.root / file.path
        if path.name.startswith(prefix):
            try:
                return read(path) if sha256_of(path) == file.sha256 else None
            except (OSError, ValueError):
                return None
    return None


def _certificate(run: Run) -> list[str]:
    """Return what a pass says, in one sentence; nothing for another verdict."""
    sentence = f"The trained weights agree with the exact least-squares solution to {run.digits or 0:.4g} digits."
    return [sentence] if run.verdict == "pass" else []


def _verdict(run: Run) -> str:
    return {"pass": "PASS", "fail": f"FAIL · {run.blame}", None: "not evaluated"}[run.verdict]


def _subject(run: Run) -> str:
    """Return what was learned, as a formula."""
    if run.target is not None and run.config.data.path is not None:
        count = len(run.columns or run.features or ())
        return f"{run.target} ~ {count} column{'' if count == 1 else 's'}"
    return run.config.data.formula


def coefficients(run: Run) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and rows of the table of coefficients: with tests and intervals where there is no truth."""
    assert run.learned_weights is not None
    head, *compared = run.compared
    if run.true_weights is None and run.reference_weights is not None:
        rows = [(row.name, *cells(row)) for row in run.estimates]
        if run.verdict == "pass":
            # To more digits than are shown, the learned weights are the estimates.
            return ("coefficient", *HEADER), rows
        rows = [(row[0], learned, *row[1:]) for row, (_, learned, _) in zip(rows, compared, strict=True)]
        return ("coefficient", "learned", *HEADER), rows
    if run.standard_errors is None:
        return ("coefficient", *head[1:]), [*map(tuple, compared)]
    errors = (*run.standard_errors, run.bias_standard_error)
    rows = [(*row, _number(error)) for row, error in zip(compared, errors, strict=False)]
    return ("coefficient", *head[1:], "standard error"), rows


def _figures(run: Run) -> list[tuple[str, str]]:
    figures = [
        ("R²", run.r_squared),
        ("adjusted R²", run.adjusted_r_squared),
        ("residual standard deviation", run.residual_sd),
        ("degrees of freedom", run.degrees_of_freedom),
        ("F", run.f_statistic),
        ("p of F", run.f_p_value),
        ("mean squared error", run.mse),
        ("rows", run.num_rows),
        ("digits", run.digits),
        ("epochs", run.epochs),
        ("learning rate", run.learning_rate),
        ("stable limit", run.stable_limit),
        ("condition number", run.condition_number),
        ("dtype", run.dtype),
        ("ulps", run.ulps),
        ("coordinates", run.precondition),
        ("gradient", run.gradient),
    ]
    shown = [(name, _number(value)) for name, value in figures if value is not None]
    if _is_exact(run):
        shown = [(name, _EXACT if name in _RESIDUAL_FIGURES else value) for name, value in shown]
    if run.verdict == "fail":
        # The learned model is another one than the exact solution: say whose figures these are.
        shown = [(f"{name} of the {_WHOSE[name]}" if name in _WHOSE else name, value) for name, value in shown]
    return shown


def _is_exact(run: Run) -> bool:
    """Whether the residuals are of the size of rounding errors, so that figures made of them say nothing."""
    freedom = run.degrees_of_freedom
    return run.f_statistic is not None and freedom is not None and bool(run.f_statistic * _ROUNDING**2 > freedom)


def _pictures(report: Report) -> list[Picture]:
    """Return the pictures of the results."""
    run, evaluation = report.run, report.evaluation
    pictures = []
    if len(report.history) > 1:
        pictures.append(Picture(name="loss by epoch", drawing=lambda: plots.loss_curve(report.history)))
        pictures += _path(report)
    if run.learned_weights is not None and run.reference_weights is not None:
        known = "exact" if run.true_weights is None else "true"
        pictures.append(Picture(name=f"learned against {known}", drawing=lambda: _learned(run)))
    intervals = [row for row in run.estimates if row.standard_error and row.low is not None]
    if run.true_weights is None and intervals:
        pictures.append(
            Picture(name="coefficients in standard errors", drawing=lambda: plots.coefficient_intervals(intervals))
        )
    if evaluation is not None and evaluation.residual_histogram is not None:
        histogram, sample, spread = evaluation.residual_histogram, evaluation.residual_sample, run.residual_sd
        pictures.append(Picture(name="residuals", drawing=lambda: plots.residual_bars(histogram)))
        if run.true_weights is None and spread:
            pictures += [
                Picture(name="residual against fitted value", drawing=lambda: plots.residuals_against_fitted(sample)),
                Picture(name="residuals against a normal law", drawing=lambda: plots.normal_quantiles(sample, spread)),
            ]
    return pictures


def _learned(run: Run) -> Figure:
    is_known = run.true_weights is not None
    expected, bias = (run.true_weights, run.true_bias) if is_known else (run.reference_weights, run.reference_bias)
    assert run.learned_weights is not None
    assert expected is not None
    return plots.learned_against(
        _with(run.learned_weights, run.learned_bias),
        _with(expected, None if run.learned_bias is None else bias),
        expected_is="true" if is_known else "exact least squares",
    )


def _path(report: Report) -> list[Picture]:
    """Return the picture of the weights' path over the loss, if the surface is stored and the path is finite."""
    run, evaluation = report.run, report.evaluation
    if evaluation is None or evaluation.factor is None or run.reference_weights is None or len(evaluation.factor) > 20:
        return []
    path = np.array([epoch.coefficients for epoch in report.history])
    if not np.isfinite(path).all():
        return []
    num_rows = evaluation.num_rows
    least = (evaluation.residual_sd or 0.0) ** 2 * evaluation.degrees_of_freedom / num_rows
    solution = np.array(_with(run.reference_weights, run.reference_bias))
    factor = np.array(evaluation.factor) / math.sqrt(num_rows)
    names = [text.for_message(name, text.MAX_NAME).replace("$", r"\$") for name in (*evaluation.features, "bias")]
    return [
        Picture(
            name="weights over the loss", drawing=lambda: plots.path_over_loss(path, solution, factor, least, names)
        )
    ]


def _over_time(report: Report) -> list[Picture]:
    """Return the digits of the last runs: a picture, and a row of blocks that are as high as the digits are many."""
    if report.run.verdict is None or not report.last_runs:
        return []
    runs = _judged(report)
    digits, passed = [run.digits for run in runs], [run.verdict == "pass" for run in runs]
    blocks = "".join(_BLOCKS[int((run.digits or 0) // 2)] if run.verdict == "pass" else "✗" for run in runs)
    lowest = min(run.digits or 0.0 for run in runs)
    seconds = [stage.seconds for run in runs if (stage := run.stages["train"]).state == "ran" and stage.seconds]
    times = f"; training took {min(seconds):.3g} to {max(seconds):.3g} s" if seconds else ""
    return [
        Picture(
            name="digits over the last runs",
            drawing=lambda: plots.digits_trend(digits, passed),
            words=f"`{blocks}` {len(runs)} runs of the same data and settings, the latest last (✗ failed); "
            f"fewest digits {lowest:.4g}{times}",
        )
    ]


def _judged(report: Report) -> list[Run]:
    """Return the last runs that have a verdict, this one last."""
    return [*reversed([run for run in report.last_runs if run.verdict is not None]), report.run]


def _stages(run: Run) -> list[tuple[str, ...]]:
    return [
        (stage, outcome.state, _seconds(outcome.seconds), "\n".join(file.path for file in outcome.files))
        for stage, outcome in run.stages.items()
    ]


def _with(weights: tuple[float, ...], bias: float | None) -> tuple[float, ...]:
    return weights if bias is None else (*weights, bias)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _word(value: object) -> str:
    """Return a setting as a person writes it."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_word, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
