"""What is found wrong, with what, and what to look at."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import PurePath

from lntx.stages import Blame

_LOOK_AT: dict[Blame, str] = {
    "data": "look at pyarrow, numpy, the disk and the file system",
    "reference": "look at numpy and its BLAS",
    "training": "look at torch, its optimizer, the device and its driver",
    "export": "look at safetensors, torch.export and the disk",
}

_WANTS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong, and with what."""

    blame: Blame
    """The part."""

    reason: str
    """Why, and what to look at."""


def finding(blame: Blame, problem: str) -> Finding:
    """A finding that says what to look at. problem: what is wrong, as a clause."""
    return Finding(blame=blame, reason=f"{problem}: {_LOOK_AT[blame]}")


def blame_of_file(path: str) -> Blame:
    """The part that is blamed for a stored file that is gone, or not as it was."""
    name, folder = PurePath(path).name, PurePath(path).parent.name
    # Weights and what is exported are what a user takes away; all else is what the next stage reads.
    return "export" if folder == "export" or name.startswith("model") else "data"


def is_want(error: BaseException) -> bool:
    """Whether it is the machine's trouble (memory, room, permission) and says nothing of the answer."""
    if isinstance(error, OSError):
        return error.errno in _WANTS
    # torch says so in words: its CPU allocator has no error of its own.
    said = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in said
        or "out of memory" in said
    )


def in_words(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
