"""What a run is asked, and what comes of each stage. Holds and reads results; computes none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from lntx.config.schema import Pipeline, Section
from lntx.errors import Damaged
from lntx.evaluation.verdict import Evaluation
from lntx.stages import STAGES, Blame, Selection, Stage
from lntx.store.record import Record
from lntx.store.store import Store
from lntx.training.result import Fit

_S = TypeVar("_S", bound=Section)


class Request(Section):
    """What a run is asked."""

    pipeline: Pipeline
    """The configuration."""

    selection: Selection = Selection()
    """Which stages."""

    root: Path = Path()
    """The folder that holds data/ and artifacts/."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that take part: the selected ones, and the earlier ones that they start from."""
        return STAGES[: STAGES.index(self.selection.stages[-1]) + 1]


class Outcome(Section):
    """The outcome of one stage."""

    stage: Stage
    """The stage."""

    state: Literal["ran", "cached", "skipped", "failed"]
    """failed: its answer is wrong, or it found one that is."""

    record: Record | None = None
    """The stored result; none where it was skipped."""

    recurrence: Literal["deterministic", "intermittent"] | None = None
    """Where a result that had failed was computed again: whether the same bits came out."""

    @property
    def stored(self) -> Record:
        """The stored result, of a stage that has one."""
        assert self.record is not None
        return self.record

    def path(self, store: Store, name: str) -> Path:
        """Where a file of the result is."""
        return store.path(self.stored.file(name))

    def fit(self, store: Store) -> Fit:
        """The figures of a train outcome."""
        return parse_stored(Fit, self.path(store, "fit.json").read_bytes())

    def blame(self, store: Store) -> tuple[Blame | None, str | None]:
        """Who is to blame for a wrong answer, and why; none where nothing is wrong."""
        if self.record is None:
            return None, None
        return find_blame(self.stage, lambda name: self.path(store, name).read_bytes())


def parse_stored(kind: type[_S], content: bytes) -> _S:
    """What a file of a result says. Raises: Damaged: it is not what a stage writes, although its digest is right."""
    try:
        return kind.model_validate_json(content)
    except ValidationError:
        raise Damaged(f"a stored file is not a {kind.__name__.lower()}: compute it again with --force") from None


def find_blame(stage: Stage, read: Callable[[str], bytes]) -> tuple[Blame | None, str | None]:
    """Who is to blame according to a stage's result, and why; none where nothing is wrong.

    read: the bytes of a file of the result.
    """
    if stage == "evaluate":
        evaluation = parse_stored(Evaluation, read("evaluation.json"))
        return evaluation.blame, evaluation.reason
    if stage == "export":
        for name, found in json.loads(read("card.json"))["read_back"].items():
            if found["problem"] is not None:
                return "export", f"the {name} file is not the trained model: {found['problem']}"
    return None, None
