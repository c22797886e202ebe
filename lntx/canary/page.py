"""Format the results of a canary as lines of text and as Markdown. Computes no results."""

from __future__ import annotations

from lntx.canary.not_run import count_not_run
from lntx.canary.results import Canary
from lntx.text import markdown


def verdict_line(canary: Canary) -> str:
    """Return PASS or FAIL, and the reason."""
    right = sum(case.verdict == "pass" for case in canary.cases)
    if canary.verdict == "pass":
        return f"PASS  {right} of {len(canary.cases)} right{count_not_run(canary.not_run)}"
    if canary.verdict is None:
        return f"NO VERDICT  {canary.reason}"
    recurrence = "" if canary.recurrence is None else f", {canary.recurrence}"
    return f"FAIL  {canary.blame}{recurrence}: {canary.reason}"


def canary_table(canary: Canary) -> str:
    """Return the results of a canary as Markdown."""
    header = ["case", "verdict", "epochs", "seconds", "reason"]
    rows = case_rows(canary)
    table = "\n".join(
        [
            "| " + " | ".join(header) + " |",
            "|" + " --- |" * len(header),
            *("| " + " | ".join(markdown(cell) for cell in line) + " |" for line in rows),
        ]
    )
    sentences = [drift.sentence for drift in canary.drift]
    sentences += [case.sentence for case in (*canary.not_run, *canary.unfinished)]
    notes = [f"> {markdown(text)}" for text in (canary.reason, *sentences) if text]
    return "\n\n".join([f"# {verdict_line(canary).split(':')[0]}", *notes, table]) + "\n"


def case_rows(canary: Canary) -> list[list[str]]:
    """Return a table row for each case."""
    return [
        [
            case.name if canary.repetitions == 1 else f"{case.name}, {case.repetition} of {canary.repetitions}",
            case.verdict if case.blame is None else f"{case.verdict}: {case.blame}",
            "–" if case.path is None else str(case.path.epochs),
            f"{case.seconds:.2f}",
            # The reason of the canary as a whole is printed outside the table.
            "" if case.reason in (None, canary.reason) else case.reason or "",
        ]
        for case in canary.cases
    ]
