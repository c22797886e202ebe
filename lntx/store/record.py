"""Records: a stage's result and what determined it, as JSON that ends in its own digest.

Knows the format, not where records and files are stored.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from lntx.base.errors import Damaged
from lntx.config.schema import FRAME, Section
from lntx.store.key import Identity, digest_of
from lntx.store.places import FileName, ResultPath, Sha256, result_path
from lntx.store.sealed import DamagedFile, read_sealed

RECORD_FORMAT = 1


class StoredFile(Section):
    """One file of a stage's result."""

    name: FileName
    """Name that the stage gives to it, such as "model.safetensors"."""

    path: ResultPath
    """Its path, relative to the root."""

    sha256: Sha256
    """Digest of its bytes."""

    size: int = Field(ge=0)
    """Its size in bytes."""


class Record(Section):
    """A stage's result: what determined it, and its files."""

    format: int = RECORD_FORMAT
    """Version of the record format."""

    key: Sha256
    """Key of the identity."""

    identity: Identity
    """What determined the result."""

    files: tuple[StoredFile, ...] = Field(min_length=1)
    """The files of the result."""

    created_at: float
    """Time of publication, in seconds since 1970."""

    seconds: float
    """Duration of the computation, in seconds."""

    environment: dict[str, str | None]
    """Where it was computed; not part of the key."""

    quarantine: str | None = None
    """Why this result must never be used again; None if it may be used."""

    @model_validator(mode="after")
    def _check(self) -> Record:
        if self.key != self.identity.key:
            raise ValueError("the key is not that of the identity")
        if any(file.path != result_path(self.identity.stage, file.name, file.sha256) for file in self.files):
            raise ValueError("a file lies where its content does not belong")
        return self

    @property
    def content(self) -> str:
        """Digest of the names and digests of the files; equal for equal results."""
        return digest_of({file.name: file.sha256 for file in self.files})

    @property
    def is_of_frame(self) -> bool:
        """Whether the result is the rows of a data frame, which only a call with it can compute again."""
        source = str(self.identity.config.get("data.sha256"))
        return self.identity.stage == "generate" and source.startswith(FRAME)

    def file(self, name: str) -> StoredFile:
        """Return the file of that name. Raises: Damaged: there is none."""
        for file in self.files:
            if file.name == name:
                return file
        raise Damaged(f"the record {self.key[:12]} of {self.identity.stage} names no {name}: --force computes it again")


def read_record(path: Path) -> Record:
    """Read a record and check its digest, its key, its name and every path in it.

    Raises: as `read_sealed`.
    """
    record = read_sealed(path, Record, version=RECORD_FORMAT)
    if path.name != record_name(record.identity) or path.parent.name != record.identity.stage:
        raise DamagedFile("it is the record of another result")
    return record


def record_name(identity: Identity) -> str:
    """Return the file name of a record."""
    # Records that differ only in their inputs share a prefix: they are found without reading a long history.
    return f"{identity.own[:16]}-{identity.key}.json"
