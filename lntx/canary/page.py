"""The page about a canary, and about planted faults. Computes no results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lntx.canary.suite.not_run import NotRun, count_not_run
from lntx.canary.suite.results import Canary, CaseReport, FaultReport, OperatorReport
from lntx.report import plots
from lntx.report.page import Page, Picture, Table

if TYPE_CHECKING:
    from lntx.canary.suite.fault import Fault

_SHADES = ((1.0, "█"), (0.3, "▓"), (0.1, "▒"), (0.01, "░"))
_LEGEND = "share of the rounding bound: ░ 0.01, ▒ 0.1, ▓ 0.3, █ 1 or more; over 1 is wrong"
_FORMATS = ("float64", "float32", "bfloat16", "float16")


def canary_page(canary: Canary) -> Page:
    """Return the page about a canary."""
    tables = [_operator_cases(canary) if canary.deep else _training_cases(canary)]
    shares = shares_of(canary)
    if canary.operators:
        tables.append(operator_table(canary))
    return Page(
        headline=verdict_line(canary),
        verdict=canary.verdict,
        notes=_notes(canary),
        tables=tables,
        pictures=[Picture(name="share of the rounding bound", drawing=lambda: plots.bound_shares(shares))]
        if shares
        else [],
    )


def verdict_line(canary: Canary) -> str:
    """Return PASS or FAIL, and the reason."""
    if canary.verdict is None:
        return f"NO VERDICT  {canary.reason}"
    if canary.verdict == "fail":
        recurrence = "" if canary.recurrence is None else f", {canary.recurrence}"
        return f"FAIL  {canary.blame}{recurrence}: {canary.reason}"
    return f"PASS  {summary(canary)}"


def summary(canary: Canary) -> str:
    """Return in a few words what a canary did: the outcome of a planted fault, else how many cases are right."""
    if canary.fault is not None:
        return fault_line(canary.fault)
    drift = f", drift in {len(canary.drift)}" if canary.drift else ""
    calls = f", {sum(case.calls or 0 for case in canary.cases):,} operator calls" if canary.deep else ""
    return f"{canary.right} of {len(canary.cases)} right{calls}{drift}{count_not_run(canary.not_run)}"


def fault_line(fault: FaultReport) -> str:
    """Return what became of a planted fault."""
    outcome = f"blamed on {fault.blame}" if fault.caught else "not seen"
    return f"{fault.name}: {outcome}, expected {fault.expected}"


def operator_table(canary: Canary) -> Table:
    """Return the largest share of the bound by operator, phase and format."""
    cells = {(row.operator, str(row.phase), row.dtype): _share(row) for row in canary.operators}
    formats = [dtype for dtype in _FORMATS if any(row.dtype == dtype for row in canary.operators)]
    names = sorted({(row.operator, str(row.phase)) for row in canary.operators if row.dtype in formats})
    return Table(
        title="Operators",
        header=("operator", "phase", *formats),
        rows=[(*name, *(cells.get((*name, dtype), "") for dtype in formats)) for name in names],
        legend=_LEGEND,
    )


def shares_of(canary: Canary) -> dict[str, dict[str, float]]:
    """Return the largest share of the bound by operator and format; operators that round nothing are left out."""
    shares: dict[str, dict[str, float]] = {}
    for row in canary.operators:
        if row.dtype in _FORMATS and row.largest:
            formats = shares.setdefault(row.operator, {})
            formats[row.dtype] = max(row.largest, formats.get(row.dtype, 0.0))
    return shares


def fault_list(faults: Sequence[Fault]) -> Page:
    """Return the page about the faults that can be planted."""
    rows = [(fault.name, fault.blame, fault.sentence, fault.limit or "none") for fault in faults]
    header = ("fault", "blame", "what goes wrong", "not seen below")
    return Page(headline=f"{len(rows)} faults can be planted", tables=[Table(header=header, rows=rows)])


def faults_page(faults: Sequence[FaultReport], unfinished: Sequence[NotRun]) -> Page:
    """Return the page about the outcomes of planted faults."""
    missed, misjudged = count_wrong(faults)
    rows = [
        (fault.name, "yes" if fault.caught else "NO", fault.blame or "–", fault.expected, "" if fault.is_right else "!")
        for fault in faults
    ]
    return Page(
        headline=f"{len(faults)} faults: {missed} missed, {misjudged} blamed wrongly",
        verdict="fail" if missed or misjudged or not faults else "pass",
        notes=[case.sentence for case in unfinished],
        tables=[Table(header=("fault", "caught", "blame", "expected", ""), rows=rows)],
    )


def count_wrong(faults: Sequence[FaultReport]) -> tuple[int, int]:
    """Return how many planted faults were missed, and how many were blamed on the wrong part."""
    missed = sum(not fault.caught for fault in faults)
    return missed, sum(not fault.is_right for fault in faults) - missed


def _notes(canary: Canary) -> list[str]:
    """Return what the tables do not show."""
    notes = [drift.sentence for drift in canary.drift]
    notes += [f"not checked: {name}: {why}" for name, why in canary.unchecked.items()]
    in_cases = [f"{case.name}: {warning}" for case in canary.cases for warning in case.warnings]
    of_all = canary.warnings if canary.deep else ()
    notes += [f"warning: {warning}" for warning in (*in_cases, *of_all)]
    notes += [case.sentence for case in (*canary.not_run, *canary.unfinished)]
    if canary.blind_seed is not None:
        notes.append(f"drawn blind: --seed {canary.blind_seed} draws it again")
    if canary.root is not None:
        notes.append(f"the files of the wrong case are in {canary.root}")
    return [*notes, *([] if canary.fault is None else [fault_line(canary.fault)])]


def _training_cases(canary: Canary) -> Table:
    rows = [
        (
            case_name(case, canary.repetitions),
            _case_verdict(case),
            "–" if case.path is None else str(case.path.epochs),
            f"{case.seconds:.2f}",
            # The reason of the canary as a whole is in the headline.
            "" if case.reason in (None, canary.reason) else case.reason or "",
        )
        for case in canary.cases
    ]
    return Table(header=("case", "verdict", "epochs", "seconds", ""), rows=rows)


def _operator_cases(canary: Canary) -> Table:
    rows = [
        (
            case_name(case, canary.repetitions),
            _case_verdict(case),
            f"{case.calls or 0:,}",
            f"{100 * (case.checked or 0):.0f} %",
            f"{case.seconds:.2f}",
        )
        for case in canary.cases
    ]
    return Table(header=("network", "verdict", "calls", "checked", "seconds"), rows=rows)


def case_name(case: CaseReport, repetitions: int) -> str:
    """Return the name of a case, with the number of the repetition if there are several."""
    return case.name if repetitions == 1 else f"{case.name}, {case.repetition} of {repetitions}"


def _case_verdict(case: CaseReport) -> str:
    return case.verdict if case.culprit is None else f"{case.verdict}: {case.culprit}"


def _share(row: OperatorReport) -> str:
    """Return a share with a shade, and the strict one beside it where the kernel adds in its own format."""
    shade = next((sign for limit, sign in _SHADES if row.largest >= limit), " ")
    strict = f" (strict {row.strict:.2g})" if row.strict > row.largest else ""
    return f"{shade} {row.largest:.2g}{strict}" if row.largest else "0"
