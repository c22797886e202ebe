"""Records: what a stage's result is and what decided it, as JSON that ends in its own digest.

Knows the format; knows nothing of where records and files lie.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lntx.config import Section
from lntx.errors import LntxError
from lntx.identity import Identity, digest_of

RECORD_FORMAT = 1

# What reading JSON that is not a record runs into.
_NOT_A_RECORD = (ValidationError, UnicodeDecodeError, json.JSONDecodeError, LookupError, AttributeError, TypeError)


class Unreadable(Exception):
    """A record's file is not a record."""


class StoredFile(Section):
    """One file of a stage's result."""

    name: str
    """What the stage calls it, such as "model.safetensors"."""

    path: str
    """Where it is, relative to the root."""

    sha256: str
    """Digest of its bytes."""

    size: int
    """Its size in bytes."""


class Record(Section):
    """A stage's result: what decided it, and its files."""

    format: int = RECORD_FORMAT
    """Version of this layout."""

    key: str
    """Key of the identity."""

    identity: Identity
    """What decided the result."""

    files: tuple[StoredFile, ...]
    """The result."""

    created_at: float
    """Seconds since 1970 when it was published."""

    seconds: float
    """How long it took to compute."""

    environment: dict[str, Any]
    """Where it was computed; decides nothing."""

    quarantine: str | None = None
    """Why this result is never to be used again."""

    @property
    def content(self) -> str:
        """Digest of the files by name: equal results have equal ones."""
        return digest_of({file.name: file.sha256 for file in self.files})

    def file(self, name: str) -> StoredFile:
        """The file of that name."""
        return next(file for file in self.files if file.name == name)


def dump_record(record: Record) -> dict[str, Any]:
    """A record as JSON values, its digest last."""
    values = record.model_dump(mode="json")
    return {**values, "digest": digest_of(values)}


def read_record(path: Path) -> Record:
    """Read a record and check its digest.

    Raises: Unreadable: its bytes are not those of a record. LntxError: a newer lntx wrote it. FileNotFoundError.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        digest = values.pop("digest")
        if values["format"] > RECORD_FORMAT:
            raise LntxError(f"{path} was written by a newer lntx (format {values['format']}): upgrade lntx")
        if digest != digest_of(values):
            raise Unreadable("its bytes are not those that were written")
        return Record.model_validate(values)
    except _NOT_A_RECORD as error:
        raise Unreadable(f"it is not a record ({type(error).__name__})") from None
