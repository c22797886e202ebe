"""Run canaries without an orchestrator: the cases of an order, or every fault in turn."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from lntx.canary.attempt import Attempt, Judged
from lntx.canary.cases import Case
from lntx.canary.faults import FAULTS, Fault
from lntx.canary.not_run import NotRun
from lntx.canary.order import Order, Result, report_fault, sum_up
from lntx.canary.results import Canary, FaultReport
from lntx.pipeline.runner import obtain
from lntx.progress import tell
from lntx.stages import STAGES
from lntx.store.leases import running
from lntx.store.store import Store

logger = logging.getLogger(__name__)


def run_canary(
    order: Order | None = None, *, root: str | os.PathLike[str] | None = None, fault: Fault | None = None
) -> Canary:
    """Compute everything in temporary roots, without cache, and judge it; a wrong answer is a result (`verdict`).

    order: level 1 by default. root: the bits of correct trainings are stored here, under artifacts/canary/; LNTX_ROOT
    or the current directory by default. fault: planted in one case, once; then no bits are stored.

    Raises: BadInput: the machine lacks the device.
    """
    asked = order or Order()
    home = Path(root or os.environ.get("LNTX_ROOT") or ".")
    witness = None if fault is not None or asked.seed is not None else witness_at(home)
    results: list[Result] = []
    with named_if_interrupted(results):
        for repetition in range(1, asked.repeat + 1):
            cases = asked.cases(repetition, for_fault=fault is not None)
            for case in cases:
                logger.info("canary: %s", case.name)
                tell(len(results), asked.repeat * len(cases), "cases")
                results.append(keep_one(results, run_case(case, repetition=repetition, witness=witness, fault=fault)))
    return sum_up(asked, results, fault)


def run_faults(order: Order | None = None) -> Iterator[FaultReport | NotRun]:
    """Plant every fault in turn, and yield its outcome."""
    asked = order or Order()
    for number, fault in enumerate(FAULTS.values(), start=1):
        tell(number - 1, len(FAULTS), "faults")
        (case,) = asked.cases(number, for_fault=True)
        result = run_case(case, repetition=1, witness=None, fault=fault)
        if isinstance(result, Judged):
            yield report_fault(fault, result.without_files())
        else:
            yield result.model_copy(update={"name": fault.name})


def run_case(case: Case, *, repetition: int, witness: Store | None, fault: Fault | None) -> Result:
    """Run one case, stage by stage, and judge it while the fault, if any, is still planted."""
    attempt = Attempt(case, repetition=repetition)
    try:
        store = attempt.begin()
        with running(store.locks), fault.planted(case) if fault else contextlib.nullcontext():
            for stage in STAGES:
                try:
                    outcome = obtain(stage, attempt.request, attempt.outcomes)
                except Exception as error:
                    attempt.take(stage, error)
                    break
                attempt.take(stage, outcome)
            return attempt.conclude(witness)
    except BaseException:
        attempt.discard()
        raise


@contextlib.contextmanager
def named_if_interrupted(results: list[Result]) -> Iterator[None]:
    """Log the wrong answers found so far if the repetitions end early."""
    try:
        yield
    except BaseException:
        for result in results:
            if isinstance(result, Judged) and result.root is not None:
                logger.error("before the end: %s: %s (%s)", result.report.blame, result.report.reason, result.root)
        raise


def keep_one(results: list[Result], result: Result) -> Result:
    """Keep only the files of the first wrong case."""
    has_files = any(isinstance(earlier, Judged) and earlier.root is not None for earlier in results)
    return result.without_files() if has_files and isinstance(result, Judged) else result


def witness_at(root: Path) -> Store:
    """Return the store for the bits of correct trainings."""
    return Store(root)
