"""The results of a canary: one report per case, and all of them as `--json` prints them. Computes nothing."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer

from lntx.base.stages import Blame
from lntx.canary.oracle.path_check import PathCheck
from lntx.canary.suite.not_run import NotRun
from lntx.canary.suite.options import Level
from lntx.config.schema import Pipeline, Section
from lntx.runs.run import Run


class OperatorReport(Section):
    """An operator in one format and phase."""

    phase: Literal["forward", "backward", "optimizer"]
    """Part of the step."""

    operator: str
    """Name without namespace and overload; or a whole step, the loss, a compiled region."""

    dtype: str
    """Format of the result."""

    calls: int
    """Number of calls."""

    elements: int
    """Number of elements that were compared."""

    largest: float
    """Largest share of the bound; over 1 is wrong."""

    median: float
    """Median over the calls of their largest share; over several cases, the median of theirs."""

    strict: float
    """Largest share with sums in float32, where the kernel adds in its own format of 16 bits."""


class Drift(Section):
    """A correct training whose bits differ from those of an earlier one."""

    case: str
    """Name of the case."""

    since: str
    """Time of the earlier training, ISO 8601 in UTC."""

    epoch: int
    """The first epoch that differs; 0 is the start."""

    changed: dict[str, tuple[str | None, str | None]]
    """Versions that changed meanwhile, old and new; empty if the same versions gave other bits."""

    @property
    def sentence(self) -> str:
        """The drift as a sentence for the user."""
        if not self.changed:
            why = "with the same versions: look at the machine, and repeat with --repeat 10"
        else:
            why = "with " + ", ".join(f"{name} {old} → {new}" for name, (old, new) in self.changed.items())
        return f"drift: {self.case} gives other bits since {self.since}, from epoch {self.epoch} on, {why}"


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

    operator: str | None = None
    """The operator, the step or the memory that is wrong; null in a canary of whole trainings."""

    reason: str | None
    """What is wrong, and what to check."""

    warnings: tuple[str, ...] = ()
    """Warnings, which do not change the verdict."""

    seconds: float
    """Duration in seconds."""

    path: PathCheck | None = None
    """How closely training followed the closed form; null in a deep canary."""

    bits: str | None = None
    """Digest of the loss and the weights of every epoch; null in a deep canary."""

    config: Pipeline | None = None
    """Configuration of the training; null in a deep canary."""

    drift: Drift | None = None
    """How the bits differ from those of an earlier canary; null if they do not."""

    calls: int | None = None
    """Number of operator calls of a deep canary."""

    checked: float | None = None
    """Share of the multiply-adds that a deep canary checked."""

    operators: tuple[OperatorReport, ...] = ()
    """The operators of a deep canary."""

    unchecked: dict[str, str] = Field(default_factory=dict)
    """Operators that a deep canary did not check, and why."""

    root: str | None = None
    """The folder with all files of the case; null if they were removed."""

    run: Run | None = Field(None, exclude=True)
    """The run of the case, with the canary's verdict; not in JSON."""

    @property
    def culprit(self) -> str | None:
        """What is wrong, as exactly as it is known: an operator, else a part."""
        return self.operator or self.blame


class FaultReport(Section):
    """The outcome of a planted fault."""

    name: str
    """Name of the fault."""

    caught: bool
    """Whether the canary failed."""

    blame: str | None
    """What was blamed: a part; in a deep canary an operator, a step or the memory."""

    expected: str
    """What must be blamed; "step" is that of any optimiser."""

    is_right: bool
    """Whether it was caught and the right part or operator was blamed."""

    reason: str | None
    """The reason that the canary gave."""

    limit: str | None
    """Size or case in which it cannot be detected; null if it always can."""

    seconds: float
    """Duration in seconds."""


class Outcome(Section):
    """What a canary found, in one process or on a node."""

    verdict: Literal["pass", "fail"] | None
    """Whether all that ran was right; null if nothing was wrong, and the canary failed or nothing ran."""

    blame: Blame | None
    """The part that is wrong in the first wrong case."""

    operator: str | None
    """The operator, the step or the memory that is wrong there, in a deep canary."""

    reason: str | None
    """What is wrong there, and what to check; or why there is no verdict."""

    cases: tuple[CaseReport, ...]
    """Reports of all cases that ran."""

    not_run: tuple[NotRun, ...]
    """Cases that this build of the libraries cannot run; the verdict does not depend on them."""

    unfinished: tuple[NotRun, ...]
    """Cases in which the canary itself failed; without a wrong answer the verdict is then null."""


class Canary(Outcome):
    """The outcome of a canary. The keys of the run of the first wrong case, else of the first one, are beside them."""

    warnings: tuple[str, ...]
    """Warnings of the first wrong case, else of the first one; operators whose share of the bound is unusual."""

    deep: bool
    """Whether every operator of a training step was checked, in place of whole trainings."""

    level: Level
    """Amount of testing."""

    blind_seed: int | None
    """Seed that reproduces the blind cases; null for fixed cases."""

    repetitions: int
    """Number of repetitions."""

    recurrence: Literal["deterministic", "intermittent"] | None
    """Whether every repetition failed in the same way; null without a failure or with one repetition."""

    drift: tuple[Drift, ...]
    """Cases whose bits differ from those of earlier canaries."""

    operators: tuple[OperatorReport, ...]
    """All operators of a deep canary, over its cases."""

    unchecked: dict[str, str]
    """Operators that a deep canary did not check, and why."""

    fault: FaultReport | None
    """The outcome of the planted fault, if there was one."""

    root: str | None
    """The folder with a report, and with all files of the wrong training; null without a wrong answer."""

    seconds: float
    """Duration of the cases in seconds."""

    device: str
    """Model of the processor or GPU."""

    versions: dict[str, str]
    """Versions of lntx, torch and numpy, and the instruction set of torch's kernels."""

    flow_run_id: str | None = None
    """Prefect's id of the run."""

    flow_run_url: str | None = None
    """Its page in the UI."""

    run: Run | None = None
    """The run of the first wrong case, else of the first one, with the canary's verdict; none in a deep canary."""

    @model_serializer(mode="wrap")
    def _with_keys_of_run(self, dump: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        own = {name: value for name, value in dump(self).items() if name != "run"}
        return own if self.run is None else {**self.run.model_dump(mode=info.mode), **own}

    @property
    def right(self) -> int:
        """Number of cases that are right."""
        return sum(case.verdict == "pass" for case in self.cases)
