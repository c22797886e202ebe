"""The options of a canary, the cases that follow from them, and the summary of the results. Runs nothing."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from lntx.canary.attempt import Judged
from lntx.canary.cases import Case, blind_case, fixed_cases
from lntx.canary.faults import Fault
from lntx.canary.levels import Device, Level
from lntx.canary.not_run import NotRun, by_cause, reason_without_verdict
from lntx.canary.results import Canary, FaultReport
from lntx.config.loading import explain
from lntx.config.schema import MAX_SEED, Section
from lntx.errors import BadInput
from lntx.pipeline.conclude import gather
from lntx.pipeline.outcome import Outcome, Request
from lntx.runs.run import Run
from lntx.stages import STAGES
from lntx.store.store import Store

Result = Judged | NotRun
"""The outcome of a case."""

_BLIND_CASES: dict[Level, int] = {1: 1, 2: 10, 3: 10}


class Order(Section):
    """The options of a canary."""

    level: Level = 1
    """Amount of testing: 1, one case, a second; 2, several shapes, dtypes, thread counts and formats, half a minute;
    3, also as many rows as a quarter of the free memory holds, minutes."""

    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    """Seed of the blind cases; None for the fixed cases."""

    repeat: int = Field(1, ge=1, le=100_000)
    """Number of repetitions."""

    device: Device = "auto"
    """Where to train; auto is the CPU."""

    def cases(self, repetition: int, *, for_fault: bool = False) -> tuple[Case, ...]:
        """Return the cases of a repetition, from 1; for a fault, one case in which every fault can occur."""
        if self.seed is None:
            return fixed_cases(self.level, self.device)[: 1 if for_fault else None]
        count = 1 if for_fault else _BLIND_CASES[self.level]
        # Any repetition can be drawn without the ones before it.
        seeds = np.random.SeedSequence((self.seed, repetition)).generate_state(count, np.uint64)
        drawn = [blind_case(int(seed >> 1), self.device, for_fault=for_fault) for seed in seeds]
        large = fixed_cases(3, self.device)[len(fixed_cases(2, self.device)) :] if self.level == 3 else ()
        return (*drawn, *(() if for_fault else large))


def settle_order(*, level: Level, blind: bool, seed: int | None, repeat: int, device: Device) -> Order:
    """Return the options; a blind canary without a seed gets a random one.

    Raises: BadInput: a value is out of range.
    """
    drawn = secrets.randbelow(2**63) if blind and seed is None else seed
    try:
        return Order(level=level, seed=drawn, repeat=repeat, device=device)
    except ValidationError as error:
        raise BadInput(*(line.replace("canary.", "--") for line in explain(error, section="canary"))) from None


def refuse_repeated_fault(inject: str | None, repeat: int) -> None:
    """Raise BadInput if a fault is to be planted more than once."""
    if inject is not None and repeat != 1:
        raise BadInput(f"--inject plants one fault in one case: drop --repeat {repeat}")


def sum_up(order: Order, results: Sequence[Result], fault: Fault | None = None) -> Canary:
    """Return one result for all cases: that of the first wrong case, else of the first."""
    done = [result for result in results if isinstance(result, Judged)]
    wrong = [one for one in done if one.report.verdict == "fail"]
    not_run, unfinished = by_cause(results)
    reason = None if wrong else reason_without_verdict(len(done), not_run, unfinished)
    first = wrong[0] if wrong else done[0] if done else None
    run = _run_without_stages(order.cases(1)[0]) if first is None else first.run
    if reason is not None:
        run = run.model_copy(update={"verdict": None, "blame": None, "reason": reason})
    return Canary(
        **dict(run),
        level=order.level,
        blind_seed=order.seed,
        repetitions=order.repeat,
        recurrence=_recurrence(order, wrong),
        drift=tuple(one.drift for one in done if one.drift is not None),
        cases=tuple(one.report for one in done),
        not_run=tuple(not_run),
        unfinished=tuple(unfinished),
        fault=None if fault is None or first is None else report_fault(fault, first),
        root=None if first is None or first.root is None else str(first.root),
    )


def _run_without_stages(case: Case) -> Run:
    """Return the run of a case of which nothing is known."""
    skipped = {stage: Outcome(stage=stage, state="skipped") for stage in STAGES}
    return gather(Store(Path()), Request(pipeline=case.pipeline, root=Path()), skipped)


def report_fault(fault: Fault, judged: Judged) -> FaultReport:
    """Return the outcome of a planted fault."""
    report = judged.report
    return FaultReport(
        name=fault.name,
        caught=report.verdict == "fail",
        blame=report.blame,
        expected=fault.blame,
        reason=report.reason,
        limit=fault.limit,
        seconds=report.seconds,
    )


def _recurrence(order: Order, wrong: Sequence[Judged]) -> Literal["deterministic", "intermittent"] | None:
    """Whether every repetition failed in the same way: same part and, for fixed cases, same case and same bits."""
    if not wrong or order.repeat == 1:
        return None
    ways: dict[int, set[tuple[str | None, ...]]] = {}
    for one in wrong:
        report = one.report
        bits = report.bits if order.seed is None else None
        name = report.name if order.seed is None else None
        ways.setdefault(report.repetition, set()).add((name, report.blame, bits))
    every = list(ways.values())
    alike = len(every) == order.repeat and all(way == every[0] for way in every)
    return "deterministic" if alike else "intermittent"
