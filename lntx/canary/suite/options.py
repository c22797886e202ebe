"""The options of a canary. Importing this module loads neither numpy nor torch."""

from __future__ import annotations

import secrets
from typing import Any, Literal

from pydantic import Field, ValidationError

from lntx.base.errors import BadInput
from lntx.config.loading import explain
from lntx.config.schema import MAX_SEED, Section

Level = Literal[1, 2, 3]
"""Amount of testing: about a second, half a minute, or minutes."""

Device = Literal["auto", "cpu", "cuda"]
"""Where to train; auto is the CPU."""


class CanaryOptions(Section):
    """The options of a canary."""

    deep: bool = False
    """Whether every operator of a training step is checked, in place of whole trainings."""

    level: Level = 1
    """Amount of testing: 1, one case, a second; 2, several shapes, dtypes, thread counts and formats, half a minute;
    3, also as many rows as a quarter of the free memory holds, minutes. A deep canary has no levels."""

    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    """Seed of the blind cases; None for the fixed cases."""

    repeat: int = Field(1, ge=1, le=100_000)
    """Number of repetitions."""

    device: Device = "auto"
    """Where to train; auto is the CPU."""

    compiled: bool = False
    """Whether a deep canary checks code of torch.compile, too."""

    processes: bool = False
    """Whether a deep canary checks training in two processes, too."""

    inject: str | None = None
    """Name of a fault to plant."""


def settle_options(*, blind: bool = False, **values: Any) -> CanaryOptions:
    """Return the options; a blind canary without a seed gets a random one. values: fields of `CanaryOptions`.

    Raises: BadInput: a value is out of range, or two options contradict each other.
    """
    if blind and values.get("seed") is None:
        values["seed"] = secrets.randbelow(2**63)
    try:
        options = CanaryOptions(**values)
    except ValidationError as error:
        raise BadInput(*explain(error, name=lambda key: f"--{key}")) from None
    if not options.deep and (options.compiled or options.processes):
        raise BadInput(f"--{'compiled' if options.compiled else 'processes'} belongs to --deep: add it")
    if options.deep and options.level != 1:
        raise BadInput(f"--deep has no levels: drop --level {options.level}")
    if options.inject is not None and options.repeat != 1:
        raise BadInput(f"--inject plants one fault in one case: drop --repeat {options.repeat}")
    return options
