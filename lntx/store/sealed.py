"""Sealed files: JSON that ends in its own digest, with the number of its format. Knows no kind of file.

One rule for all: what is damaged may be set aside; what a newer version wrote is refused and stays. A file is newer if
it has a higher format, or more keys and the right digest. It is damaged if its digest is wrong, or its values are none
that lntx writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from lntx.base.errors import LntxError
from lntx.base.files import read_json, write_json
from lntx.config.schema import Section
from lntx.store.key import digest_of

S = TypeVar("S", bound=Section)


class DamagedFile(Exception):
    """The bytes of a file are not those that were written."""


class OtherVersion(LntxError):
    """Another version of lntx wrote a file that this one cannot read."""


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Atomically write a file. values: of a model, with the number of its format as `format`."""
    write_json(path, {**values, "digest": digest_of(values)})


def read_sealed(path: Path, model: type[S], *, version: int) -> S:
    """Read a file.

    version: the number of the format that this lntx writes.

    Raises: DamagedFile: it is not as it was written. OtherVersion. FileNotFoundError, PermissionError.
    """
    try:
        values = read_json(path)
        digest = values.pop("digest")
        is_whole = digest == digest_of(values)
        written = int(values["format"])
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise DamagedFile(f"it cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise DamagedFile(f"it is not a file of lntx ({type(error).__name__})") from None
    if written > version:
        raise OtherVersion(f"{path} was written by a newer lntx (format {written}): upgrade lntx")
    if not is_whole:
        raise DamagedFile("its bytes are not those that were written")
    try:
        return model.model_validate(values if "format" in model.model_fields else _without_format(values))
    except ValidationError as error:
        if all(problem["type"] == "extra_forbidden" for problem in error.errors()):
            raise OtherVersion(f"{path} was written by a newer lntx (it has more keys): upgrade lntx") from None
        raise DamagedFile("no lntx writes such values") from None


def _without_format(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "format"}
