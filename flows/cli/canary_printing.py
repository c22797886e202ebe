"""Print the results of the canary for a person. Computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.cli.app import print_json
from flows.cli.options import Common
from flows.cli.printing import print_table, say
from lntx.errors import LntxError

if TYPE_CHECKING:
    from lntx.canary.deep import DeepFault
    from lntx.canary.faults import Fault
    from lntx.canary.fleet import Fleet
    from lntx.canary.not_run import NotRun
    from lntx.canary.results import Canary, FaultReport


def print_canary(canary: Canary) -> None:
    """Print one line per case, and the verdict last."""
    # Imported here, because it imports torch.
    from lntx.canary.page import case_rows, verdict_line

    print_table([["case", "verdict", "epochs", "seconds", ""], *case_rows(canary)])
    say()
    for drift in canary.drift:
        say(drift.sentence)
    for case in canary.cases:
        for warning in case.warnings:
            say(f"warning: {case.name}: {warning}")
    for not_run in (*canary.not_run, *canary.unfinished):
        say(not_run.sentence)
    if canary.blind_seed is not None:
        say(f"drawn blind: --seed {canary.blind_seed} draws it again")
    if canary.root is not None:
        say(f"the files of the wrong case are in {canary.root}")
    if canary.fault is not None:
        said = f"blamed on {canary.fault.blame}" if canary.fault.caught else "not seen"
        say(f"{canary.fault.name}: {said}, expected {canary.fault.expected}")
    say(f"{verdict_line(canary)}{_next(canary)}")


def _next(canary: Canary) -> str:
    """Return the next command after a canary that passed."""
    if canary.verdict != "pass" or canary.fault is not None:
        return ""
    if canary.blind_seed is None and canary.level < 3:
        return f"; next: lntx canary --level {canary.level + 1} tries more"
    return "; next: lntx canary --inject all shows that it can fail"


def print_fleet(fleet: Fleet) -> None:
    """Print one line per node and GPU, and the verdict last."""
    from lntx.canary.fleet import headline, table

    print_table(table(fleet))
    say()
    for sentence in fleet.drift:
        say(sentence)
    say(headline(fleet) if fleet.reason is None else f"{headline(fleet)}: {fleet.reason}")


def print_faults(faults: Sequence[Fault]) -> None:
    """Print the faults that can be planted."""
    rows = [[fault.name, fault.blame, fault.what, fault.limit or "none"] for fault in faults]
    print_table([["fault", "blame", "what goes wrong", "not seen below"], *rows])


def show_faults(
    faults: Sequence[FaultReport] | Sequence[DeepFault],
    not_run: Sequence[NotRun],
    unfinished: Sequence[NotRun],
    common: Common,
) -> int:
    """Print the outcomes of planted faults; return 0 if each is caught and blamed on the right part, else 1."""
    missed = sum(not fault.caught for fault in faults)
    wrongly = sum(fault.caught and not fault.is_right for fault in faults)
    if common.json:
        lists = {"faults": faults, "not_run": not_run, "unfinished": unfinished}
        rows = {name: [row.model_dump(mode="json") for row in listed] for name, listed in lists.items()}
        print_json({**rows, "missed": missed, "blamed_wrongly": wrongly})
    else:
        table = [["fault", "caught", "blame", "expected", ""]]
        for fault in faults:
            caught = "yes" if fault.caught else "NO"
            table.append([fault.name, caught, fault.culprit or "–", fault.expected, "" if fault.is_right else "!"])
        print_table(table)
        say()
        for case in (*not_run, *unfinished):
            say(case.sentence)
        say(f"{len(faults)} faults: {missed} missed, {wrongly} blamed wrongly")
    return 0 if faults and not (missed or wrongly or unfinished) else LntxError.exit_code
