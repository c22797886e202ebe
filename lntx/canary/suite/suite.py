"""What every canary has in common: a suite of cases with known answers, and one result for all of them."""

from __future__ import annotations

import contextlib
import logging
import shutil
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, Protocol, TypeVar

from lntx.base.errors import BadInput
from lntx.canary.suite.baseline import device_kind, installed_versions
from lntx.canary.suite.not_run import NotRun, by_cause, reason_without_verdict
from lntx.canary.suite.options import CanaryOptions
from lntx.canary.suite.results import Canary, CaseReport, FaultReport, OperatorReport
from lntx.config.loading import unknown
from lntx.store.store import Store

if TYPE_CHECKING:
    from lntx.canary.suite.fault import Fault

logger = logging.getLogger(__name__)

Result = CaseReport | NotRun
"""The outcome of a case."""


class Case(Protocol):
    """Something whose answer is known."""

    @property
    def name(self) -> str:
        """Short description of the case."""


C = TypeVar("C", bound=Case)
F = TypeVar("F", bound="Fault")


class Suite(ABC, Generic[C, F]):
    """Cases with known answers, how one is run and judged, and the faults that show that the judgement can fail.

    options: of the canary. root: what earlier canaries kept lies there; None to compare with nothing. fault: to plant;
    the one that the options name by default.

    Raises: BadInput: there is no such fault.
    """

    faults: ClassVar[Mapping[str, Fault]]
    """The faults that a user can plant, by name."""

    option: ClassVar[str]
    """The command line option that chooses this suite; empty if none is needed."""

    def __init__(self, options: CanaryOptions, *, root: Path | None = None, fault: F | None = None) -> None:
        self.options = options
        self.fault = fault or (None if options.inject is None else self._find_fault(options.inject))
        # A canary with a fault is no baseline for others.
        self.store = None if root is None or self.fault is not None else Store(root)

    @abstractmethod
    def cases(self, repetition: int) -> Sequence[C]:
        """Return the cases of a repetition, from 1."""

    @abstractmethod
    def case_for_fault(self, fault: F, number: int) -> C:
        """Return a case in which a fault shows. number: of the draw of a blind case, from 1."""

    @abstractmethod
    def run_case(self, case: C, *, repetition: int = 1, fault: F | None = None) -> Result:
        """Run a case, with a fault planted or none, and judge it. A wrong answer is an outcome, not an exception."""

    def compare(self, canary: Canary) -> tuple[str, ...]:
        """Compare a canary that passed with earlier ones; return warnings."""
        return ()

    def schedule(self) -> Iterator[tuple[C, int]]:
        """Yield each case with the number of its repetition, from 1."""
        if self.fault is not None:
            yield self.case_for_fault(self.fault, 1), 1
            return
        for repetition in range(1, self.options.repeat + 1):
            for case in self.cases(repetition):
                yield case, repetition

    def try_fault(self, fault: F, number: int = 1) -> FaultReport | NotRun:
        """Plant a fault in a case, and return whether it is caught."""
        result = self.run_case(self.case_for_fault(fault, number), fault=fault)
        if isinstance(result, NotRun):
            return result.model_copy(update={"name": fault.name})
        return report_fault(fault, without_files(result))

    def summarize(self, results: Sequence[Result]) -> Canary:
        """Return one result for all cases: what is wrong in the first wrong case, else that nothing is."""
        reports = [result for result in results if isinstance(result, CaseReport)]
        wrong = [report for report in reports if report.verdict == "fail"]
        not_run, unfinished = by_cause(results)
        first = next(iter([*wrong, *reports]), None)
        reason = reason_without_verdict(len(reports), not_run, unfinished)
        canary = Canary(
            verdict="fail" if wrong else "pass" if reason is None else None,
            blame=wrong[0].blame if wrong else None,
            operator=wrong[0].operator if wrong else None,
            reason=wrong[0].reason if wrong else reason,
            warnings=() if first is None else first.warnings,
            deep=self.options.deep,
            level=self.options.level,
            blind_seed=self.options.seed,
            repetitions=self.options.repeat,
            recurrence=self._recurrence(wrong),
            drift=tuple(report.drift for report in reports if report.drift is not None),
            cases=tuple(reports),
            operators=tuple(_merged(reports)),
            unchecked={name: why for report in reports for name, why in report.unchecked.items()},
            not_run=tuple(not_run),
            unfinished=tuple(unfinished),
            fault=None if self.fault is None or first is None else report_fault(self.fault, first),
            root=None if first is None else first.root,
            seconds=round(sum(report.seconds for report in reports), 3),
            device=device_kind("cuda" if self.options.device == "cuda" else "cpu"),
            versions=installed_versions(),
            run=None if first is None or first.run is None else first.run.model_copy(update=_verdict(wrong, reason)),
        )
        if canary.verdict != "pass" or self.store is None:
            return canary
        return canary.model_copy(update={"warnings": (*canary.warnings, *self.compare(canary))})

    def _find_fault(self, name: str) -> F:
        if name not in self.faults:
            raise BadInput(f"{unknown('fault', name, self.faults)} ({self.option}--inject list names all)")
        fault: F = self.faults[name]  # type: ignore[assignment]
        return fault

    def _recurrence(self, wrong: Sequence[CaseReport]) -> Literal["deterministic", "intermittent"] | None:
        """Whether every repetition failed in the same way: same part and, for fixed cases, same case and same bits."""
        if not wrong or self.options.repeat == 1:
            return None
        is_fixed = self.options.seed is None
        ways: dict[int, set[tuple[str | None, ...]]] = {}
        for report in wrong:
            way = (report.culprit, report.name, report.bits) if is_fixed else (report.culprit,)
            ways.setdefault(report.repetition, set()).add(way)
        is_same = len(ways) == self.options.repeat and len({frozenset(way) for way in ways.values()}) == 1
        return "deterministic" if is_same else "intermittent"


def report_fault(fault: Fault, report: CaseReport) -> FaultReport:
    """Return the outcome of a planted fault."""
    return FaultReport(
        name=fault.name,
        caught=report.verdict == "fail",
        blame=report.culprit,
        expected=fault.blame,
        is_right=report.verdict == "fail" and fault.is_blamed(report.culprit),
        reason=report.reason,
        limit=fault.limit,
        seconds=report.seconds,
    )


def without_files(report: CaseReport) -> CaseReport:
    """Remove the files of a case, and return its report without them."""
    if report.root is None:
        return report
    shutil.rmtree(report.root, ignore_errors=True)
    run = None if report.run is None else report.run.model_copy(update={"report": None, "exports": {}})
    return report.model_copy(update={"root": None, "run": run})


def keep_first_files(results: Sequence[Result], result: Result) -> Result:
    """Keep only the files of the first wrong case: remove those of a later one. results: of the cases before."""
    has_files = any(isinstance(earlier, CaseReport) and earlier.root is not None for earlier in results)
    return without_files(result) if has_files and isinstance(result, CaseReport) else result


@contextlib.contextmanager
def log_if_interrupted(results: Sequence[Result]) -> Iterator[None]:
    """Log the wrong answers so far if the block ends early."""
    try:
        yield
    except BaseException:
        for result in results:
            if isinstance(result, CaseReport) and result.verdict == "fail":
                files = f" ({result.root})" if result.root else ""
                logger.error("before the end: %s: %s%s", result.culprit, result.reason, files)
        raise


def _verdict(wrong: Sequence[CaseReport], reason: str | None) -> dict[str, str | None]:
    """Return what a run does not say of all cases: that there is no verdict."""
    return {} if wrong or reason is None else {"verdict": None, "blame": None, "reason": reason}


def _merged(reports: Iterable[CaseReport]) -> list[OperatorReport]:
    """Return one row per phase, operator and format, over all cases."""
    groups: dict[tuple[str, str, str], list[OperatorReport]] = {}
    for report in reports:
        for row in report.operators:
            groups.setdefault((row.phase, row.operator, row.dtype), []).append(row)
    return [
        rows[0].model_copy(
            update={
                "calls": sum(row.calls for row in rows),
                "elements": sum(row.elements for row in rows),
                "largest": max(row.largest for row in rows),
                "median": statistics.median(row.median for row in rows),
                "strict": max(row.strict for row in rows),
            }
        )
        for rows in groups.values()
    ]
