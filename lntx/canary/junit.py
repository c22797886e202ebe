"""Write a canary as a JUnit file, so that a CI server shows it with other tests. Judges nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from lntx.canary.deep import DeepCanary, DeepFault
from lntx.canary.not_run import NotRun
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
        name = case.name if canary.repetitions == 1 else f"{case.name}, {case.repetition} of {canary.repetitions}"
        cases.append((name, case.seconds, None if case.verdict == "pass" else (case.blame or "", case.reason or "")))
    warnings = [f"{case.name}: {warning}" for case in canary.cases for warning in case.warnings]
    _write(cases, path, [*(drift.sentence for drift in canary.drift), *warnings], canary.not_run, canary.unfinished)


def write_faults_junit(
    faults: Sequence[FaultReport], path: Path, not_run: Sequence[NotRun] = (), unfinished: Sequence[NotRun] = ()
) -> None:
    """Write a test case per planted fault; one that is missed, or blamed on another part, is a failure."""
    cases = [
        (fault.name, fault.seconds, None if fault.is_right else (fault.blame or "missed", _missed(fault)))
        for fault in faults
    ]
    _write(cases, path, [], not_run, unfinished)


def write_deep_junit(canary: DeepCanary, path: Path) -> None:
    """Write a test case per network, format and repetition of a deep canary."""
    if canary.fault is not None:
        write_deep_faults_junit([canary.fault], path)
        return
    cases = []
    for case in canary.cases:
        name = case.name if canary.repetitions == 1 else f"{case.name}, {case.repetition} of {canary.repetitions}"
        failure = None if case.verdict == "pass" else (case.operator or "", case.reason or "")
        cases.append((name, case.seconds, failure))
    unchecked = [f"not checked: {name}: {why}" for name, why in canary.unchecked.items()]
    _write(cases, path, [*canary.warnings, *unchecked], canary.not_run, canary.unfinished)


def write_deep_faults_junit(
    faults: Sequence[DeepFault], path: Path, not_run: Sequence[NotRun] = (), unfinished: Sequence[NotRun] = ()
) -> None:
    """Write a test case per fault planted in a training step."""
    cases = []
    for fault in faults:
        said = f"blamed on {fault.operator}, expected {fault.expected}" if fault.caught else "the fault was not seen"
        cases.append((fault.name, fault.seconds, None if fault.is_right else (fault.operator or "missed", said)))
    _write(cases, path, [], not_run, unfinished)


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
    unfinished: Sequence[NotRun],
) -> None:
    """Write the file. What was not run is skipped; where the canary failed is an error."""
    wrong = sum(failure is not None for _, _, failure in cases)
    seconds = sum(taken for _, taken, _ in cases)
    suite = ElementTree.Element(
        "testsuite",
        name=SUITE,
        tests=str(len(cases) + len(not_run) + len(unfinished)),
        failures=str(wrong),
        errors=str(len(unfinished)),
        skipped=str(len(not_run)),
        time=f"{seconds:.3f}",
    )
    for name, taken, failure in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="lntx.canary", name=name, time=f"{taken:.3f}")
        if failure is not None:
            kind, reason = failure
            ElementTree.SubElement(case, "failure", type=kind, message=_legible(reason)).text = _legible(reason)
    for result in (*not_run, *unfinished):
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


def _missed(fault: FaultReport) -> str:
    if not fault.caught:
        return "the planted fault was not seen"
    return f"blamed on {fault.blame}, expected {fault.expected}: {fault.reason}"
