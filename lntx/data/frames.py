"""Data frames of pandas, polars and pyarrow: converted to Arrow, and held for a run under the digest of their content.

A frame has no path: `frame:DIGEST` stands for it in the configuration, and only the process that holds it can read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from lntx.config.schema import FRAME
from lntx.errors import BadInput
from lntx.files import HashingWriter
from lntx.text import MAX_NAME, listed, quoted

_BATCH_ROWS = 2**16
_held: dict[str, list[pa.Table]] = {}


def is_frame(value: object) -> bool:
    """Return whether a value is a data frame, or another table that Arrow can read."""
    # Of the class: a lazy frame would be asked to plan its query.
    return hasattr(type(value), "columns") or hasattr(type(value), "__arrow_c_stream__")


def arrow_table(frame: Any) -> pa.Table:
    """Convert a data frame; its index is left out.

    Raises: BadInput: it is no table, a column mixes types that Arrow cannot hold, or two columns have one name.
    """
    if type(frame).__name__ == "LazyFrame":
        frame = frame.collect()
    try:
        if isinstance(frame, pa.Table):
            return frame
        if isinstance(frame, pa.RecordBatch):
            return pa.Table.from_batches([frame])
        if hasattr(frame, "to_arrow") and hasattr(frame, "columns"):
            table: pa.Table = frame.to_arrow()
            return table
        if hasattr(frame, "columns"):
            return _of_pandas(frame)
        return pa.table(frame)
    except (pa.ArrowException, UnicodeError, TypeError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        kind = type(frame).__name__
        raise BadInput(
            f"the {kind} is no table that Arrow can hold ({type(error).__name__}): give a data frame"
        ) from None


def _of_pandas(frame: Any) -> pa.Table:
    names = [str(name) for name in frame.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"the data frame has two columns named {listed(twice)}")
    return pa.table({name: _array(frame[column], name) for name, column in zip(names, frame.columns, strict=True)})


@contextmanager
def held(frame: Any) -> Iterator[str]:
    """Hold a data frame while this runs; yields the path that stands for it."""
    table = arrow_table(frame)
    path = FRAME + _digest(table)
    # A list, because threads may hold one frame at once.
    _held.setdefault(path, []).append(table)
    try:
        yield path
    finally:
        _held[path].pop()


def frame_of(path: str) -> pa.Table:
    """Return the data frame that a path stands for.

    Raises: BadInput: this process does not hold it.
    """
    if not _held.get(path):
        raise BadInput(
            "the rows were a data frame, which is not stored: call lntx.fit with it again to compute them again"
        )
    return _held[path][-1]


def _array(column: Any, name: str) -> pa.Array:
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        raise BadInput(
            f"the data frame: column {quoted(name, MAX_NAME)} does not hold numbers that float64 can: convert it to "
            "one type"
        ) from None


def _digest(table: pa.Table) -> str:
    """sha256 of the names, types and values."""
    # In batches of one size: chunks are not part of the content. Without metadata, which has pandas' version.
    plain = table.replace_schema_metadata(None).combine_chunks()
    with Path(os.devnull).open("wb") as nowhere:
        hashing = HashingWriter(nowhere)
        with pa.ipc.new_stream(hashing, plain.schema) as writer:
            for batch in plain.to_batches(max_chunksize=_BATCH_ROWS):
                writer.write_batch(batch)
    return hashing.sha256
