"""Run a canary without an orchestrator: all cases of its suite, or every fault in turn."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lntx.base.files import write_whole
from lntx.base.progress import report_progress
from lntx.canary.page import canary_page
from lntx.canary.suite.not_run import NotRun
from lntx.canary.suite.options import CanaryOptions
from lntx.canary.suite.results import Canary, FaultReport
from lntx.canary.suite.suite import Result, Suite, keep_first_files, log_if_interrupted
from lntx.report.page import to_html

if TYPE_CHECKING:
    # What serves a canary does without torch, which only its runs need.
    from lntx.canary.operators.suite import OperatorSuite
    from lntx.canary.suite.fault import Fault
    from lntx.canary.trainings.suite import TrainingSuite

logger = logging.getLogger(__name__)


def find_suite(deep: bool) -> type[TrainingSuite] | type[OperatorSuite]:
    """Return the suite that the options choose."""
    from lntx.canary.operators.suite import OperatorSuite
    from lntx.canary.trainings.suite import TrainingSuite

    return OperatorSuite if deep else TrainingSuite


def open_suite(
    options: CanaryOptions, *, root: str | os.PathLike[str] | None = None, fault: Fault | None = None
) -> Suite[Any, Any]:
    """Return the suite of a canary. root: as in `run_canary`. fault: to plant in place of the one that options name.

    Raises: BadInput: there is no such fault or no such device.
    """
    folder = Path(root or os.environ.get("LNTX_ROOT") or ".")
    suite: type[Any] = find_suite(options.deep)
    opened: Suite[Any, Any] = suite(options, root=folder, fault=fault)
    return opened


def run_canary(
    options: CanaryOptions | None = None, *, root: str | os.PathLike[str] | None = None, fault: Fault | None = None
) -> Canary:
    """Compute everything anew, without cache, and judge it; a wrong answer is a result (`verdict`).

    options: of one case by default. root: what later canaries are compared with is kept here, under artifacts/canary/;
    LNTX_ROOT or the current directory by default. fault: planted in one case, once; then nothing is kept.

    Raises: BadInput: there is no such fault, or the machine lacks the device.
    """
    suite = open_suite(options or CanaryOptions(), root=root, fault=fault)
    schedule = [*suite.schedule()]
    results: list[Result] = []
    with log_if_interrupted(results):
        for number, (case, repetition) in enumerate(schedule):
            logger.info("canary: %s", case.name)
            report_progress(number, len(schedule), "cases")
            result = suite.run_case(case, repetition=repetition, fault=suite.fault)
            results.append(keep_first_files(results, result))
    return conclude_canary(suite, results)


def conclude_canary(suite: Suite[Any, Any], results: Sequence[Result]) -> Canary:
    """Return the result of all cases; of a wrong answer also write a report, beside the files of the wrong case."""
    canary = suite.summarize(results)
    if canary.verdict != "fail":
        return canary
    folder = canary.root or tempfile.mkdtemp(prefix="lntx-canary-")
    canary = canary.model_copy(update={"root": folder})
    write_whole(Path(folder) / "report.html", to_html(canary_page(canary)))
    return canary


def run_faults(
    options: CanaryOptions | None = None, *, faults: Mapping[str, Any] | None = None
) -> Iterator[FaultReport | NotRun]:
    """Plant every fault in turn, and yield its outcome. faults: those of the suite by default."""
    settings = options or CanaryOptions()
    suite: Suite[Any, Any] = find_suite(settings.deep)(settings)
    planted = {**(suite.faults if faults is None else faults)}
    for number, fault in enumerate(planted.values(), start=1):
        report_progress(number - 1, len(planted), "faults")
        yield suite.try_fault(fault, number)
