"""Write a canary as a JUnit file, so that a CI server shows it with other tests. Judges nothing."""

from __future__ import annotations

import datetime
import io
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from junitparser import Error, Failure, JUnitXml, Skipped, SystemOut, TestCase, TestSuite

from lntx.base.files import write_whole
from lntx.canary.page import case_name, fault_line
from lntx.canary.suite.not_run import NotRun
from lntx.canary.suite.results import Canary, FaultReport

SUITE = "lntx canary"
"""Name of the test suite."""


def write_junit(canary: Canary, path: Path) -> None:
    """Write a test case per case and repetition; a wrong answer or a missed planted fault is a failure."""
    if canary.fault is not None:
        write_faults_junit([canary.fault], path)
        return
    cases = []
    for case in canary.cases:
        failure = None if case.verdict == "pass" else Failure(_legible(case.reason or ""), case.culprit or "")
        cases.append(_case(case_name(case, canary.repetitions), failure, case.seconds))
    notes = [drift.sentence for drift in canary.drift]
    notes += [f"{case.name}: {warning}" for case in canary.cases for warning in case.warnings]
    notes += canary.warnings if canary.deep else []
    notes += [f"not checked: {name}: {why}" for name, why in canary.unchecked.items()]
    properties = {**canary.versions, "device": canary.device}
    _write([*cases, *map(_unfinished, (*canary.not_run, *canary.unfinished))], path, notes, properties)


def write_faults_junit(faults: Sequence[FaultReport], path: Path, not_run: Sequence[NotRun] = ()) -> None:
    """Write a test case per planted fault; one that is missed, or blamed on another part, is a failure."""
    cases = []
    for fault in faults:
        message = _legible(f"{fault_line(fault)}: {fault.reason}")
        failure = None if fault.is_right else Failure(message, fault.blame or "missed")
        cases.append(_case(fault.name, failure, fault.seconds))
    _write([*cases, *map(_unfinished, not_run)], path)


def write_error_junit(error: BaseException, path: Path) -> None:
    """Write a canary that gave no answer as an error, neither passed nor failed."""
    _write([_case("canary", Error(_legible(str(error)), type(error).__name__))], path)


def _unfinished(result: NotRun) -> TestCase:
    """What was not run is skipped; where the canary failed is an error."""
    return _case(result.name, (Skipped if result.cause == "build" else Error)(_legible(result.sentence)))


def _case(name: str, result: Error | Failure | Skipped | None, seconds: float = 0.0) -> TestCase:
    case = TestCase(name, "lntx.canary", seconds)
    if result is not None:
        result.text = result.message
        case.result = [result]
    return case


def _write(
    cases: Sequence[TestCase], path: Path, notes: Sequence[str] = (), properties: Mapping[str, str] | None = None
) -> None:
    suite = TestSuite(SUITE)
    suite.hostname = platform.node()
    suite.timestamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for name, value in (properties or {}).items():
        suite.add_property(name, _legible(value))
    suite.add_testcases([*cases])
    if notes:
        suite.append(SystemOut(_legible("\n".join(notes))))  # type: ignore[no-untyped-call]
    suites, file = JUnitXml(), io.BytesIO()
    suites.add_testsuite(suite)
    suites.write(file, pretty=True)
    write_whole(path, file.getvalue().decode())


def _legible(text: str) -> str:
    """Replace the characters that XML cannot contain."""
    return "".join(char if char in "\t\n" or char.isprintable() else "\ufffd" for char in text)
