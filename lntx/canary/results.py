"""What a canary says: one report per case, and all of them as `--json` prints it. Computes none of it."""

from __future__ import annotations

from typing import Literal

from lntx.canary.drift import Drift
from lntx.canary.levels import Level
from lntx.canary.oracle.trajectory import PathCheck
from lntx.config.schema import Pipeline, Section
from lntx.runs.run import Run
from lntx.stages import Blame


class CaseReport(Section):
    """The outcome of one case."""

    name: str
    """What is special about it."""

    repetition: int
    """Which repetition, from 1."""

    verdict: Literal["pass", "fail"]
    """Whether everything was right."""

    blame: Blame | None
    """The part that is wrong."""

    reason: str | None
    """Why, and what to look at."""

    warnings: tuple[str, ...]
    """Warnings."""

    seconds: float
    """How long it took."""

    path: PathCheck | None
    """How closely training kept to the closed form."""

    bits: str | None
    """Digest of the loss and the weights of every epoch."""

    config: Pipeline
    """What was trained."""


class FaultReport(Section):
    """The outcome of a planted fault."""

    name: str
    """The fault."""

    caught: bool
    """Whether the canary turned red."""

    blame: Blame | None
    """The part that was blamed."""

    expected: Blame
    """The part that is to blame."""

    reason: str | None
    """Why, as the canary said it."""

    limit: str | None
    """Below what it cannot be seen; none if it always can."""

    seconds: float
    """How long it took."""

    @property
    def is_right(self) -> bool:
        """Whether it was caught and blamed on the right part."""
        return self.caught and self.blame == self.expected


class Canary(Run):
    """The outcome of a canary: the run of the first case that is wrong, else of the first, and all of the cases."""

    level: Level
    """How much was tried."""

    blind_seed: int | None
    """Seed of the blind draws, with which they are drawn again; none where nothing was drawn."""

    repetitions: int
    """How often all was done."""

    recurrence: Literal["deterministic", "intermittent"] | None
    """Of a failure: whether every repetition failed in the same way; none without one or with one repetition."""

    drift: tuple[Drift, ...]
    """Cases whose bits are not those of earlier canaries."""

    cases: tuple[CaseReport, ...]
    """Every case."""

    fault: FaultReport | None
    """The fault that was planted, if one was."""

    root: str | None
    """The folder with all files of the case that is wrong; none where nothing is."""
