"""The results of a canary: one report per case, and all of them as `--json` prints them. Computes nothing."""

from __future__ import annotations

from typing import Literal

from lntx.canary.drift import Drift
from lntx.canary.levels import Level
from lntx.canary.not_run import NotRun
from lntx.canary.oracle.trajectory import PathCheck
from lntx.config.schema import Pipeline, Section
from lntx.runs.run import Run
from lntx.stages import Blame


class CaseReport(Section):
    """The outcome of one case."""

    name: str
    """Short description of the case."""

    repetition: int
    """Number of the repetition, from 1."""

    verdict: Literal["pass", "fail"]
    """Whether everything was right."""

    blame: Blame | None
    """The part that is wrong."""

    reason: str | None
    """What is wrong, and what to check."""

    warnings: tuple[str, ...]
    """Warnings, which do not change the verdict."""

    seconds: float
    """Duration in seconds."""

    path: PathCheck | None
    """How closely training followed the closed form."""

    bits: str | None
    """Digest of the loss and the weights of every epoch."""

    config: Pipeline
    """Configuration of the training."""


class FaultReport(Section):
    """The outcome of a planted fault."""

    name: str
    """Name of the fault."""

    caught: bool
    """Whether the canary failed."""

    blame: Blame | None
    """The part that was blamed."""

    expected: Blame
    """The part that must be blamed."""

    reason: str | None
    """The reason that the canary gave."""

    limit: str | None
    """Size or case in which it cannot be detected; None if it always can."""

    seconds: float
    """Duration in seconds."""

    @property
    def culprit(self) -> str | None:
        """What was blamed."""
        return self.blame

    @property
    def is_right(self) -> bool:
        """Whether it was caught and blamed on the right part."""
        return self.caught and self.blame == self.expected


class Canary(Run):
    """The outcome of a canary: the run of the first wrong case, else of the first case, and reports of all cases."""

    level: Level
    """Amount of testing."""

    blind_seed: int | None
    """Seed that reproduces the blind cases; None for fixed cases."""

    repetitions: int
    """Number of repetitions."""

    recurrence: Literal["deterministic", "intermittent"] | None
    """Whether every repetition failed in the same way; None without a failure or with one repetition."""

    drift: tuple[Drift, ...]
    """Cases whose bits differ from those of earlier canaries."""

    cases: tuple[CaseReport, ...]
    """Reports of all cases that ran."""

    not_run: tuple[NotRun, ...]
    """Cases that this build of the libraries cannot run; the verdict does not depend on them."""

    unfinished: tuple[NotRun, ...]
    """Cases in which the canary itself failed; without a wrong answer the verdict is then null."""

    fault: FaultReport | None
    """The outcome of the planted fault, if there was one."""

    root: str | None
    """The folder with all files of the wrong case; None if no case is wrong."""
