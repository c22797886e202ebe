"""`lntx canary --deep`: run it, print it, write its JUnit file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.app import print_json
from flows.cli.canary_printing import show_faults
from flows.cli.options import Common
from flows.cli.printing import print_table, say
from lntx.errors import LntxError, WrongAnswer

if TYPE_CHECKING:
    from lntx.canary.deep import DeepCanary, DeepOrder
    from lntx.canary.results import Canary


def deep_canary(order: DeepOrder, common: Common, *, local: bool, junit: Path | None) -> int:
    """Run a deep canary; return the exit code."""
    from lntx.canary.junit import write_deep_junit

    if local:
        from lntx.canary.deep import run_deep

        found = run_deep(order, root=common.folder)
    else:
        from flows.launch import run_deep_canary_flow

        found = run_deep_canary_flow(order, common.folder)
    if common.json:
        print_json(found.model_dump(mode="json"))
    else:
        print_deep(found)
    if junit is not None:
        write_deep_junit(found, junit)
    return exit_code(found)


def exit_code(canary: Canary | DeepCanary) -> int:
    """Return the exit code of a canary: 0, 3 for a wrong answer, 1 for a missed fault or no verdict."""
    if canary.verdict == "fail":
        return WrongAnswer.exit_code
    return LntxError.exit_code if canary.verdict is None or canary.fault is not None else 0


def list_deep_faults(common: Common) -> int:
    """Print the faults that can be planted."""
    from lntx.proof.faults import PROOF_FAULTS

    rows = [
        {"name": fault.name, "blame": fault.blame, "network": fault.net, "format": fault.mode, "what": fault.what}
        for fault in PROOF_FAULTS.values()
    ]
    if common.json:
        print_json({"faults": rows})
    else:
        print_table([["fault", "blame", "network", "format", "what goes wrong"], *[[*row.values()] for row in rows]])
    return 0


def try_deep_faults(order: DeepOrder, common: Common, junit: Path | None) -> int:
    """Plant every fault in turn; return 0 if each is caught and rightly blamed."""
    from lntx.canary.deep import prove_faults
    from lntx.canary.junit import write_deep_faults_junit
    from lntx.canary.not_run import NotRun, by_cause

    results = [*prove_faults(order)]
    faults = [result for result in results if not isinstance(result, NotRun)]
    not_run, unfinished = by_cause(results)
    if junit is not None:
        write_deep_faults_junit(faults, junit, not_run, unfinished)
    return show_faults(faults, not_run, unfinished, common)


def print_deep(canary: DeepCanary) -> None:
    """Print one line per network, the table of operators, and the verdict last."""
    from lntx.canary.deep_page import LEGEND, deep_case_rows, deep_verdict_line, heat_rows

    print_table(deep_case_rows(canary))
    say()
    print_table(heat_rows(canary))
    say(LEGEND)
    say()
    for name, why in canary.unchecked.items():
        say(f"not checked: {name}: {why}")
    for warning in canary.warnings:
        say(f"warning: {warning}")
    for case in (*canary.not_run, *canary.unfinished):
        say(case.sentence)
    if canary.blind_seed is not None:
        say(f"drawn blind: --seed {canary.blind_seed} draws it again")
    if canary.fault is not None:
        said = f"blamed on {canary.fault.operator}" if canary.fault.caught else "not seen"
        say(f"{canary.fault.name}: {said}, expected {canary.fault.expected}")
    is_fixed = canary.verdict == "pass" and canary.blind_seed is None and canary.fault is None
    say(f"{deep_verdict_line(canary)}{'; next: lntx canary --deep --blind draws others' if is_fixed else ''}")
