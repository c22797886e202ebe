"""The suite of whole trainings: each case runs the pipeline in a temporary root, and everything it left is judged."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lntx.base.stages import STAGES, Stage
from lntx.canary.suite.not_run import NotRun, find_cause
from lntx.canary.suite.results import CaseReport
from lntx.canary.suite.suite import Result, Suite
from lntx.canary.trainings.cases import TrainingCase, blind_case, fixed_cases
from lntx.canary.trainings.drift import find_drift, has_run_before
from lntx.canary.trainings.faults import FAULTS, TrainingFault
from lntx.canary.trainings.judge import Broken, Judgement, judge
from lntx.canary.trainings.plain import run_plainly
from lntx.pipeline.outcome import Outcome, Request
from lntx.pipeline.runner import begin, obtain
from lntx.report.page import to_markdown
from lntx.report.report import Report, report_page
from lntx.store.leases import running
from lntx.store.store import Store
from lntx.training.fit import find_device
from lntx.training.result import history_digest

_NUM_BLIND_CASES = {1: 1, 2: 10, 3: 10}


class TrainingSuite(Suite[TrainingCase, TrainingFault]):
    """Whole trainings, each in a temporary root; the files of a wrong one stay there."""

    faults = FAULTS
    option = ""

    def cases(self, repetition: int) -> Sequence[TrainingCase]:
        """Return the cases of a repetition; any repetition of blind cases can be drawn without those before it."""
        level, device = self.options.level, self.options.device
        if self.options.seed is None:
            return fixed_cases(level, device)
        blind = [blind_case(seed, device) for seed in self._seeds(repetition, _NUM_BLIND_CASES[level])]
        large = fixed_cases(3, device)[len(fixed_cases(2, device)) :] if level == 3 else ()
        return (*blind, *large)

    def case_for_fault(self, fault: TrainingFault, number: int) -> TrainingCase:
        """Return a case in which every fault shows."""
        if self.options.seed is None:
            return fixed_cases(1, self.options.device)[0]
        (seed,) = self._seeds(number, 1)
        return blind_case(seed, self.options.device, for_fault=True)

    def run_case(self, case: TrainingCase, *, repetition: int = 1, fault: TrainingFault | None = None) -> Result:
        """Run all stages of a case, and judge what they left while the fault, if any, is still planted.

        Raises: BadInput: the machine lacks the device.
        """
        find_device(case.pipeline.train)
        started = time.perf_counter()
        root = Path(tempfile.mkdtemp(prefix="lntx-canary-"))
        result: Result | None = None
        try:
            request = Request(pipeline=case.pipeline, root=root)
            store = begin(request)
            with running(store.locks), contextlib.nullcontext() if fault is None else fault.planted(case):
                outcomes, broken = _run_stages(request)
                result = self._judge(case, store, outcomes, broken)
            if isinstance(result, CaseReport):
                seconds = round(time.perf_counter() - started, 3)
                result = result.model_copy(update={"repetition": repetition, "seconds": seconds})
            return result
        finally:
            if not isinstance(result, CaseReport) or result.root is None:
                shutil.rmtree(root, ignore_errors=True)

    def _judge(
        self, case: TrainingCase, store: Store, outcomes: Mapping[Stage, Outcome], broken: Broken | None
    ) -> Result:
        try:
            judgement = judge(case, store, outcomes, broken)
        except Exception as error:
            # Nothing of the case is left to be done without the canary.
            return find_cause(case.name, error, lambda: None)
        if judgement is None:
            assert broken is not None
            return self._find_cause(case, broken)
        report = _report(case, store, judgement)
        if report.verdict == "pass" and self.store is not None and self.options.seed is None:
            device = outcomes["train"].fit(store).device
            return report.model_copy(update={"drift": find_drift(self.store, case, device, judgement.history)})
        return report

    def _find_cause(self, case: TrainingCase, broken: Broken) -> NotRun:
        """Return whether the stage that failed also fails without lntx, and whether it ran before."""
        cause = find_cause(case.name, broken.error, lambda: run_plainly(broken.stage, case.pipeline))
        if self.store is None or cause.cause != "build":
            return cause
        device = find_device(case.pipeline.train).type
        return cause.model_copy(update={"ran_before": has_run_before(self.store, case, device)})

    def _seeds(self, repetition: int, count: int) -> list[int]:
        seeds = np.random.SeedSequence((self.options.seed or 0, repetition)).generate_state(count, np.uint64)
        return [int(seed >> 1) for seed in seeds]


def _run_stages(request: Request) -> tuple[dict[Stage, Outcome], Broken | None]:
    """Run the stages up to the first that fails; return their outcomes, and that failure."""
    outcomes: dict[Stage, Outcome] = {}
    for stage in STAGES:
        try:
            outcomes[stage] = obtain(stage, request, outcomes)
        except Exception as error:
            return outcomes, Broken(stage=stage, error=error)
    return outcomes, None


def _report(case: TrainingCase, store: Store, judgement: Judgement) -> CaseReport:
    """Return the report of a case. The files of a wrong one get a report of their run beside them."""
    finding = judgement.finding
    verdict = {
        "verdict": "pass" if finding is None else "fail",
        "blame": None if finding is None else finding.blame,
        "reason": None if finding is None else finding.reason,
        "warnings": judgement.warnings,
    }
    run = judgement.run.model_copy(update=verdict)
    if finding is None:
        # The run must not name files that will be removed.
        run = run.model_copy(update={"exports": {}})
    else:
        path = store.root / "report.md"
        page = report_page(Report(run=run, history=tuple(judgement.history)))
        path.write_text(to_markdown(page), encoding="utf-8")
        run = run.model_copy(update={"report": str(path)})
    return CaseReport(
        name=case.name,
        repetition=1,
        seconds=0,
        path=judgement.path,
        bits=history_digest(judgement.history) if judgement.history else None,
        config=case.pipeline,
        root=None if finding is None else str(store.root),
        run=run,
        **verdict,
    )
