"""Cases that a canary did not finish: the build of the libraries cannot run them, or the canary itself failed.

Neither is a wrong answer. Judges no answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from lntx.canary.suite.findings import in_words, is_want
from lntx.config.schema import Section

logger = logging.getLogger(__name__)


class NotRun(Section):
    """A case that was not run to its end."""

    name: str
    """Name of the case."""

    error: str
    """First line of the error."""

    cause: Literal["build", "canary", "machine"]
    """build: it raises without the canary too; canary: it runs without the canary; machine: no memory, no disk."""

    ran_before: bool = False
    """Whether it ran on this kind of device before."""

    @property
    def sentence(self) -> str:
        """What was not run, and why."""
        if self.cause == "canary":
            return f"the canary failed in {self.name}: {self.error}; the same work runs without it: please report this"
        before = "; it ran on this kind of device before: see what changed since" if self.ran_before else ""
        return f"not run here: {self.name}: {self.error.rstrip('.')}{before}"


def find_cause(name: str, error: Exception, plain: Callable[[], object]) -> NotRun:
    """Return whether the build, the machine or the canary caused an error.

    plain: does the same work without the canary; it is called once at most.
    """
    logger.info("%s: %s", name, in_words(error))
    if is_want(error):
        return NotRun(name=name, error=in_words(error), cause="machine")
    try:
        plain()
    except Exception as plain_error:
        return NotRun(name=name, error=in_words(plain_error), cause="build")
    return NotRun(name=name, error=in_words(error), cause="canary")


def by_cause(results: Iterable[object]) -> tuple[list[NotRun], list[NotRun]]:
    """Return what the build cannot run, once for all repetitions, and what the canary or the machine did not finish."""
    unfinished = [result for result in results if isinstance(result, NotRun)]
    not_run = {result.name: result for result in unfinished if result.cause == "build"}
    return [*not_run.values()], [result for result in unfinished if result.cause != "build"]


def count_not_run(cases: Sequence[NotRun]) -> str:
    """Return how many cases were not run, as the end of a sentence."""
    if not cases:
        return ""
    before = sum(case.ran_before for case in cases)
    return f"; {len(cases)} not run here" + (f", {before} of which ran before" if before else "")


def reason_without_verdict(num_cases: int, not_run: Sequence[NotRun], unfinished: Sequence[NotRun]) -> str | None:
    """Return why there is no verdict where no answer is wrong; None if there is one. num_cases: number that ran."""
    if unfinished:
        return "; ".join(case.sentence for case in unfinished)
    return None if num_cases else "nothing ran: " + "; ".join(case.sentence for case in not_run)
