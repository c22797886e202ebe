"""Findings: what is wrong, which part is blamed, and what to check."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import PurePath

from lntx.base.stages import Blame

_LOOK_AT: dict[Blame, str] = {
    "data": "look at pyarrow, numpy, the disk and the file system",
    "reference": "look at numpy and its BLAS",
    "training": "look at torch, its optimizer, the device and its driver",
    "export": "look at safetensors, torch.export and the disk",
}

_WANTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A problem and the part that is blamed."""

    blame: Blame
    """The part that is blamed."""

    reason: str
    """The problem, and what to check."""


def finding(blame: Blame, problem: str) -> Finding:
    """Return a finding that also says what to check. problem: what is wrong, as a clause."""
    return Finding(blame=blame, reason=f"{problem}: {_LOOK_AT[blame]}")


def blame_of_file(path: str) -> Blame:
    """Return the part that is blamed for a stored file that is missing or altered."""
    name, folder = PurePath(path).name, PurePath(path).parent.name
    # Weights and exports are for the user; all other files are read by the next stage.
    return "export" if folder == "export" or name.startswith("model") else "data"


def is_want(error: BaseException) -> bool:
    """Whether the machine caused an error (memory, disk space, permission), so that it proves nothing wrong."""
    if isinstance(error, OSError):
        return error.errno in _WANTS
    # torch's CPU allocator has no exception class for this: only the message shows it.
    message = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in message
        or "out of memory" in message
    )


def in_words(error: BaseException) -> str:
    """Return an error as one line of text."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
