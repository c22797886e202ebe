"""One Markdown report of a run, its loss curve embedded as a picture. Reads results; decides nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from lntx.fitting import Epoch, read_history
from lntx.runs import Run

_MAX_ROWS = 50


def write_markdown(run: Run, history: Path | None, path: Path) -> None:
    """Write the report.

    history: the training history, where there is one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown(run, read_history(history) if history else []), encoding="utf-8")


def markdown(run: Run, history: Sequence[Epoch]) -> str:
    """The report as text: verdict, learned beside true, loss curve, stages."""
    verdict = {"pass": "PASS", "fail": f"FAIL · {run.blame}", None: "not evaluated"}[run.verdict]
    parts = [f"# {verdict}"]
    if run.reason:
        parts.append(f"> {run.reason}")
    parts += [f"> Warning: {warning}" for warning in run.warnings]
    if run.learned_weights is not None:
        parts.append(_coefficients(run))
    figures = [
        ("digits", run.digits),
        ("ulps", run.ulps),
        ("epochs", run.epochs),
        ("learning rate", run.learning_rate),
        ("coordinates", run.precondition),
        ("gradient", run.gradient),
        ("condition number", run.condition_number),
        ("mean squared error", run.mse),
        ("residual standard deviation", run.residual_sd),
        ("R²", run.r_squared),
        ("rows", run.num_rows),
        ("dtype", run.dtype),
    ]
    parts.append(_table(("figure", "value"), [(name, _number(value)) for name, value in figures if value is not None]))
    if len(history) > 1:
        parts.append(f"![loss by epoch](data:image/png;base64,{_loss_picture(history)})")
    parts.append("## Stages")
    parts.append(
        _table(
            ("stage", "state", "seconds", "files"),
            [
                (stage, done.state, _number(done.seconds), "<br>".join(f"`{file.path}`" for file in done.files))
                for stage, done in run.stages.items()
            ],
        )
    )
    parts.append(f"Run `{run.run}`, {run.created_at}.")
    return "\n\n".join(parts) + "\n"


def _coefficients(run: Run) -> str:
    assert run.learned_weights is not None
    names = run.features or tuple(f"weight {j}" for j in range(1, len(run.learned_weights) + 1))
    rows = [
        (name, _exact(learned), _exact(_at(run.reference_weights, j)), _exact(_at(run.true_weights, j)))
        for j, (name, learned) in enumerate(zip(names, run.learned_weights, strict=True))
    ]
    if run.learned_bias is not None:
        rows.append(("bias", _exact(run.learned_bias), _exact(run.reference_bias), _exact(run.true_bias)))
    text = _table(("coefficient", "learned", "exact least squares", "true"), rows[:_MAX_ROWS])
    return text if len(rows) <= _MAX_ROWS else f"{text}\n\n… and {len(rows) - _MAX_ROWS} more."


def _loss_picture(history: Sequence[Epoch]) -> str:
    from matplotlib.figure import Figure

    points = [(k, epoch.loss) for k, epoch in enumerate(history) if epoch.loss is not None]
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([k for k, _ in points], [loss for _, loss in points], marker="o", markersize=3)
    if all(loss > 0 for _, loss in points):
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=min((loss for _, loss in points if loss > 0), default=1.0))
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean squared error")
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _at(values: Sequence[float] | None, j: int) -> float | None:
    return None if values is None else values[j]


def _exact(value: float | None) -> str:
    return "–" if value is None else repr(value)


def _number(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
