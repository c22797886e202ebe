"""The names of the stages, and the selection of stages for a run. Does not know what stages do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from lntx.base.errors import BadInput
from lntx.base.text import suggest

Stage = Literal["generate", "train", "evaluate", "export"]
STAGES: tuple[Stage, ...] = get_args(Stage)

Blame = Literal["data", "reference", "training", "export"]
"""The parts that can be wrong."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which stages may be computed, and which must be computed even if stored."""

    stages: tuple[Stage, ...] = STAGES
    """Selected stages, in order. Earlier stages are read from the store, later ones are skipped."""

    forced: frozenset[Stage] = frozenset()
    """Selected stages to compute even if their result is stored."""


def select(
    *, from_stage: Stage | None = None, until: Stage | None = None, only: Stage | None = None, force: Iterable[str] = ()
) -> Selection:
    """Convert the four options to a selection.

    force: stages to compute again; "all" means every selected stage.

    Raises: BadInput: an unknown stage, an empty range, or a forced stage that is not selected.
    """
    for option, stage in (("from", from_stage), ("until", until), ("only", only)):
        if stage is not None and stage not in STAGES:
            raise BadInput(f"--{option} must be one of {', '.join(STAGES)}, got {stage!r}{suggest(stage, STAGES)}")
    if only is not None and (from_stage is not None or until is not None):
        raise BadInput(f"--only {only} cannot be combined with --from or --until")
    first = STAGES.index(only or from_stage or STAGES[0])
    last = STAGES.index(only or until or STAGES[-1])
    if first > last:
        raise BadInput(f"--from {from_stage} comes after --until {until}")
    stages = STAGES[first : last + 1]
    forced_stages = set(force)
    for name in sorted(forced_stages - {"all", *stages}):
        if name not in STAGES:
            raise BadInput(f"--force must name stages ({', '.join(STAGES)}), got {name!r}{suggest(name, STAGES)}")
        raise BadInput(f"--force {name}: the stage is not among those selected ({', '.join(stages)})")
    forced = stages if "all" in forced_stages else [stage for stage in stages if stage in forced_stages]
    return Selection(stages=stages, forced=frozenset(forced))
