"""Types for stored paths. Paths in a file are validated when it is parsed, even if the digest of the file is right."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import StringConstraints

from lntx.base.stages import STAGES, Stage

# The first versions of lntx ended a run name in hexadecimal digits.
_RUN = r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}"
_FOLDERS: dict[Stage, str] = {stage: "data" if stage == "generate" else f"artifacts/{stage}" for stage in STAGES}
_RESULT = rf"({'|'.join(_FOLDERS.values())})/[a-z0-9][a-z0-9_-]*-[0-9a-f]{{16}}\.[a-z0-9]+"
_RECORD = rf"artifacts/records/({'|'.join(STAGES)})/[0-9a-f]{{16}}-[0-9a-f]{{64}}\.json"
_SWEEP = r"artifacts/sweeps/[0-9a-f]{16}\.(jsonl|png)"
_REPORT = rf"artifacts/reports/{_RUN}\.(md|html)"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A digest or key, in hexadecimal."""

FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*\.[a-z0-9]+$")]
"""Name that a stage gives to a file of its result, such as "model.safetensors"."""

ResultPath = Annotated[str, StringConstraints(pattern=rf"^{_RESULT}$")]
"""Path of a file of a result, relative to the root."""

RunName = Annotated[str, StringConstraints(pattern=rf"^{_RUN}$")]
"""Name of a run: the time at which it ended."""

OwnPath = Annotated[
    str, StringConstraints(pattern=rf"^({_RESULT}|{_RECORD}|{_REPORT}|{_SWEEP}|artifacts/runs/{_RUN}\.json)$")
]
"""Path of any file that lntx names itself, relative to the root."""


def is_run_name(text: str) -> bool:
    """Return whether the text is a valid name of a run."""
    return re.fullmatch(_RUN, text) is not None


def is_record_name(text: str) -> bool:
    """Return whether the text is a valid name of a record file."""
    return re.fullmatch(_RECORD, f"artifacts/records/train/{text}") is not None


def folder_of(stage: Stage) -> str:
    """The folder of a stage's results, relative to the root."""
    return _FOLDERS[stage]


def result_path(stage: Stage, name: str, sha256: str) -> str:
    """Return the path of a file of a stage's result, relative to the root; it contains the start of the digest."""
    file = PurePosixPath(name)
    return f"{folder_of(stage)}/{file.stem}-{sha256[:16]}{file.suffix}"
