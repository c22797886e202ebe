"""Data frames of pandas, polars and pyarrow: converted to Arrow, and held for a run under the digest of their content.

A frame has no path: `frame:DIGEST` stands for it in the configuration, and only the process that holds it can read it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lntx.base.errors import BadInput
from lntx.base.files import HashingWriter
from lntx.base.text import MAX_NAME, listed, quoted
from lntx.config.schema import FRAME

_BATCH_ROWS = 2**16
_held: dict[str, list[pa.Table]] = {}


def is_frame(value: object) -> bool:
    """Return whether a value is a data frame, or another table that Arrow can read."""
    # Of the class: a lazy frame would be asked to plan its query.
    return hasattr(type(value), "columns") or hasattr(type(value), "__arrow_c_stream__")


def arrow_table(frame: Any, used: Callable[[str], bool] = lambda _name: True) -> pa.Table:
    """Convert the columns of a data frame that are used; its index is left out, and all other columns have no value.
    A column of several types becomes text.

    Raises: BadInput: it is no table, or a column is of a type that Arrow cannot hold.
    """
    if type(frame).__name__ == "LazyFrame":
        frame = frame.collect()
    try:
        if hasattr(frame, "to_arrow") and hasattr(frame, "columns"):
            part: pa.Table = frame.select([name for name in frame.columns if used(name)]).to_arrow()
            columns = dict(zip(part.column_names, part.columns, strict=True))
            arrays = [columns.get(name, pa.nulls(len(frame))) for name in frame.columns]
            return pa.Table.from_arrays(arrays, names=list(frame.columns))
        if hasattr(frame, "columns") and not isinstance(frame, (pa.Table, pa.RecordBatch)):
            return _of_pandas(frame, used)
        table = pa.Table.from_batches([frame]) if isinstance(frame, pa.RecordBatch) else pa.table(frame)
        for j, name in enumerate(table.column_names):
            if not used(name):
                table = table.set_column(j, pa.field(name, pa.null()), pa.nulls(len(table)))
        return table
    except (pa.ArrowException, UnicodeError, TypeError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        kind = type(frame).__name__
        raise BadInput(
            f"the {kind} is no table that Arrow can hold ({type(error).__name__}): give a data frame"
        ) from None


def _of_pandas(frame: Any, used: Callable[[str], bool]) -> pa.Table:
    names = [str(name) for name in frame.columns]
    columns = (frame.iloc[:, j] if hasattr(frame, "iloc") else frame[name] for j, name in enumerate(frame.columns))
    arrays = [
        _array(column, name) if used(name) else pa.nulls(len(frame))
        for name, column in zip(names, columns, strict=True)
    ]
    return pa.Table.from_arrays(arrays, names=names)


def with_target(table: Any, target: Any) -> tuple[Any, str]:
    """Return a table that holds its target, and the name of that column.

    table: a data frame, an array of features, shape (num_rows, num_features), or a path. target: the name of a column,
    or the values of one, shape (num_rows,).

    Raises: BadInput: the two do not say what to predict from what.
    """
    # A path can hold the sign too, as in ~/rows.csv.
    if isinstance(table, str) and not isinstance(target, str) and re.search(r"\w\s*~", table):
        raise BadInput(
            f"fit takes no formula, got {quoted(table, MAX_NAME)}: fit(frame, target=COLUMN, features=[COLUMN])"
        )
    if target is None:
        names = [str(name) for name in getattr(table, "columns", ())]
        known = f", one of {listed(names)}" if names and not callable(names[0]) else ""
        raise BadInput(f"name the column to predict: target=COLUMN{known}")
    if isinstance(target, str):
        return table, target
    table = table if is_frame(table) or isinstance(table, (str, os.PathLike)) else _as_array(table)
    values = _as_array(target)
    if not (is_frame(table) or isinstance(table, np.ndarray)) or values.ndim != 1:
        raise BadInput(f"target is the name of a column, or its values, got {type(target).__name__}")
    if isinstance(table, np.ndarray):
        if table.ndim != 2:
            raise BadInput(f"features are an array of two axes, rows and columns, got {table.ndim}")
        table = pd.DataFrame(table, columns=[f"x{j}" for j in range(1, table.shape[1] + 1)])
    elif hasattr(table, "index") and hasattr(target, "index") and hasattr(target, "dtype"):
        if not table.index.equals(target.index):
            raise BadInput(
                "the index of target is not that of the table: give target.loc[table.index], or target.to_numpy() to "
                "take the rows as they come"
            )
        table = table.copy(deep=False)
    else:
        table = table.copy(deep=False) if isinstance(table, pd.DataFrame) else arrow_table(table).to_pandas()
    if len(values) != len(table):
        raise BadInput(f"target has {len(values):,} values, and the table {len(table):,} rows")
    name = str(getattr(target, "name", None) or "y")
    if name in table.columns and not (
        [*table.columns].count(name) == 1 and pd.Series(np.asarray(values)).equals(pd.Series(table[name].to_numpy()))
    ):
        raise BadInput(f"target is called {quoted(name, MAX_NAME)}, as another column of the table is: rename it")
    table[name] = target.array if isinstance(target, pd.Series) else values
    return table, name


def _as_array(values: Any) -> np.ndarray:
    """Return a tensor, or an array of another kind, as an array of numpy that pandas and Arrow take."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.float64), np.nan)
    array = np.asarray(values)
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("=")) if array.dtype.kind in "iu" else array


@contextmanager
def held(frame: Any, used: Callable[[str], bool] = lambda _name: True) -> Iterator[str]:
    """Hold the columns of a data frame that are used while this runs; yields the path that stands for it."""
    table = arrow_table(frame, used)
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
    kind: Any = getattr(column, "dtype", None)
    if hasattr(kind, "subtype") and hasattr(column, "sparse"):
        column = column.sparse.to_dense()
    elif getattr(kind, "byteorder", "=") not in ("=", "|"):
        column = column.astype(kind.newbyteorder("="))
    try:
        return pa.array(column, from_pandas=True)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        values = column.tolist() if str(kind) == "object" else []
        are_plain = all(isinstance(value, (str, int, float, Decimal, type(None))) for value in values)
        if not are_plain or not any(isinstance(value, str) for value in values):
            raise BadInput(
                f"the data frame: column {quoted(name, MAX_NAME)} does not hold numbers that float64 can: convert it, "
                "or leave it out",
                advice={"data.exclude": [name]},
            ) from None
        gaps = [value is None or value != value for value in values]  # noqa: PLR0124 (NaN)
        return pa.array([None if gap else str(value) for value, gap in zip(values, gaps, strict=True)], pa.string())


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
