"""Generate many rows in several files, and resume after an interruption.

A small dataset is one file. The rows themselves are drawn in `synthetic`.
"""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path

from lntx.base.files import read_json, sha256_of, sync
from lntx.base.progress import report_progress
from lntx.base.workers import map_in_order
from lntx.config.schema import Data
from lntx.data.dataset import block_rows
from lntx.data.synthetic import generate_dataset

logger = logging.getLogger(__name__)

_PART_NUMBERS = 2**25
"""Numbers per file: 256 MB, some seconds of work."""


def generate_parts(data: Data, folder: Path, resume: Path) -> dict[str, str]:
    """Write the rows to `dataset.parquet`, or to `dataset-00000.parquet` and so on.

    resume: folder with the finished files of an interrupted generation of the same rows, if any.

    Returns: the digest of each file, by name.
    """
    rows = part_rows(data)
    count = -(-data.num_rows // rows)
    names = ["dataset.parquet"] if count == 1 else [f"dataset-{k:05d}.parquet" for k in range(count)]
    if count == 1:
        return {names[0]: generate_dataset(data, folder / names[0])}
    work = functools.partial(_generate_part, data, rows, folder, resume)
    digests: dict[str, str] = {}
    for name, sha256 in zip(names, map_in_order(work, list(enumerate(names))), strict=True):
        digests[name] = sha256
        report_progress(min(len(digests) * rows, data.num_rows), data.num_rows, "rows")
    for name in names:
        (resume / name).replace(folder / name)
    return digests


def _generate_part(data: Data, rows: int, folder: Path, resume: Path, part: tuple[int, str]) -> str:
    """Return the digest of a file, which is written unless it was finished before."""
    k, name = part
    sha256 = _finished(resume / name)
    if sha256 is None:
        sha256 = generate_dataset(data, folder / name, first=k * rows, stop=(k + 1) * rows)
        _keep(folder / name, resume / name, sha256)
    else:
        logger.info("generate: %s was finished before the interruption", name)
    return sha256


def part_rows(data: Data) -> int:
    """Return the number of rows per file of a dataset: whole blocks, a power of two."""
    columns = len(data.true_weights or ()) + 1
    block = block_rows(columns)
    return max(block, 1 << ((_PART_NUMBERS // columns).bit_length() - 1))


def _keep(path: Path, destination: Path, sha256: str) -> None:
    """Move a finished file to the resume folder. Its digest is written first: a file without digest is ignored."""
    sync(path)
    note = destination.with_suffix(".json")
    note.write_text(json.dumps({"sha256": sha256}), encoding="utf-8")
    sync(note)
    path.replace(destination)
    sync(destination.parent)


def _finished(path: Path) -> str | None:
    """Return the digest of a file that an interrupted run finished; None if there is none or it is damaged."""
    try:
        sha256 = read_json(path.with_suffix(".json"))["sha256"]
        return sha256 if sha256_of(path) == sha256 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
