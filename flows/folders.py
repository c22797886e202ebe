"""Restrict the folders that flows of `lntx up` read tables from: anyone who can start a run chooses `data.path`."""

from __future__ import annotations

import glob
import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path

from lntx.base.errors import BadInput
from lntx.base.text import for_message
from lntx.config.schema import Data

_VARIABLE = "LNTX_SERVED_FOLDERS"


def served_folders(folders: Iterable[str | Path]) -> dict[str, str]:
    """Return the variable that lists what a flow run may read: folders with all their contents, or single files."""
    return {_VARIABLE: json.dumps([str(folder) for folder in folders])}


def refuse_other_folders(data: Data) -> None:
    """Refuse a table elsewhere, in a run that `lntx up` serves; links count by where they lead.

    Raises: BadInput.
    """
    if data.path is None or _VARIABLE not in os.environ:
        return
    if "\0" in data.path:
        raise BadInput("data.path holds a zero byte, and no file has such a name")
    root = Path(os.environ.get("LNTX_ROOT") or ".").resolve()
    private = [root / "artifacts" / name for name in (".server", ".prefect")]
    allowed = [Path(folder).resolve() for folder in json.loads(os.environ[_VARIABLE])]

    def is_inside(path: Path) -> bool:
        place = path.resolve()
        # The folders of the server hold its password.
        return any(map(place.is_relative_to, allowed)) and not any(map(place.is_relative_to, private))

    from lntx.data.tables import files_of

    # The folder of a glob is asked before it is listed, and each file that is found: it may be a link.
    parts = Path(data.path).parts
    fixed = [*itertools.takewhile(lambda part: not glob.has_magic(part), parts)]
    climbs = ".." in parts[len(fixed) :]
    if climbs or not (is_inside(Path(*fixed)) and all(map(is_inside, files_of(data.path)))):
        raise BadInput(
            f"data.path {for_message(data.path)} is outside the folders that this server reads tables from: put the "
            "table under its root, or start it with lntx up --allow-folder FOLDER"
        )
