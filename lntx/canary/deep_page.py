"""Format the results of a deep canary as lines of text and as Markdown. Computes no results."""

from __future__ import annotations

from collections.abc import Sequence

from lntx.canary.deep import DeepCanary, OperatorReport
from lntx.canary.not_run import count_not_run
from lntx.report import plots
from lntx.text import markdown

_SHADES = ((1.0, "█"), (0.3, "▓"), (0.1, "▒"), (0.01, "░"))
LEGEND = "share of the rounding bound: ░ 0.01, ▒ 0.1, ▓ 0.3, █ 1 or more; over 1 is wrong"
"""What the shades mean."""

_FORMATS = ("float64", "float32", "bfloat16", "float16")


def heat_rows(canary: DeepCanary) -> list[list[str]]:
    """Return a table of operators and phases: the largest share of the bound by format, the head first."""
    found = {(row.operator, str(row.phase), row.dtype): row for row in canary.operators}
    formats = [one for one in _FORMATS if any(row.dtype == one for row in canary.operators)]
    rows = [["operator", "phase", *formats]]
    for operator, phase in sorted({(row.operator, str(row.phase)) for row in canary.operators if row.dtype in formats}):
        cells = [found.get((operator, phase, kind)) for kind in formats]
        rows.append([operator, phase, *("" if cell is None else _share_words(cell) for cell in cells)])
    return rows


def _share_words(row: OperatorReport) -> str:
    """Return a share with a shade, and the strict one beside it where the kernel adds in its own format."""
    shade = next((one for limit, one in _SHADES if row.largest >= limit), " ")
    strict = f" (strict {row.strict:.2g})" if row.strict > row.largest else ""
    return f"{shade} {row.largest:.2g}{strict}" if row.largest else "0"


def deep_verdict_line(canary: DeepCanary) -> str:
    """Return PASS or FAIL, and the reason."""
    if canary.verdict == "pass":
        calls = sum(case.calls for case in canary.cases)
        none = f"none over its bound{count_not_run(canary.not_run)}"
        return f"PASS  {len(canary.cases)} networks, {calls:,} operator calls, {none}"
    if canary.verdict is None:
        return f"NO VERDICT  {canary.reason}"
    recurrence = "" if canary.recurrence is None else f", {canary.recurrence}"
    return f"FAIL  {canary.blame}{recurrence}: {canary.reason}"


def deep_case_rows(canary: DeepCanary) -> list[list[str]]:
    """Return a table row for each network, the head first."""
    rows = [["network", "verdict", "calls", "checked", "seconds"]]
    for case in canary.cases:
        name = case.name if canary.repetitions == 1 else f"{case.name}, {case.repetition} of {canary.repetitions}"
        verdict = case.verdict if case.operator is None else f"{case.verdict}: {case.operator}"
        rows.append([name, verdict, f"{case.calls:,}", f"{100 * case.checked:.0f} %", f"{case.seconds:.2f}"])
    return rows


def deep_table(canary: DeepCanary) -> str:
    """Return the results as Markdown."""
    notes = [f"> {markdown(text)}" for text in (canary.reason, *canary.warnings) if text]
    notes += [f"> {markdown(case.sentence)}" for case in (*canary.not_run, *canary.unfinished)]
    notes += [f"> not checked: {markdown(name)}: {markdown(why)}" for name, why in canary.unchecked.items()]
    parts = [f"# {deep_verdict_line(canary).split(':')[0]}", *notes, _table(deep_case_rows(canary))]
    parts += ["## Operators", LEGEND, _table(heat_rows(canary))]
    shares = shares_of(canary)
    if shares:
        parts.append(f"![share of the rounding bound]({plots.as_png(plots.bound_shares(shares))})")
    return "\n\n".join(parts) + "\n"


def shares_of(canary: DeepCanary) -> dict[str, dict[str, float]]:
    """Return the largest share of the bound by operator and format; operators that round nothing are left out."""
    shares: dict[str, dict[str, float]] = {}
    for row in canary.operators:
        if row.dtype in _FORMATS and row.largest:
            found = shares.setdefault(row.operator, {})
            found[row.dtype] = max(row.largest, found.get(row.dtype, 0.0))
    return shares


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(markdown(cell) for cell in line) + " |" for line in rest)])
