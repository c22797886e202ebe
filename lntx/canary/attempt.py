"""One case in a throw-away root: begun, its stages taken down one by one, and judged.

The core's runner and Prefect's tasks both go through this.
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
from lntx.canary.drift import Drift, watch
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
    """One case, done."""

    report: CaseReport
    """Its outcome."""

    run: Run
    """Its run, with the canary's verdict."""

    root: Path | None
    """Where its files are; none once they are gone."""

    drift: Drift | None
    """Whether its bits have changed."""

    def without_files(self) -> Judged:
        """The same, its files removed."""
        if self.root is None:
            return self
        shutil.rmtree(self.root, ignore_errors=True)
        return dataclasses.replace(self, root=None, run=self.run.model_copy(update={"report": None, "exports": {}}))


class Attempt:
    """A case on its way.

    case: what is trained. repetition: which one, from 1.
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
        """Make the root ready.

        Raises: BadInput: there is no device to train on as asked.
        """
        find_device(self.case.pipeline.train)
        return begin(self.request)

    def take(self, stage: Stage, came: Outcome | BaseException) -> bool:
        """Record the outcome of a stage; says whether the next one may go on."""
        if isinstance(came, BaseException):
            self.broken = Broken(stage=stage, error=came)
            return False
        self.outcomes[stage] = came
        return True

    def conclude(self, witness: Store | None) -> Judged:
        """Judge it. A right case leaves nothing behind but its bits; the files of a wrong one stay.

        witness: where bits are kept; none where they are not to be.
        """
        store = Store(self.root)
        try:
            judgement = judge(self.case, store, self.outcomes, self.broken)
        except BaseException:
            self.discard()
            raise
        report = self._report(judgement)
        said = report.model_dump(include={"verdict", "blame", "reason", "warnings"})
        run = judgement.run.model_copy(update=said)
        if report.verdict == "fail":
            return Judged(report=report, run=self._written(run, judgement.history), root=self.root, drift=None)
        drift = None
        if witness is not None:
            drift = watch(witness, self.case, self.outcomes["train"].fit(store).device, judgement.history)
        self.discard()
        # Files that are gone are not named.
        return Judged(report=report, run=run.model_copy(update={"exports": {}}), root=None, drift=drift)

    def discard(self) -> None:
        """Remove the throw-away root."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _written(self, run: Run, history: list[Epoch]) -> Run:
        """The run with a page about it beside its files."""
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
