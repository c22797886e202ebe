"""The pictures of a report: loss by epoch, the weights' path over the loss, learned against true, residuals, digits
over the last runs.

Draws figures from numbers; reads no run and no file.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from lntx.base.text import MAX_NAME, for_message
from lntx.evaluation.inference import Estimate
from lntx.training.result import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Placeholder for the text colour of the page that shows the picture.
_INK = "#010203"
_LEARNED, _WRONG = "#2a78c8", "#d1422f"
# Told apart by colour-blind readers too (Okabe and Ito).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")

_EDGES = 5

# A loss below this part of the largest one is drawn as 0.
_LEAST_LOSS = 1e-60
# Points along each axis of a loss surface, and its contours.
_GRID, _CONTOURS = 101, 9

_MOST_ROWS = 40


def loss_curve(history: Sequence[Epoch]) -> Figure:
    """Plot the mean squared error by epoch, on a logarithmic scale."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _empty_axes("epoch", "mean squared error")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    points = [(k, epoch.loss) for k, epoch in enumerate(history) if epoch.loss is not None]
    axes.plot([k for k, _ in points], [loss for _, loss in points], marker="o", markersize=3, color=_LEARNED)
    if all(loss > 0 for _, loss in points):
        axes.set_yscale("log")
    else:
        # A scale of several hundred decades overflows.
        least = _LEAST_LOSS * max((loss for _, loss in points), default=0.0)
        axes.set_yscale("symlog", linthresh=min((loss for _, loss in points if loss > least), default=1.0))
    return figure


def path_over_loss(
    path: np.ndarray, solution: np.ndarray, factor: np.ndarray, minimum: float, names: Sequence[str]
) -> Figure:
    """Plot the weights of each epoch over the loss: contours for two coefficients, a curve for one.

    Of more than two, the two that changed the loss most are drawn, with the others at the solution.

    path: coefficients by epoch, shape (epochs + 1, p). solution: the least-squares coefficients, shape (p,).
    factor: R with L(w) = minimum + ‖R (w - solution)‖², shape (p, p). minimum: the loss at the solution.
    """
    offsets = path - solution
    lengths = np.linalg.norm(factor, axis=0)
    chosen = np.sort(np.argsort(np.abs(offsets).max(axis=0) * lengths)[::-1][:2])
    offsets, factor = offsets[:, chosen], factor[:, chosen]
    if len(chosen) == 1:
        return _path_over_curve(offsets[:, 0], float(solution[0]), float(lengths[0]), minimum, names[0])
    figure, axes = _empty_axes(names[chosen[0]], names[chosen[1]])
    reach = 1.15 * np.maximum(np.abs(offsets).max(axis=0), 1e-9 * np.maximum(np.abs(solution[chosen]), 1e-300))
    # In units of the reach, and of the largest height: squares of large weights could overflow.
    steps = np.linspace(-1, 1, _GRID)
    grid = np.stack([axis.ravel() for axis in np.meshgrid(steps, steps)])
    height = np.linalg.norm((factor / np.abs(factor).max()) @ (reach[:, None] / reach.max() * grid), axis=0)
    highest = float(height.max())
    height = height.reshape(_GRID, _GRID) / highest
    x, y = solution[chosen]
    # Evenly spaced in the root of the loss, which is quadratic.
    contours = axes.contour(
        x + reach[0] * steps,
        y + reach[1] * steps,
        height,
        levels=np.linspace(0.05, 1, _CONTOURS),
        colors=_INK,
        linewidths=0.6,
        alpha=0.4,
    )

    def loss(level: float) -> str:
        return f"{minimum + (level * highest * float(np.abs(factor).max()) * float(reach.max())) ** 2:.3g}"

    axes.clabel(contours, list(contours.levels)[::2], fmt=loss, fontsize=6)
    axes.plot(x + offsets[:, 0], y + offsets[:, 1], "o-", markersize=3, linewidth=1, color=_LEARNED, label="epochs")
    axes.plot(x, y, "x", markersize=7, color=_WRONG, label="least squares")
    axes.legend(fontsize=8, framealpha=0, labelcolor=_INK)
    return figure


def _path_over_curve(offsets: np.ndarray, solution: float, length: float, minimum: float, name: str) -> Figure:
    figure, axes = _empty_axes(name, "mean squared error")
    reach = 1.15 * max(float(np.abs(offsets).max()), 1e-9 * abs(solution), 1e-300)
    across = np.linspace(-reach, reach, _GRID)
    axes.plot(solution + across, minimum + (length * across) ** 2, color=_INK, linewidth=0.8, alpha=0.5)
    axes.plot(solution + offsets, minimum + (length * offsets) ** 2, "o-", markersize=3, linewidth=1, color=_LEARNED)
    return figure


def learned_against(learned: Sequence[float], expected: Sequence[float], *, expected_is: str) -> Figure:
    """Plot each learned coefficient against its expected value; correct ones are on the line."""
    figure, axes = _empty_axes(expected_is, "learned")
    low, high = min(*learned, *expected), max(*learned, *expected)
    # Relative to the size of the coefficients: a difference in the last digits must not be visible.
    margin = 0.05 * max(high - low, abs(high), abs(low)) or 1.0
    line = [low - margin, high + margin]
    axes.plot(line, line, color=_INK, linewidth=0.8, alpha=0.5)
    axes.plot(expected, learned, "o", markersize=5, color=_LEARNED)
    return figure


def coefficient_intervals(rows: Sequence[Estimate]) -> Figure:
    """Plot each coefficient and its 95 % interval, divided by its standard error, so that those of all units fit on one
    axis; one whose interval contains 0 is pale. The forty that are farthest from 0 are drawn, the farthest on top.

    rows: with a standard error each.
    """
    scaled = [
        (row.estimate / row.standard_error, row.low / row.standard_error, row.high / row.standard_error, row.name)
        for row in rows
        if row.standard_error and row.low is not None and row.high is not None
    ]
    ordered = sorted(scaled, key=lambda values: abs(values[0]))[-_MOST_ROWS:]
    figure, axes = _empty_axes(
        "estimate and 95 % interval, in standard errors", "", height=0.8 + 0.22 * len(ordered), left=0.3
    )
    axes.axvline(0, color=_INK, linewidth=0.8, alpha=0.5)
    for place, (estimate, low, high, _) in enumerate(ordered):
        alpha = 0.4 if low <= 0 <= high else 1.0
        axes.plot([low, high], [place, place], linewidth=2, color=_LEARNED, alpha=alpha)
        axes.plot(estimate, place, "o", markersize=4, color=_LEARNED, alpha=alpha)
    # Names are text: a dollar sign would begin a formula.
    names = [for_message(name, MAX_NAME).replace("$", r"\$") for *_, name in ordered]
    axes.set_yticks(range(len(ordered)), names, fontsize=8)
    return figure


def residual_bars(histogram: Sequence[int]) -> Figure:
    """Plot residuals in standard deviations; the bars at the ends count those beyond five."""
    figure, axes = _empty_axes("residual, in standard deviations", "rows")
    width = 2 * _EDGES / (len(histogram) - 2)
    places = [-_EDGES + width * (k - 0.5) for k in range(len(histogram))]
    axes.bar(places, histogram, width=0.9 * width, color=_LEARNED)
    return figure


def residuals_against_fitted(sample: Sequence[tuple[float, float]]) -> Figure:
    """Plot residuals against fitted values: a pattern means that the model lacks something."""
    figure, axes = _empty_axes("fitted value", "residual")
    axes.axhline(0, color=_INK, linewidth=0.8, alpha=0.5)
    axes.plot([x for x, _ in sample], [y for _, y in sample], "o", markersize=3, alpha=0.6, color=_LEARNED)
    return figure


def normal_quantiles(sample: Sequence[tuple[float, float]], spread: float) -> Figure:
    """Plot the sorted residuals against quantiles of a normal law (Q-Q plot): normal residuals are on the line."""
    law = NormalDist()
    ordered = sorted(residual / spread for _, residual in sample)
    expected = [law.inv_cdf((k + 0.5) / len(ordered)) for k in range(len(ordered))]
    figure, axes = _empty_axes("normal quantile", "residual, in standard deviations")
    axes.plot(expected, expected, color=_INK, linewidth=0.8, alpha=0.5)
    axes.plot(expected, ordered, "o", markersize=3, color=_LEARNED)
    return figure


def digits_trend(digits: Sequence[float | None], passed: Sequence[bool]) -> Figure:
    """Plot the correct digits of the worst coefficient over the last runs, the latest last; wrong runs in red."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = _empty_axes("run, the latest last", "correct digits")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    places = range(1 - len(digits), 1)
    for right, colour in ((True, _LEARNED), (False, _WRONG)):
        chosen = [(k, value) for k, value, ok in zip(places, digits, passed, strict=True) if ok == right]
        axes.plot(
            [k for k, _ in chosen],
            [0 if value is None else value for _, value in chosen],
            "o",
            markersize=4,
            color=colour,
        )
    axes.set_ylim(-0.5, 16.5)
    return figure


def bound_shares(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Plot the largest share of the rounding bound of each operator, for each format; 1 is the limit.

    shares: by operator, then by format. The forty operators with the largest shares are drawn, the largest on top.
    """
    ordered = sorted(shares, key=lambda operator: max(shares[operator].values()))[-_MOST_ROWS:]
    figure, axes = _empty_axes("largest share of the rounding bound", "", height=0.8 + 0.17 * len(ordered), left=0.36)
    formats = sorted({name for by_format in shares.values() for name in by_format}, reverse=True)
    for name, colour in zip(formats, _COLOURS, strict=False):
        points = [
            (by[name], place) for place, operator_name in enumerate(ordered) if (by := shares[operator_name]).get(name)
        ]
        axes.plot([x for x, _ in points], [y for _, y in points], "o", markersize=4, color=colour, label=name)
    axes.set_xscale("log")
    axes.axvline(1, color=_WRONG, linewidth=1)
    axes.set_yticks(range(len(ordered)), ordered, fontsize=7)
    axes.legend(fontsize=8, framealpha=0, labelcolor=_INK, loc="lower left")
    return figure


def as_png(figure: Figure) -> str:
    """Return the picture as a data URI, on white, for pages whose background is not known."""
    # The placeholder colour is almost black, so it can stay.
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def as_svg(figure: Figure, label: str) -> str:
    """Return the picture as an SVG element in the colour of the surrounding text. label: what it shows."""
    import matplotlib as mpl

    buffer = io.StringIO()
    # Text stays text, small and searchable; the same figures give the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lntx", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    content = buffer.getvalue()
    element = content[content.index("<svg") :].replace(_INK, "currentColor")
    # Ids are global in a document: two pictures must not share any.
    element = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{label.replace(' ', '-')}-", element)
    return element.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _empty_axes(x: str, y: str, *, height: float = 3, left: float = 0.13) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, height))
    # Fixed margins, wide enough for any tick label: computing them takes longer than drawing.
    margin = 0.51 / height
    axes = figure.subplots(gridspec_kw={"left": left, "right": 0.98, "bottom": margin, "top": 1 - margin / 4})
    axes.set_xlabel(x, color=_INK)
    axes.set_ylabel(y, color=_INK)
    axes.ticklabel_format(useOffset=False)
    axes.tick_params(colors=_INK, which="both")
    for spine in axes.spines.values():
        spine.set_edgecolor(_INK)
    axes.grid(alpha=0.25)
    return figure, axes
