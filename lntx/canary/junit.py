"""Write a canary as a JUnit file, so that a CI server shows it with other tests. Judges nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from lntx.canary.not_run import NotRun
from lntx.canary.page import case_name, fault_line
from lntx.canary.results import Canary, FaultReport
from lntx.files import write_whole

SUITE = "lntx canary"
"""Name of the test suite."""

_FIRST_LINE = "<?xml version='1.0' encoding='utf-8'?>\n"


def write_junit(canary: Canary, path: Path) -> None:
    """Write a test case per case and repetition; a wrong answer or a missed planted fault is a failure."""
    if canary.fault is not None:
        write_faults_junit([canary.fault], path)
        return
    cases = []
    for case in canary.cases:
        failure = None if case.verdict == "pass" else (case.culprit or "", case.reason or "")
        cases.append((case_name(case, canary.repetitions), case.seconds, failure))
    notes = [drift.sentence for drift in canary.drift]
    notes += [f"{case.name}: {warning}" for case in canary.cases for warning in case.warnings]
    notes += canary.warnings if canary.deep else []
    notes += [f"not checked: {name}: {why}" for name, why in canary.unchecked.items()]
    _write(cases, path, notes, (*canary.not_run, *canary.unfinished))


def write_faults_junit(faults: Sequence[FaultReport], path: Path, not_run: Sequence[NotRun] = ()) -> None:
    """Write a test case per planted fault; one that is missed, or blamed on another part, is a failure."""
    cases = []
    for fault in faults:
        failure = None if fault.is_right else (fault.blame or "missed", f"{fault_line(fault)}: {fault.reason}")
        cases.append((fault.name, fault.seconds, failure))
    _write(cases, path, [], not_run)


def write_error_junit(error: BaseException, path: Path) -> None:
    """Write a canary that gave no answer as an error, neither passed nor failed."""
    suite = ElementTree.Element("testsuite", name=SUITE, tests="1", failures="0", errors="1", skipped="0")
    case = ElementTree.SubElement(suite, "testcase", classname="lntx.canary", name="canary")
    ElementTree.SubElement(case, "error", type=type(error).__name__, message=_legible(str(error)))
    _save(suite, path)


def _write(
    cases: Sequence[tuple[str, float, tuple[str, str] | None]],
    path: Path,
    notes: Sequence[str],
    not_run: Sequence[NotRun],
) -> None:
    """Write the file. What was not run is skipped; where the canary failed is an error."""
    skipped = sum(case.cause == "build" for case in not_run)
    suite = ElementTree.Element(
        "testsuite",
        name=SUITE,
        tests=str(len(cases) + len(not_run)),
        failures=str(sum(failure is not None for _, _, failure in cases)),
        errors=str(len(not_run) - skipped),
        skipped=str(skipped),
        time=f"{sum(seconds for _, seconds, _ in cases):.3f}",
    )
    for name, seconds, failure in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="lntx.canary", name=name, time=f"{seconds:.3f}")
        if failure is not None:
            kind, reason = failure
            ElementTree.SubElement(case, "failure", type=kind, message=_legible(reason)).text = _legible(reason)
    for result in not_run:
        case = ElementTree.SubElement(suite, "testcase", classname="lntx.canary", name=result.name)
        kind = "skipped" if result.cause == "build" else "error"
        ElementTree.SubElement(case, kind, message=_legible(result.sentence))
    if notes:
        ElementTree.SubElement(suite, "system-out").text = _legible("\n".join(notes))
    _save(suite, path)


def _save(suite: ElementTree.Element, path: Path) -> None:
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    write_whole(path, _FIRST_LINE + ElementTree.tostring(suites, encoding="unicode"))


def _legible(text: str) -> str:
    """Replace the characters that XML cannot contain."""
    return "".join(char if char in "\t\n" or char.isprintable() else "\ufffd" for char in text)
