"""Where a command may write: never over what it reads or what the store has, and over other files only when told to."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lntx.errors import BadInput
from lntx.files import open_regular
from lntx.store.store import Store
from lntx.text import shown


def refuse_output(
    option: str, path: Path, store: Store, *, inputs: Iterable[Path] = (), earlier: bytes | None = None, force: bool
) -> None:
    """Refuse a place to write to before anything is computed.

    option: what messages call it. inputs: what the command reads. earlier: what a file begins with that the
    same command wrote before, and may replace. force: any other file may be replaced.

    Raises: BadInput: the place is a file that must stay, no regular file, or cannot be written.
    """
    said = f"{option} {shown(path)}"
    try:
        if _is_own(path, store):
            raise BadInput(f"{said} is among the files that lntx stores: choose another place")
        if path.exists() or path.is_symlink():
            if any(one.exists() and path.exists() and path.samefile(one) for one in inputs):
                raise BadInput(f"{said} is what is read: choose another place")
            if not (path.is_symlink() or stat.S_ISREG(path.stat().st_mode)):
                raise BadInput(f"{said} is not a regular file: choose another place")
            if not force and not _is_earlier(path, earlier):
                raise BadInput(f"{said} exists: choose another place, or replace it with --force")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise BadInput(f"{said} cannot be written: {error.strerror}") from None


def _is_earlier(path: Path, mark: bytes | None) -> bool:
    with open_regular(path) as stream:
        return mark is not None and stream.read(len(mark)) == mark


def _is_own(path: Path, store: Store) -> bool:
    place = path.resolve()
    artifacts, data = store.artifacts.resolve(), (store.root / "data").resolve()
    if place.is_relative_to(artifacts):
        # Pages about runs are for people: a new one may lie beside the others.
        inside = place.relative_to(artifacts).parts
        return (
            not inside
            or place.exists()
            or inside[0].startswith(".")
            or not (len(inside) == 1 or inside[0] == "reports")
        )
    if not place.exists() or not place.is_relative_to(data):
        return False
    name = f"data/{place.relative_to(data).as_posix()}"
    stored = {file.path for record in store.records("generate") for file in record.files}
    return name in stored or name in store.journal.known()
