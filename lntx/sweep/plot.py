"""Plot of a sweep: correct digits and epochs over one key, with the stable limit marked."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lntx.base.text import MAX_NAME, for_message

if TYPE_CHECKING:
    from lntx.sweep.trials import Row

_MAX_LINES = 8


def draw(rows: Sequence[Row], keys: Sequence[str], path: Path) -> None:
    """Draw a sweep over the learning rate if it varies, else over the first numeric key.

    Points are medians over the other keys, bars extend from minimum to maximum. A second key with few values gets a
    line per value. Trials without an answer are crosses at 0 digits.
    """
    from matplotlib.figure import Figure

    across = _first_numeric(rows, keys)
    other = _lines(rows, [key for key in keys if key != across])
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for value in _distinct(rows, other) if other else [None]:
        chosen = [row for row in rows if other is None or row.settings[other] == value]
        label = None if other is None else for_message(f"{other} = {value}", MAX_NAME).replace("$", r"\$")
        for axes, what in ((above, "digits"), (below, "epochs")):
            _line(axes, chosen, across, what, label)
    failed = [_place(row, across) for row in rows if row.verdict is None]
    if failed:
        above.plot(failed, [0.0] * len(failed), "x", color="tab:red", label="no answer")
    if across == "train.learning_rate":
        limits = sorted({row.stable_limit for row in rows if row.stable_limit is not None})
        for limit in {limits[0], limits[-1]} if limits else ():
            for axes in (above, below):
                axes.axvline(limit, color="tab:red", linestyle="--", linewidth=1)
            above.annotate("stable limit", (limit, 15), color="tab:red", ha="right", rotation=90, va="top", fontsize=8)
    places = [_place(row, across) for row in rows]
    if places and min(places) > 0 and max(places) / min(places) > 20:
        above.set_xscale("log")
    above.set_ylabel("correct digits")
    above.set_ylim(-0.5, 16.5)
    below.set_ylabel("epochs")
    if any(row.epochs for row in rows):
        below.set_yscale("log")
    below.set_xlabel(across or "trial")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    if above.get_legend_handles_labels()[1]:
        above.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _line(axes: Any, rows: Sequence[Row], across: str | None, what: str, label: str | None) -> None:
    by_place: dict[float, list[float]] = {}
    for row in rows:
        value = getattr(row, what)
        if value is not None:
            by_place.setdefault(_place(row, across), []).append(value)
    places = sorted(by_place)
    middles = [statistics.median(by_place[place]) for place in places]
    lows = [middle - min(by_place[place]) for place, middle in zip(places, middles, strict=True)]
    highs = [max(by_place[place]) - middle for place, middle in zip(places, middles, strict=True)]
    axes.errorbar(places, middles, [lows, highs], marker="o", markersize=3, linewidth=1, capsize=2, label=label)


def _first_numeric(rows: Sequence[Row], keys: Sequence[str]) -> str | None:
    numeric = [key for key in keys if all(_is_number(row.settings[key]) for row in rows)]
    return "train.learning_rate" if "train.learning_rate" in numeric else next(iter(numeric), None)


def _lines(rows: Sequence[Row], keys: Sequence[str]) -> str | None:
    return next((key for key in keys if 1 < len(_distinct(rows, key)) <= _MAX_LINES), None)


def _distinct(rows: Sequence[Row], key: str | None) -> list[Any]:
    # Distinct by repr: a list cannot be in a set.
    return sorted({repr(row.settings[key]): row.settings[key] for row in rows}.values(), key=str) if key else []


def _place(row: Row, across: str | None) -> float:
    return 0.0 if across is None else float(row.settings[across])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
