"""A canary as a JUnit file, so that a CI shows it beside other tests. Judges nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from lntx.canary.results import Canary, FaultReport
from lntx.files import write_whole

SUITE = "lntx canary"
"""Name of the test suite."""

_FIRST_LINE = "<?xml version='1.0' encoding='utf-8'?>\n"


def write_junit(canary: Canary, path: Path) -> None:
    """One test case per case and repetition; a wrong answer is a failure, and so is a planted fault that was missed."""
    if canary.fault is not None:
        write_faults_junit([canary.fault], path)
        return
    cases = []
    for case in canary.cases:
        name = case.name if canary.repetitions == 1 else f"{case.name}, {case.repetition} of {canary.repetitions}"
        cases.append((name, case.seconds, None if case.verdict == "pass" else (case.blame or "", case.reason or "")))
    warnings = [f"{case.name}: {warning}" for case in canary.cases for warning in case.warnings]
    _write(cases, path, [*(drift.sentence for drift in canary.drift), *warnings])


def write_faults_junit(faults: Sequence[FaultReport], path: Path) -> None:
    """One test case per planted fault; one that is missed, or blamed on another part, is a failure."""
    cases = [
        (fault.name, fault.seconds, None if fault.is_right else (fault.blame or "missed", _missed(fault)))
        for fault in faults
    ]
    _write(cases, path, [])


def write_error_junit(error: BaseException, path: Path) -> None:
    """A canary that did not come to an answer: neither right nor wrong."""
    suite = ElementTree.Element("testsuite", name=SUITE, tests="1", failures="0", errors="1", skipped="0")
    case = ElementTree.SubElement(suite, "testcase", classname="lntx.canary", name="canary")
    ElementTree.SubElement(case, "error", type=type(error).__name__, message=_legible(str(error)))
    _save(suite, path)


def _write(cases: Sequence[tuple[str, float, tuple[str, str] | None]], path: Path, notes: Sequence[str]) -> None:
    wrong = sum(failure is not None for _, _, failure in cases)
    seconds = sum(taken for _, taken, _ in cases)
    suite = ElementTree.Element(
        "testsuite",
        name=SUITE,
        tests=str(len(cases)),
        failures=str(wrong),
        errors="0",
        skipped="0",
        time=f"{seconds:.3f}",
    )
    for name, taken, failure in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="lntx.canary", name=name, time=f"{taken:.3f}")
        if failure is not None:
            kind, reason = failure
            ElementTree.SubElement(case, "failure", type=kind, message=_legible(reason)).text = _legible(reason)
    if notes:
        ElementTree.SubElement(suite, "system-out").text = _legible("\n".join(notes))
    _save(suite, path)


def _save(suite: ElementTree.Element, path: Path) -> None:
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    write_whole(path, _FIRST_LINE + ElementTree.tostring(suites, encoding="unicode"))


def _legible(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return "".join(char if char in "\t\n" or char.isprintable() else "\ufffd" for char in text)


def _missed(fault: FaultReport) -> str:
    if not fault.caught:
        return "the planted fault was not seen"
    return f"blamed on {fault.blame}, expected {fault.expected}: {fault.reason}"
