"""One case in a temporary root: started, recorded stage by stage, and judged.

Both the core's runner and Prefect's tasks use it.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lntx.canary.cases import Case
from lntx.canary.checks.judge import Broken, Judgement, judge
from lntx.canary.drift import Drift, has_kept_bits, watch
from lntx.canary.not_run import NotRun, find_cause
from lntx.canary.plain import run_plainly
from lntx.canary.results import CaseReport
from lntx.pipeline.outcome import Outcome, Request
from lntx.pipeline.runner import begin
from lntx.report.report import Page, markdown
from lntx.runs.run import Run
from lntx.stages import Stage
from lntx.store.store import Store
from lntx.training.fit import find_device
from lntx.training.result import Epoch, history_digest


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The result of one case."""

    report: CaseReport
    """Outcome of the case."""

    run: Run
    """Its run, with the canary's verdict."""

    root: Path | None
    """Folder of its files; None if they were removed."""

    drift: Drift | None
    """How its bits changed; None if they did not."""

    def without_files(self) -> Judged:
        """Remove the files, and return the result without them."""
        if self.root is None:
            return self
        shutil.rmtree(self.root, ignore_errors=True)
        return dataclasses.replace(self, root=None, run=self.run.model_copy(update={"report": None, "exports": {}}))


class Attempt:
    """A case in progress.

    case: what to train. repetition: its number, from 1.
    """

    def __init__(self, case: Case, *, repetition: int = 1) -> None:
        self.case = case
        self.root = Path(tempfile.mkdtemp(prefix="lntx-canary-"))
        self.request = Request(pipeline=case.pipeline, root=self.root)
        self.outcomes: dict[Stage, Outcome] = {}
        self.broken: Broken | None = None
        self._repetition = repetition
        self._started = time.perf_counter()

    def begin(self) -> Store:
        """Prepare the root, and return its store.

        Raises: BadInput: the requested device is not available.
        """
        find_device(self.case.pipeline.train)
        return begin(self.request)

    def take(self, stage: Stage, outcome: Outcome | Exception) -> bool:
        """Record the outcome of a stage; return whether the next stage may run."""
        if isinstance(outcome, Exception):
            self.broken = Broken(stage=stage, error=outcome)
            return False
        self.outcomes[stage] = outcome
        return True

    def conclude(self, witness: Store | None) -> Judged | NotRun:
        """Judge the case. Of a correct case only the bits are kept; the files of a wrong case stay.

        witness: store for the bits; None to keep no bits.
        """
        try:
            return self._concluded(witness)
        except BaseException:
            self.discard()
            raise

    def _concluded(self, witness: Store | None) -> Judged | NotRun:
        store = Store(self.root)
        broken = self.broken
        try:
            judgement = judge(self.case, store, self.outcomes, broken)
        except Exception as error:
            self.discard()
            # Nothing of the case is left to be done without the canary.
            return find_cause(self.case.name, error, lambda: None)
        if judgement is None:
            assert broken is not None
            self.discard()
            cause = find_cause(self.case.name, broken.error, lambda: run_plainly(broken.stage, self.case.pipeline))
            if witness is not None and cause.cause == "build":
                device = find_device(self.case.pipeline.train).type
                return cause.model_copy(update={"ran_before": has_kept_bits(witness, self.case, device)})
            return cause
        report = self._report(judgement)
        said = report.model_dump(include={"verdict", "blame", "reason", "warnings"})
        run = judgement.run.model_copy(update=said)
        if report.verdict == "fail":
            return Judged(report=report, run=self._written(run, judgement.history), root=self.root, drift=None)
        drift = None
        if witness is not None:
            drift = watch(witness, self.case, self.outcomes["train"].fit(store).device, judgement.history)
        self.discard()
        # The run must not name files that were removed.
        return Judged(report=report, run=run.model_copy(update={"exports": {}}), root=None, drift=drift)

    def discard(self) -> None:
        """Remove the temporary root."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _written(self, run: Run, history: list[Epoch]) -> Run:
        """Write a report next to the files, and return the run with its path."""
        page = self.root / "report.md"
        page.write_text(markdown(Page(run=run, history=tuple(history))), encoding="utf-8")
        return run.model_copy(update={"report": str(page)})

    def _report(self, judgement: Judgement) -> CaseReport:
        found = judgement.finding
        return CaseReport(
            name=self.case.name,
            repetition=self._repetition,
            verdict="pass" if found is None else "fail",
            blame=None if found is None else found.blame,
            reason=None if found is None else found.reason,
            warnings=judgement.warnings,
            seconds=round(time.perf_counter() - self._started, 3),
            path=judgement.path,
            bits=history_digest(judgement.history) if judgement.history else None,
            config=self.case.pipeline,
        )
