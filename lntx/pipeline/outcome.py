"""The request of a run and the outcome of each stage. Holds and reads results; computes none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from lntx.base.errors import Damaged
from lntx.base.stages import STAGES, Blame, Selection, Stage
from lntx.config.schema import Pipeline, Section
from lntx.evaluation.verdict import Evaluation
from lntx.store.record import Record
from lntx.store.store import Store
from lntx.training.result import Fit

_S = TypeVar("_S", bound=Section)


class Request(Section):
    """What a run is asked to do."""

    pipeline: Pipeline
    """The configuration."""

    selection: Selection = Selection()
    """The stages to obtain."""

    root: Path = Path()
    """The folder that holds data/ and artifacts/."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the run: the selected ones, and the earlier ones whose results they need."""
        return STAGES[: STAGES.index(self.selection.stages[-1]) + 1]


class Outcome(Section):
    """The outcome of one stage."""

    stage: Stage
    """Name of the stage."""

    state: Literal["ran", "cached", "skipped", "failed"]
    """failed: its answer is wrong, or it found a wrong answer of another stage."""

    record: Record | None = None
    """The stored result; None if the stage was skipped."""

    recurrence: Literal["deterministic", "intermittent"] | None = None
    """If a failed result was computed again: whether the same bits resulted."""

    @property
    def stored(self) -> Record:
        """The stored result; the stage must have one."""
        assert self.record is not None
        return self.record

    def path(self, store: Store, name: str) -> Path:
        """Return the path of a file of the result."""
        return store.path(self.stored.file(name))

    def fit(self, store: Store) -> Fit:
        """Return the stored fit of a train outcome."""
        return parse_stored(Fit, self.path(store, "fit.json").read_bytes())

    def blame(self, store: Store) -> tuple[Blame | None, str | None]:
        """Return the part that caused a wrong answer, and the reason; None, None if nothing is wrong."""
        if self.record is None:
            return None, None
        return find_blame(self.stage, lambda name: self.path(store, name).read_bytes())


def parse_stored(kind: type[_S], content: bytes) -> _S:
    """Parse a file of a result. Raises: Damaged: its layout is wrong, although its digest is right."""
    try:
        return kind.model_validate_json(content)
    except ValidationError:
        raise Damaged(f"a stored file is not a {kind.__name__.lower()}: compute it again with --force") from None


def find_blame(stage: Stage, read: Callable[[str], bytes]) -> tuple[Blame | None, str | None]:
    """Return the part that a stage's result blames, and the reason; None, None if nothing is wrong.

    read: returns the bytes of a file of the result.
    """
    if stage == "evaluate":
        evaluation = parse_stored(Evaluation, read("evaluation.json"))
        return evaluation.blame, evaluation.reason
    if stage == "export":
        for name, read_back in json.loads(read("card.json"))["read_back"].items():
            if read_back["problem"] is not None:
                return "export", f"the {name} file is not the trained model: {read_back['problem']}"
    return None, None
