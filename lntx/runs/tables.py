"""Coefficients and history as tables: data frames, cells for people, HTML for notebooks. Knows no run."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lntx.base.files import sha256_of
from lntx.base.text import escape
from lntx.evaluation.inference import Estimate

if TYPE_CHECKING:
    import pandas as pd

HEADER = ("estimate", "std. error", "t", "p", "low", "high")
"""Names of the columns for people; low and high are the ends of the 95 % interval."""

_SHOWN_ROWS = 30
# Smaller ones are no longer told apart, as in R.
_SMALLEST_P = 2e-16


def cells(row: Estimate) -> tuple[str, ...]:
    """Return a row of the table for people, in the columns of `HEADER`."""
    values = (row.estimate, row.standard_error, row.t, row.p, row.low, row.high)
    shown = ["–" if value is None else f"{value:.5g}" for value in values]
    if row.p is not None and row.p < _SMALLEST_P:
        shown[HEADER.index("p")] = f"< {_SMALLEST_P:g}"
    return tuple(shown)


def coefficient_frame(rows: Sequence[Estimate]) -> pd.DataFrame:
    """Return a table of coefficients as a data frame."""
    import pandas as pd

    columns = ("estimate", "standard_error", "t", "p", "low", "high")
    values = {name: [getattr(row, name) for row in rows] for name in columns}
    return pd.DataFrame(values, index=[row.name for row in rows], dtype="float64")


def history_frame(path: Path, sha256: str, features: Sequence[str] | None) -> pd.DataFrame:
    """Return a stored history as a data frame. Raises: OSError, ValueError: it is missing, or was altered."""
    import pandas as pd

    from lntx.training.result import read_history

    if sha256_of(path) != sha256:
        raise ValueError("it was altered")
    epochs = read_history(path)
    names = features or tuple(f"weight {j}" for j in range(1, len(epochs[0].weights) + 1))
    names = told_apart(names, ["loss", "bias"])
    columns: dict[str, list[float | None]] = {"loss": [epoch.loss for epoch in epochs]}
    columns |= {name: [epoch.weights[j] for epoch in epochs] for j, name in enumerate(names)}
    if epochs[0].bias is not None:
        columns["bias"] = [epoch.bias for epoch in epochs]
    return pd.DataFrame(columns, index=pd.RangeIndex(len(epochs), name="epoch"), dtype="float64")


def told_apart(features: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Return names of features, none of which is a name that a table uses itself."""
    used = {*features, *taken}
    names = []
    for name in features:
        label = name
        while label in taken or (label != name and label in used):
            label = f"{label} (feature)"
        names.append(label)
    return names


def as_html(words: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return sentences and a table below them, its head first, for a notebook."""

    def line(tag: str, values: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(escape(value))}</{tag}>" for value in values) + "</tr>"

    paragraphs = "".join(f"<p>{html.escape(escape(word))}</p>" for word in words)
    if len(rows) < 2:
        return paragraphs
    head, *others = rows
    body = "".join(line("td", row) for row in others[:_SHOWN_ROWS])
    more = f"<p>… and {len(others) - _SHOWN_ROWS} more</p>" if len(others) > _SHOWN_ROWS else ""
    return f"{paragraphs}<table>{line('th', head)}{body}</table>{more}"
