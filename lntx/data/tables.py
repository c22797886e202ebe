"""Read a table of the user (Parquet, CSV or a data frame) as a stream of validated float64 columns.

Knows file formats and the rules for columns; writes nothing but the dataset made from a table. Messages name file,
column, row and type, and never quote the content of a file.
"""

from __future__ import annotations

import decimal
import functools
import hashlib
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from lntx.config.schema import MAX_MAGNITUDE, Data
from lntx.data.dataset import write_dataset
from lntx.errors import BadInput
from lntx.files import open_regular, state_of
from lntx.text import MAX_NAME, listed, quoted, shown

SUFFIXES = {
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".csv": "CSV",
    ".csv.gz": "CSV",
    ".csv.bz2": "CSV",
    ".csv.zst": "CSV",
    ".csv.lz4": "CSV",
}
"""Allowed suffixes of a table, with their format."""

# Integers beyond this may not be representable in float64.
_EXACT = 2.0**53

# Integers with fewer digits are always exact in float64; no float64 integer has more digits than the maximum.
_CERTAIN_DIGITS, _MOST_DIGITS = 16, 400

_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"
_NULLS = pyarrow.csv.ConvertOptions().null_values


@dataclass(frozen=True, kw_only=True)
class Source:
    """The digest and state of a user's file at the time it was hashed."""

    path: Path
    """Path of the file."""

    sha256: str
    """Digest of its bytes."""

    state: tuple[int, ...]
    """Inode, size, modification time and change time (both in nanoseconds)."""


def look_at(path: str | os.PathLike[str]) -> Source:
    """Hash a user's file.

    Raises: BadInput: the file is missing, unreadable, empty, no regular file, or no table.
    """
    file = Path(path)
    kind_of(file)
    with _readable(file):
        state = tuple(state_of(file))
        sha256 = _sha256(file, state)
    if state[1] == 0:
        raise BadInput(f"{shown(file)} is empty")
    return Source(path=file, sha256=sha256, state=state)


def kind_of(path: Path) -> Literal["Parquet", "CSV"]:
    """Return the format of a table, by its suffix.

    Raises: BadInput: it has another suffix. Such a file is never opened, because it may be anything.
    """
    name = path.name.lower()
    for suffix, kind in SUFFIXES.items():
        if name.endswith(suffix):
            return "Parquet" if kind == "Parquet" else "CSV"
    raise BadInput(f"a table must end in {', '.join(SUFFIXES)}, got {quoted(path)}")


def wanted_columns(data: Data) -> tuple[str, ...]:
    """Return the features and, last, the target of the user's file; reads only the header.

    Raises: BadInput: a column is missing or occurs twice; there is no feature.
    """
    assert data.path is not None
    assert data.target is not None
    path = Path(data.path)
    names = column_names(path)
    features = data.features or tuple(name for name in names if name != data.target)
    wanted = (*features, data.target)
    _check_names(path, names, wanted)
    if not features:
        raise BadInput(f"{shown(path)} has no column beside the target {quoted(data.target, MAX_NAME)}")
    if data.polynomial is not None and len(features) > 1:
        raise BadInput(
            f"data.polynomial takes the powers of one feature, and {shown(path)} has {len(features)}: name it"
        )
    return wanted


def import_table(data: Data, source: Source, path: Path) -> str:
    """Copy the columns that `data` names from the user's file to a dataset.

    Returns: the digest of the dataset's file.

    Raises: BadInput: a column is missing, is not numeric, or has a null, NaN or infinity; the file changed meanwhile.
    """
    wanted = wanted_columns(data)
    blocks = (dict(zip(wanted, values, strict=True)) for values in _read(source.path, wanted))
    num_rows, sha256 = write_dataset(
        path,
        blocks,
        features=wanted[:-1],
        target=wanted[-1],
        types=dict.fromkeys(wanted, np.dtype(np.float64)),
        repetitive=frozenset(),
        degree=data.polynomial or 1,
    )
    if num_rows == 0:
        raise BadInput(f"{shown(source.path)} has no rows")
    with _readable(source.path):
        if tuple(state_of(source.path)) != source.state:
            raise BadInput(f"{shown(source.path)} changed while it was read: run again when it is complete")
    return sha256


def read_table(
    path: Path, columns: Sequence[str], *, typed: bool = False
) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """Read a table with all its columns.

    typed: convert purely numeric CSV columns to numbers, if the numbers are written back as the same text.

    Yields: the rows unchanged (as text for CSV), and the values of `columns`, float64, shape (n, len(columns)).

    Raises: BadInput: as `import_table`.
    """
    names = column_names(path)
    _check_names(path, names, columns)
    if kind_of(path) == "Parquet":
        with _readable(path):
            first_row = 1
            for batch in _parquet_batches(path, columns, names):
                values = [_values(batch.column(name), name, path, first_row) for name in columns]
                yield batch, np.stack(values, axis=1)
                first_row += batch.num_rows
        return
    types = _number_types(path, len(names)) if typed else {}
    places, first_row = [names.index(name) for name in columns], 1
    for texts in _text_batches(path, len(names)):
        values = [_parsed(texts[j], names[j], path, first_row) for j in places]
        arrays = [_typed(text, types[j]) if j in types else text for j, text in enumerate(texts)]
        yield pa.RecordBatch.from_arrays(arrays, names), np.stack(values, axis=1)
        first_row += len(texts[0])


def read_frame(frame: Any, columns: Sequence[str]) -> np.ndarray:
    """Return columns of a pandas data frame or pyarrow table by name, float64, shape (n, len(columns)).

    Raises: BadInput: as `import_table`.
    """
    where = "the data frame"
    is_arrow = hasattr(frame, "to_pydict")
    _check_names(where, [*(frame.schema.names if is_arrow else frame.columns)], columns)
    values = []
    for name in columns:
        try:
            column = frame.column(name) if is_arrow else pa.array(frame[name], from_pandas=True)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            raise BadInput(f"{where}: column {quoted(name, MAX_NAME)} does not hold numbers that float64 can") from None
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        _check_type(where, name, column.type)
        values.append(_values(column, name, where, 1))
    return np.stack(values, axis=1)


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns.

    Raises: BadInput: the file cannot be read as Parquet or CSV.
    """
    kind = kind_of(path)
    with _readable(path):
        if kind == "Parquet":
            return list(pq.read_schema(path).names)
        # No type conversion: only the header is needed.
        with pyarrow.csv.open_csv(path, **_csv_options()) as reader:
            return list(reader.schema.names)


def _read(path: Path, columns: Sequence[str]) -> Iterator[list[np.ndarray]]:
    """Yield the validated values of columns, block by block."""
    names = column_names(path)
    _check_names(path, names, columns)
    first_row = 1
    is_parquet = kind_of(path) == "Parquet"
    exact: set[str] = set()
    kept = list(columns)
    with _readable(path):
        for batch in _parquet_batches(path, columns, kept) if is_parquet else _csv_batches(path, columns):
            values = [_values(batch.column(name), name, path, first_row) for name in columns]
            if not is_parquet:
                for name, column in zip(columns, values, strict=True):
                    if name not in exact and np.abs(column).max(initial=0.0) >= _EXACT:
                        _refuse_rounded(path, name)
                        exact.add(name)
            yield values
            first_row += batch.num_rows


def _check_names(path: Path | str, names: Sequence[object], columns: Sequence[str]) -> None:
    for name in columns:
        if name not in names:
            raise BadInput(f"{shown(path)} has no column {quoted(name, MAX_NAME)}: it has {listed(names)}")
        if names.count(name) > 1:
            raise BadInput(f"{shown(path)} has {names.count(name)} columns named {quoted(name, MAX_NAME)}")


def _check_type(path: Path | str, name: str, kind: pa.DataType) -> None:
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise BadInput(
            f"{shown(path)}: column {quoted(name, MAX_NAME)} is not numeric but {shown(kind, MAX_NAME)}: "
            "choose columns with --features"
        )


def _parquet_batches(path: Path, columns: Sequence[str], kept: list[str]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path, memory_map=False) as file:
        for name in columns:
            _check_type(path, name, file.schema_arrow.field(name).type)
        yield from file.iter_batches(columns=kept, use_threads=False)


def _csv_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    options = _csv_options(include_columns=[*columns], column_types=dict.fromkeys(columns, pa.float64()))
    with pyarrow.csv.open_csv(path, **options) as reader:
        yield from reader


def _text_batches(path: Path, num_columns: int) -> Iterator[list[pa.Array]]:
    """Yield all columns as text, by position because names may occur twice. An empty value is empty text."""
    types = dict.fromkeys((f"f{j}" for j in range(num_columns)), pa.string())
    options = _csv_options(column_types=types, strings_can_be_null=False)
    options["read_options"].autogenerate_column_names = True
    with _readable(path), pyarrow.csv.open_csv(path, **options) as reader:
        for k, batch in enumerate(reader):
            # Skip the header: with generated names it is read as the first row.
            yield batch.slice(1).columns if k == 0 else batch.columns


def _csv_options(**convert: Any) -> dict[str, Any]:
    convert = {"strings_can_be_null": True, "quoted_strings_can_be_null": False, **convert}
    return {
        "read_options": pyarrow.csv.ReadOptions(use_threads=False),
        "convert_options": pyarrow.csv.ConvertOptions(**convert),
    }


def _parsed(text: pa.Array, name: str, path: Path, first_row: int) -> np.ndarray:
    """Convert the text of a CSV column to validated numbers."""
    trimmed = pc.utf8_trim_whitespace(text)
    filled = pc.if_else(pc.is_in(trimmed, pa.array(_NULLS)), None, trimmed)
    try:
        numbers = pc.cast(filled, pa.float64())
    except pa.ArrowInvalid:
        row = next(row for row, value in enumerate(filled.to_pylist(), first_row) if not _is_number(value))
        where = f"{shown(path)} cannot be read as CSV: column {quoted(name, MAX_NAME)}"
        raise BadInput(f"{where} in row {row}: it is not a number") from None
    values = _values(numbers, name, path, first_row)
    for j in np.flatnonzero(np.abs(values) >= _EXACT):
        if _is_rounded(trimmed[int(j)].as_py()):
            raise _rounded(path, name, first_row + int(j))
    return values


def _is_number(text: str | None) -> bool:
    try:
        return text is None or pc.cast(pa.scalar(text), pa.float64()) is not None
    except pa.ArrowInvalid:
        return False


def _number_types(path: Path, num_columns: int) -> dict[int, pa.DataType]:
    """Return the positions of purely numeric CSV columns, each with the type that is written back as the same text."""
    left: dict[int, pa.DataType] = dict.fromkeys(range(num_columns), pa.int64())
    for texts in _text_batches(path, num_columns):
        for j in [*left]:
            filled = texts[j].filter(pc.not_equal(texts[j], ""))
            if left[j] == pa.int64() and not _all_match(filled, _INTEGER):
                left[j] = pa.float64()
            if left[j] == pa.float64() and not all(map(_is_plain, filled.to_pylist())):
                del left[j]
    return left


def _is_plain(text: str) -> bool:
    """Return whether text is the standard notation of its float64 value."""
    try:
        return text in (repr(float(text)), repr(float(text)).removesuffix(".0")) and math.isfinite(float(text))
    except ValueError:
        return False


def _typed(text: pa.Array, kind: pa.DataType) -> pa.Array:
    # An empty value becomes null.
    return pc.cast(pc.if_else(pc.equal(text, ""), None, text), kind)


def _all_match(column: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(column, pattern), min_count=0).as_py())


def _refuse_rounded(path: Path, name: str) -> None:
    """Refuse integers of a CSV column that float64 would round."""
    row = 0
    options = _csv_options(include_columns=[name], column_types={name: pa.string()})
    with pyarrow.csv.open_csv(path, **options) as reader:
        for batch in reader:
            for text in batch.column(0).to_pylist():
                row += 1
                if text is not None and _is_rounded(text):
                    raise _rounded(path, name, row)


def _is_rounded(text: str) -> bool:
    """Return whether text is an integer, given to all digits, that float64 cannot hold; 1e23 gives only one digit."""
    if sum(sign.isdigit() for sign in text.lower().split("e")[0]) < _CERTAIN_DIGITS or len(text) > _MOST_DIGITS:
        return False
    try:
        exact = decimal.Decimal(text.strip())
        return exact == exact.to_integral_value() and decimal.Decimal(float(exact)) != exact
    except (decimal.InvalidOperation, OverflowError):
        return False


def _rounded(path: Path | str, name: str, row: int) -> BadInput:
    return BadInput(
        f"{shown(path)}: column {quoted(name, MAX_NAME)} has a whole number in row {row} that float64 cannot hold: "
        "subtract an offset, or leave the column out with --features"
    )


def _values(column: pa.Array, name: str, path: Path | str, first_row: int) -> np.ndarray:
    where = f"{shown(path)}: column {quoted(name, MAX_NAME)}"
    if column.null_count:
        row = first_row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise BadInput(f"{where} has no value in row {row}: fill it or drop the row")
    if pa.types.is_integer(column.type):
        whole = column.to_numpy(zero_copy_only=False)
        values: np.ndarray = whole.astype(np.float64)
        # Rounding to float64 can give 2^63 or 2^64, which overflow the integer type in the conversion back.
        inside = (values < 2.0**63) | ((whole.dtype.kind == "u") & (values < 2.0**64))
        same = np.zeros(len(values), dtype=bool)
        same[inside] = values[inside].astype(whole.dtype) == whole[inside]
        if not same.all():
            raise _rounded(path, name, first_row + int(np.flatnonzero(~same)[0]))
        return values
    if pa.types.is_decimal(column.type):
        for row, number in enumerate(column.to_pylist(), start=first_row):
            if abs(number) >= _EXACT and number == int(number) and int(float(number)) != int(number):
                raise _rounded(path, name, row)
        # pyarrow's cast of decimals is wrong in the last bits; its cast of text is exact.
        column = pc.cast(column, pa.string())
    values = pc.cast(column, pa.float64(), safe=True).to_numpy(zero_copy_only=False)
    finite = np.isfinite(values)
    if not finite.all():
        place = int(np.flatnonzero(~finite)[0])
        raise BadInput(f"{where} is {values[place]} in row {first_row + place}: values must be finite")
    if np.abs(values).max(initial=0.0) >= MAX_MAGNITUDE:
        place = int(np.abs(values).argmax())
        raise BadInput(
            f"{where} is {values[place]:g} in row {first_row + place}: "
            f"values must stay below {MAX_MAGNITUDE:g}: rescale it"
        )
    return values


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Refuse files that are not regular, and replace errors of the operating system and the parser by a short line."""
    try:
        with open_regular(path):
            pass
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise BadInput(f"{shown(path)} cannot be read as {kind_of(path)}{_place(error, path)}") from None
    except OSError as error:
        # pyarrow raises OSError without errno for a broken file.
        if error.errno is None:
            raise BadInput(f"{shown(path)} cannot be read as {kind_of(path)}: it is damaged") from None
        raise BadInput(f"{shown(path)} cannot be read: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        # A null byte in the name.
        raise BadInput(f"{shown(path)} is not a valid file name") from None


def _place(error: Exception, path: Path) -> str:
    """Return where a parser stopped and what it expected; never the text that it read."""
    said = str(error)
    found = re.search(r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to (\w+)", said)
    if found is not None:
        column, row, kind = found.groups()
        problem = "it is not UTF-8 text" if kind == "string" else "it is not a number"
        # The parser counts the header as row 1; messages count data rows from 1.
        place = f" in row {int(row) - 1}" if row else ""
        return f": column {_name_of(path, int(column))}{place}: {problem}"
    found = re.search(r"CSV parse error: (?:Row #(\d+): )?Expected (\d+) columns, got (\d+)", said)
    if found is not None:
        row, expected, got = found.groups()
        return f":{f' row {int(row) - 1}:' if row else ''} expected {expected} columns, got {got}"
    if isinstance(error, UnicodeDecodeError) or "UTF8" in said:
        return ": it is not UTF-8 text"
    return ": it is damaged, or of another format"


def _name_of(path: Path, column: int) -> str:
    """Return the name of a column for a message, or its number if the header cannot be read."""
    try:
        with pyarrow.csv.open_csv(path, **_csv_options()) as reader:
            return quoted(reader.schema.names[column], MAX_NAME)
    except (pa.ArrowException, OSError, UnicodeDecodeError, IndexError):
        return f"#{column + 1}"


# Cached, because every stage of a run asks; the state is part of the cache key, so that a changed file is read again.
@functools.lru_cache(maxsize=8)
def _sha256(path: Path, _state: tuple[int, ...]) -> str:
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
