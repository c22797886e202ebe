"""Check output paths: a command never overwrites its inputs or stored files, and other files only with --force."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.options import Common
from lntx.base.errors import BadInput
from lntx.base.files import open_regular
from lntx.base.text import for_message
from lntx.store.store import Store

if TYPE_CHECKING:
    from lntx.canary.suite.results import Canary
    from lntx.cluster.nodes import NodesReport
    from lntx.runs.run import Run

METRICS_BEGIN = b"# HELP lntx_version_info "
"""What a file of metrics begins with."""


def refuse_output(
    option: str, path: Path, store: Store, *, inputs: Iterable[Path] = (), earlier: bytes | None = None, force: bool
) -> None:
    """Refuse an unsuitable output path before anything is computed.

    option: its name in messages. inputs: files that the command reads. earlier: first bytes of a file that the
    same command wrote before and may replace. force: any other file may be replaced.

    Raises: BadInput: the path is a file that must be kept, is not a regular file, or cannot be written.
    """
    subject = f"{option} {for_message(path)}"
    try:
        if _is_own(path, store):
            raise BadInput(f"{subject} is among the files that lntx stores: choose another place")
        if path.exists() or path.is_symlink():
            if any(source.exists() and path.exists() and path.samefile(source) for source in inputs):
                raise BadInput(f"{subject} is what is read: choose another place")
            if not (path.is_symlink() or stat.S_ISREG(path.stat().st_mode)):
                raise BadInput(f"{subject} is not a regular file: choose another place")
            if not force and not _is_earlier(path, earlier):
                raise BadInput(f"{subject} exists: choose another place, or replace it with --force")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise BadInput(f"{subject} cannot be written: {error.strerror}") from None


def refuse_metrics(path: Path | None, common: Common) -> None:
    """Refuse an unsuitable path of a file of metrics; an earlier one is replaced. Raises: BadInput."""
    if path is None:
        return
    if path.suffix != ".prom":
        raise BadInput(f"--prom {for_message(path)} must end in .prom: node_exporter reads no other file")
    if path.is_file() and path.stat().st_size and not _is_earlier(path, METRICS_BEGIN):
        raise BadInput(f"--prom {for_message(path)} is no file of metrics of lntx: remove it, or choose another")
    refuse_output("--prom", path, Store(common.folder), force=True)


def write_metrics(result: Run | Canary | NodesReport, path: Path | None) -> None:
    """Write the file of metrics of a result, if one was asked for."""
    if path is not None:
        # Imported here: few runs need it.
        from lntx.metrics import write_metrics as write

        write(result, path)


def _is_earlier(path: Path, mark: bytes | None) -> bool:
    with open_regular(path) as stream:
        return mark is not None and stream.read(len(mark)) == mark


def _is_own(path: Path, store: Store) -> bool:
    place = path.resolve()
    artifacts, data = store.artifacts.resolve(), (store.root / "data").resolve()
    if place.is_relative_to(artifacts):
        # Reports are for people: a new one may be written next to the others.
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
