"""Where stored things lie, as types: what a file says of a path is checked where it is parsed, whatever its digest."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import StringConstraints

from lntx.stages import Stage

# The first versions ended a name in hexadecimal digits.
_RUN = r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}"
_RESULT = r"(data|artifacts/(train|evaluate|export))/[a-z0-9][a-z0-9_-]*-[0-9a-f]{16}\.[a-z0-9]+"
_RECORD = r"artifacts/records/(generate|train|evaluate|export)/[0-9a-f]{16}-[0-9a-f]{64}\.json"
_SWEEP = r"artifacts/sweeps/[0-9a-f]{16}\.(jsonl|png)"
_REPORT = rf"artifacts/reports/{_RUN}\.(md|html)"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A digest, or a key, in hexadecimal."""

FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*\.[a-z0-9]+$")]
"""What a stage calls a file of its result, such as "model.safetensors"."""

ResultPath = Annotated[str, StringConstraints(pattern=rf"^{_RESULT}$")]
"""Where a file of a result lies, relative to the root."""

RunName = Annotated[str, StringConstraints(pattern=rf"^{_RUN}$")]
"""Name of a run: when it ended."""

OwnPath = Annotated[
    str, StringConstraints(pattern=rf"^({_RESULT}|{_RECORD}|{_REPORT}|{_SWEEP}|artifacts/runs/{_RUN}\.json)$")
]
"""Where anything that the store writes under a name of its own lies, relative to the root."""


def is_run_name(text: str) -> bool:
    """Whether a run may be called so."""
    return re.fullmatch(_RUN, text) is not None


def is_record_name(text: str) -> bool:
    """Whether the file of a record may be called so."""
    return re.fullmatch(_RECORD, f"artifacts/records/train/{text}") is not None


def folder_of(stage: Stage) -> str:
    """The folder of a stage's results, relative to the root."""
    return "data" if stage == "generate" else f"artifacts/{stage}"


def result_path(stage: Stage, name: str, sha256: str) -> str:
    """Where a file of a stage's result lies, relative to the root: content decides."""
    file = PurePosixPath(name)
    return f"{folder_of(stage)}/{file.stem}-{sha256[:16]}{file.suffix}"
