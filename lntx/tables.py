"""A user's own table, Parquet or CSV, read as a stream of checked float64 columns.

Knows file formats and what makes a column unusable; writes nothing but the dataset made from a table.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from lntx.config import MAX_MAGNITUDE, Data
from lntx.dataset import write_dataset
from lntx.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Source:
    """A user's file as it was when it was looked at."""

    path: Path
    """The file."""

    sha256: str
    """Digest of its bytes."""

    state: tuple[int, int, int, int]
    """Inode, size, and times of modification and of change, in nanoseconds."""


def look_at(path: str | os.PathLike[str]) -> Source:
    """Hash a user's file.

    Raises: BadInput: missing, unreadable or empty.
    """
    file = Path(path)
    with _readable(file):
        state = _state(file)
        sha256 = _sha256(file, state)
    if state[1] == 0:
        raise BadInput(f"{file} is empty")
    return Source(path=file, sha256=sha256, state=state)


def import_table(data: Data, source: Source, path: Path) -> str:
    """Copy the columns that `data` names from the user's file to a dataset.

    Returns: the digest of the dataset's file.

    Raises: BadInput: a column is missing, not numeric, has a null, NaN or infinity, or the file changed meanwhile.
    """
    assert data.target is not None
    names = column_names(source.path)
    features = data.features or tuple(name for name in names if name != data.target)
    if not features:
        raise BadInput(f"{source.path} has no column beside the target {data.target!r}")
    if data.polynomial is not None and len(features) > 1:
        raise BadInput(
            f"data.polynomial takes the powers of one feature, and {source.path} has {len(features)}: name it"
        )
    wanted = (*features, data.target)
    blocks = (dict(zip(wanted, values, strict=True)) for _, values in _read(source.path, wanted, others=False))
    num_rows, sha256 = write_dataset(
        path,
        blocks,
        features=features,
        target=data.target,
        types=dict.fromkeys(wanted, np.dtype(np.float64)),
        repetitive=frozenset(),
        origin={"kind": "file", "sha256": source.sha256},
        degree=data.polynomial or 1,
    )
    if num_rows == 0:
        raise BadInput(f"{source.path} has no rows")
    with _readable(source.path):
        if _state(source.path) != source.state:
            raise BadInput(f"{source.path} changed while it was read: run again when it is complete")
    return sha256


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """Read a table with all its columns.

    Yields: rows as they are, and the values of `columns`, float64, shape (n, len(columns)).

    Raises: BadInput: as `import_table`.
    """
    for batch, values in _read(path, columns, others=True):
        yield batch, np.stack(values, axis=1)


def column_names(path: Path) -> list[str]:
    """Names of a table's columns.

    Raises: BadInput: the file cannot be read as Parquet or CSV.
    """
    with _readable(path):
        if _is_parquet(path):
            return list(pq.read_schema(path).names)
        with pyarrow.csv.open_csv(path, read_options=pyarrow.csv.ReadOptions(use_threads=False)) as reader:
            return list(reader.schema.names)


def _read(path: Path, columns: Sequence[str], *, others: bool) -> Iterator[tuple[pa.RecordBatch, list[np.ndarray]]]:
    """Rows and the checked values of `columns`; the rows hold the other columns too if asked."""
    names = column_names(path)
    for name in columns:
        if name not in names:
            raise BadInput(f"{path} has no column {name!r}: it has {', '.join(map(repr, names))}")
        if names.count(name) > 1:
            raise BadInput(f"{path} has {names.count(name)} columns named {name!r}")
    first_row = 1
    kept = names if others else list(columns)
    with _readable(path):
        for batch in _parquet_batches(path, columns, kept) if _is_parquet(path) else _csv_batches(path, columns, kept):
            yield batch, [_values(batch.column(name), name, path, first_row) for name in columns]
            first_row += batch.num_rows


def _parquet_batches(path: Path, columns: Sequence[str], kept: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path, memory_map=False) as file:
        for name in columns:
            kind = file.schema_arrow.field(name).type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
                raise BadInput(f"{path}: column {name!r} is not numeric but {kind}: choose columns with --features")
        yield from file.iter_batches(columns=kept, use_threads=False)


def _csv_batches(path: Path, columns: Sequence[str], kept: list[str]) -> Iterator[pa.RecordBatch]:
    # Columns that are only passed through stay text: 007 is not 7.
    types = {**dict.fromkeys(kept, pa.string()), **dict.fromkeys(columns, pa.float64())}
    convert = pyarrow.csv.ConvertOptions(
        include_columns=kept, column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    read = pyarrow.csv.ReadOptions(use_threads=False)
    with pyarrow.csv.open_csv(path, read_options=read, convert_options=convert) as reader:
        yield from reader


def _values(column: pa.Array, name: str, path: Path, first_row: int) -> np.ndarray:
    if column.null_count:
        row = first_row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise BadInput(f"{path}: column {name!r} has no value in row {row}: fill it or drop the row")
    if pa.types.is_decimal(column.type):
        # pyarrow's own cast of decimals is off in the last bits; that of text is exact.
        column = pc.cast(column, pa.string())
    values: np.ndarray = pc.cast(column, pa.float64(), safe=True).to_numpy(zero_copy_only=False)
    finite = np.isfinite(values)
    if not finite.all():
        place = int(np.flatnonzero(~finite)[0])
        raise BadInput(f"{path}: column {name!r} is {values[place]} in row {first_row + place}: values must be finite")
    if np.abs(values).max(initial=0.0) >= MAX_MAGNITUDE:
        place = int(np.abs(values).argmax())
        raise BadInput(
            f"{path}: column {name!r} is {values[place]:g} in row {first_row + place}: "
            f"values must stay below {MAX_MAGNITUDE:g}: rescale it"
        )
    return values


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what the operating system and the parser say into one line about the file."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:
        kind = "Parquet" if _is_parquet(path) else "CSV"
        raise BadInput(f"{path} cannot be read as {kind}: {_said(error, path)}") from None
    except OSError as error:
        # pyarrow raises OSError without errno for a broken file.
        said = error.strerror or str(error).splitlines()[0]
        raise BadInput(f"{path} cannot be read: {said}") from None


def _said(error: Exception, path: Path) -> str:
    """A parser's words, with the column by its name."""
    said = str(error).splitlines()[0].rstrip(".")
    found = re.match(r"In CSV column #(\d+): (?:Row #(\d+): )?(.*)", said)
    if found is None:
        return said
    column, row, problem = found.groups()
    with path.open("rb") as stream:
        header = stream.readline().decode("utf-8-sig", errors="replace").strip()
    names = next(csv.reader([header]), [])
    name = repr(names[int(column)]) if int(column) < len(names) else f"#{column}"
    # The header is row 1 of the file, and the data begin with row 1 of theirs.
    place = f" in row {int(row) - 1}" if row else ""
    return f"column {name}{place}: {problem}"


def _is_parquet(path: Path) -> bool:
    if path.suffix.lower() in (".parquet", ".pq"):
        return True
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


# Every stage of a run asks; the state is part of the question, so a changed file is read again.
@functools.lru_cache(maxsize=8)
def _sha256(path: Path, _state: tuple[int, int, int, int]) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _state(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
