"""What the canary prints for a person. Reads results; computes none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.printing import print_table, say
from lntx.text import markdown

if TYPE_CHECKING:
    from lntx.canary.faults import Fault
    from lntx.canary.results import Canary, FaultReport


def print_canary(canary: Canary) -> None:
    """One line per case, and the verdict last."""
    print_table([["case", "verdict", "epochs", "seconds", ""], *_case_rows(canary)])
    say()
    for drift in canary.drift:
        say(drift.sentence)
    for case in canary.cases:
        for warning in case.warnings:
            say(f"warning: {case.name}: {warning}")
    if canary.blind_seed is not None:
        say(f"drawn blind: --seed {canary.blind_seed} draws it again")
    if canary.root is not None:
        say(f"the files of the wrong case are in {canary.root}")
    if canary.fault is not None:
        said = f"put down to {canary.fault.blame}" if canary.fault.caught else "not seen"
        say(f"{canary.fault.name}: {said}; to blame is {canary.fault.expected}")
    say(_canary_line(canary))


def _canary_line(canary: Canary) -> str:
    right = sum(case.verdict == "pass" for case in canary.cases)
    if canary.verdict == "pass":
        return f"PASS  {right} of {len(canary.cases)} right"
    recurrence = "" if canary.recurrence is None else f", {canary.recurrence}"
    return f"FAIL  {canary.blame}{recurrence}: {canary.reason}"


def canary_table(canary: Canary) -> str:
    """A canary in Markdown."""
    header = ["case", "verdict", "epochs", "seconds", "reason"]
    rows = _case_rows(canary)
    table = "\n".join(
        [
            "| " + " | ".join(header) + " |",
            "|" + " --- |" * len(header),
            *("| " + " | ".join(markdown(cell) for cell in line) + " |" for line in rows),
        ]
    )
    notes = [f"> {markdown(text)}" for text in (canary.reason, *(drift.sentence for drift in canary.drift)) if text]
    return "\n\n".join([f"# {_canary_line(canary).split(':')[0]}", *notes, table]) + "\n"


def _case_rows(canary: Canary) -> list[list[str]]:
    return [
        [
            case.name if canary.repetitions == 1 else f"{case.name}, {case.repetition} of {canary.repetitions}",
            case.verdict if case.blame is None else f"{case.verdict}: {case.blame}",
            "–" if case.path is None else str(case.path.epochs),
            f"{case.seconds:.2f}",
            # The one that speaks for all is told in full below.
            "" if case.reason in (None, canary.reason) else case.reason or "",
        ]
        for case in canary.cases
    ]


def print_faults(faults: Sequence[Fault]) -> None:
    """What can be planted."""
    rows = [[fault.name, fault.blame, fault.what, fault.limit or "none"] for fault in faults]
    print_table([["fault", "blame", "what goes wrong", "not seen below"], *rows])


def print_fault_results(faults: Sequence[FaultReport]) -> None:
    """What came of each planted fault."""
    rows = [
        [fault.name, "yes" if fault.caught else "NO", fault.blame or "–", fault.expected, "" if fault.is_right else "!"]
        for fault in faults
    ]
    print_table([["fault", "caught", "blame", "expected", ""], *rows])
    missed = sum(not fault.caught for fault in faults)
    wrongly = sum(fault.caught and not fault.is_right for fault in faults)
    say()
    say(f"{len(faults)} faults: {missed} missed, {wrongly} blamed wrongly")
