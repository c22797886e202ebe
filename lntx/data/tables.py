"""Open a table of the user (Parquet, CSV or a data frame): names of its columns, and its rows in batches.

Knows file formats; `columns` turns values into numbers. Messages name file, column and row, and never quote a file.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from csv import Error as CsvError
from csv import reader as csv_reader
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from lntx.config.schema import FRAME, Data
from lntx.data.frames import frame_of
from lntx.errors import BadInput
from lntx.files import open_regular, parse_json, state_of
from lntx.text import MAX_NAME, for_message, listed, quoted, suggest

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

_BATCH_ROWS = 2**16
_OTHER_DELIMITERS = (",", ";", "\t", "|")
_ONE_COLUMN = ": it has one column: name its delimiter with --data.delimiter, such as ';'"


@dataclass(frozen=True, kw_only=True)
class Csv:
    """How a CSV file is written."""

    delimiter: str = ","
    """Character between values."""

    decimal: str = "."
    """Character before the decimals."""

    encoding: str = "utf-8"
    """Encoding of the text."""

    nulls: tuple[str, ...] = tuple(pyarrow.csv.ConvertOptions().null_values)
    """Words that stand for a missing value."""

    @staticmethod
    def of(data: Data) -> Csv:
        """Return what a configuration says of it."""
        nulls = (*Csv.nulls, *(word.strip() for word in data.nulls or ()))
        return Csv(delimiter=data.delimiter, decimal=data.decimal, encoding=data.encoding, nulls=nulls)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The files of a table, or its data frame, at the time they were hashed."""

    path: str
    """The path as it was given."""

    files: tuple[Path, ...]
    """The files, in the order of the rows; none for a data frame."""

    sha256: str
    """Digest of the content."""

    state: tuple[int, ...]
    """Inode, size, modification time and change time (both in nanoseconds) of each file."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """An open table."""

    where: str
    """What messages call it."""

    names: tuple[str, ...]
    """Names of its columns; one may occur twice."""

    csv: Csv | None
    """How its text is written; None if its values have types."""

    index: frozenset[str] = frozenset()
    """Columns that are the index of the pandas data frame that was written; no features unless they are named."""

    read: Callable[[Sequence[int]], Iterator[list[pa.Array]]]
    """Reads the columns at the given positions, in batches of rows."""

    def places(self, columns: Sequence[str]) -> list[int]:
        """Return the positions of columns.

        Raises: BadInput: a column is missing or occurs twice.
        """
        for name in columns:
            if name not in self.names:
                has = f"{self.where} has no column {quoted(name, MAX_NAME)}"
                raise BadInput(f"{has}{suggest(name, self.names) or f': it has {listed(self.names)}'}")
            if self.names.count(name) > 1:
                count = self.names.count(name)
                raise BadInput(f"{self.where} has {count} columns named {quoted(name, MAX_NAME)}")
        return [self.names.index(name) for name in columns]


def look_at(path: str | os.PathLike[str]) -> Source:
    """Hash a user's table.

    Raises: BadInput: a file is missing, unreadable, empty, no regular file, or no table.
    """
    name = os.fspath(path)
    if name.startswith(FRAME):
        return Source(path=name, files=(), sha256=name, state=())
    files, digests, states = files_of(name), [], []
    for file in files:
        with readable(file):
            state = tuple(state_of(file))
            digests.append(_sha256(file, state))
        if state[1] == 0:
            raise BadInput(f"{for_message(file)} is empty")
        states.append(state)
    several = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return Source(
        path=name,
        files=files,
        sha256=digests[0] if len(files) == 1 else several,
        state=tuple(number for state in states for number in state),
    )


def files_of(path: str) -> tuple[Path, ...]:
    """Return the files of a table: the file itself, or the Parquet files of a folder or a glob, sorted by name.

    Raises: BadInput: there is none, or one of another suffix. Such a file is never opened: it may be anything.
    """
    file = Path(path)
    try:
        is_folder, is_glob = file.is_dir(), glob.has_magic(path) and not file.exists()
    except (OSError, ValueError):
        is_folder = is_glob = False
    if not (is_folder or is_glob):
        kind_of(file)
        return (file,)
    pattern = f"{glob.escape(path)}/*" if is_folder else path
    paths = sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207 (the pattern is a whole path)
    if is_folder:
        paths = [entry for entry in paths if entry.suffix.lower() in (".parquet", ".pq")]
        below = sorted(entry for entry in file.glob("*/**/*") if entry.suffix.lower() in (".parquet", ".pq"))
        # A folder may be a root too: then what lntx keeps in it is no part of the table.
        own = {file / "data", file / "artifacts"} if (file / "artifacts" / ".journal.jsonl").is_file() else set()
        left_out = [entry for entry in below if not own & {*entry.parents}]
        if left_out:
            raise BadInput(
                f"{for_message(path)} has Parquet files in folders below it, such as "
                f"{for_message(left_out[0].relative_to(file))}: name those to read with a glob"
            )
    if not paths:
        raise BadInput(f"{for_message(path)} holds no Parquet file: several CSV files are no table, name one of them")
    for entry in paths:
        if kind_of(entry) != "Parquet":
            raise BadInput(f"several files must all be Parquet, got {quoted(str(entry))}")
    return tuple(paths)


def kind_of(path: Path) -> Literal["Parquet", "CSV"]:
    """Return the format of a file, by its suffix.

    Raises: BadInput: it has another suffix.
    """
    for suffix, kind in SUFFIXES.items():
        # pyarrow knows compression by suffixes in small letters alone.
        if path.name.endswith(suffix) or path.suffix.lower() == suffix:
            return "Parquet" if kind == "Parquet" else "CSV"
    advice = ": save the sheet as CSV" if path.suffix.lower() in (".xlsx", ".xls", ".ods") else ""
    raise BadInput(f"a table must end in {', '.join(SUFFIXES)}, got {quoted(str(path))}{advice}")


def open_table(path: str | os.PathLike[str], csv: Csv) -> Table:
    """Open a table by its path, or the data frame that the path stands for. csv: how it is written, if it is CSV.

    Raises: BadInput: it cannot be read as Parquet or CSV; the data frame is not in this process.
    """
    name = os.fspath(path)
    if name.startswith(FRAME):
        return table_of(frame_of(name))
    files = files_of(name)
    if kind_of(files[0]) == "CSV":
        return _open_csv(files[0], csv)
    with readable(files[0]):
        schema = pq.read_schema(files[0])
    names, where = tuple(schema.names), for_message(name)
    read = functools.partial(_read_parquet, files, names, where)
    return Table(where=where, names=names, csv=None, index=_index_of(schema), read=read)


def _index_of(schema: pa.Schema) -> frozenset[str]:
    """Return the columns that pandas' metadata call its index."""
    try:
        index_columns = parse_json((schema.metadata or {})[b"pandas"])["index_columns"]
        return frozenset(name for name in index_columns if isinstance(name, str))
    except (KeyError, TypeError, ValueError):
        return frozenset()


def table_of(frame: pa.Table) -> Table:
    """Open a data frame that was converted to Arrow."""

    def read(places: Sequence[int]) -> Iterator[list[pa.Array]]:
        for batch in frame.select(list(places)).to_batches(max_chunksize=_BATCH_ROWS):
            yield batch.columns

    names = tuple(frame.schema.names)
    return Table(where="the data frame", names=names, csv=None, index=_index_of(frame.schema), read=read)


def _read_parquet(
    files: Sequence[Path], names: tuple[str, ...], where: str, places: Sequence[int]
) -> Iterator[list[pa.Array]]:
    columns = [names[j] for j in places]
    for path in files:
        with readable(path), pq.ParquetFile(path, memory_map=False) as file:
            missing = set(columns) - set(file.schema_arrow.names)
            if missing:
                raise BadInput(f"{where}: {for_message(path.name)} has no column {listed(sorted(missing))}")
            counts = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
            num_rows = 0
            for batch in file.iter_batches(columns=columns, use_threads=False):
                num_rows += batch.num_rows
                yield [batch.column(name) for name in columns] if len(set(columns)) == len(columns) else batch.columns

            if not file.metadata.num_rows == sum(counts) == num_rows:
                counts_text = (
                    f"{file.metadata.num_rows:,} rows in all, {sum(counts):,} by group, and {num_rows:,} are read"
                )
                raise BadInput(f"{for_message(path)} is damaged: its footer says {counts_text}")


def _refuse_open_quote(path: Path, csv: Csv) -> None:
    """Refuse a CSV file that ends within a quoted field: it was cut, and pyarrow would read it nevertheless."""
    with pa.input_stream(str(path), compression="detect") as stream:
        num_quotes = sum(chunk.count(b'"') for chunk in iter(lambda: stream.read(2**24), b""))
    if num_quotes % 2 == 0:
        return
    with pa.input_stream(str(path), compression="detect") as stream:
        text = io.TextIOWrapper(stream, encoding=csv.encoding, newline="")
        try:
            for _ in csv_reader(text, delimiter=csv.delimiter, strict=True):
                pass
        except CsvError as error:
            if "unexpected end" in str(error):
                raise BadInput(
                    f"{for_message(path)} ends within a quoted field: it was cut, or a quote is not closed"
                ) from None


def _open_csv(path: Path, csv: Csv) -> Table:
    with readable(path), pyarrow.csv.open_csv(path, **_csv_options(csv)) as reader:
        names = tuple(reader.schema.names)
    if len(names) == 1 and any(sign in names[0] for sign in _OTHER_DELIMITERS):
        raise BadInput(f"{for_message(path)} cannot be read as CSV{_ONE_COLUMN}")

    def read(places: Sequence[int]) -> Iterator[list[pa.Array]]:
        # By position, because names may occur twice; an empty value is empty text.
        columns = [f"f{j}" for j in places]
        options = _csv_options(csv, include_columns=columns, column_types=dict.fromkeys(columns, pa.string()))
        # In a single column an empty line is a missing value.
        options["parse_options"].ignore_empty_lines = len(names) > 1
        options["read_options"].autogenerate_column_names = True
        with readable(path):
            _refuse_open_quote(path, csv)
        with readable(path), pyarrow.csv.open_csv(path, **options) as reader:
            for k, batch in enumerate(reader):
                # Skip the header: with generated names it is read as the first row.
                yield batch.slice(1).columns if k == 0 else batch.columns

    return Table(where=for_message(path), names=names, csv=csv, read=read)


def _csv_options(csv: Csv, **convert: Any) -> dict[str, Any]:
    return {
        "read_options": pyarrow.csv.ReadOptions(use_threads=False, encoding=csv.encoding),
        "parse_options": pyarrow.csv.ParseOptions(delimiter=csv.delimiter),
        "convert_options": pyarrow.csv.ConvertOptions(strings_can_be_null=False, **convert),
    }


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Refuse files that are not regular, and replace errors of the operating system and the parser by a short line."""
    try:
        with open_regular(path):
            pass
        yield
    except (pa.ArrowException, UnicodeError) as error:
        raise BadInput(f"{for_message(path)} cannot be read as {kind_of(path)}{_place(error)}") from None
    except OSError as error:
        # pyarrow raises OSError without errno for a broken file.
        if error.errno is None:
            raise BadInput(f"{for_message(path)} cannot be read as {kind_of(path)}: it is damaged") from None
        raise BadInput(f"{for_message(path)} cannot be read: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        # A null byte in the name.
        raise BadInput(f"{for_message(path)} is not a valid file name") from None


def _place(error: Exception) -> str:
    """Return where a parser stopped and what it expected; never the text that it read."""
    message = str(error)
    match = re.search(r"CSV parse error: (?:Row #(\d+): )?Expected (\d+) columns, got (\d+)", message)
    if match is not None:
        row, expected, got = match.groups()
        if expected == "1":
            return _ONE_COLUMN
        # The parser counts the header as row 1; messages count data rows from 1.
        return f":{f' row {int(row) - 1}:' if row else ''} expected {expected} columns, got {got}"
    if "Empty CSV file" in message:
        return ": it has no rows"
    if isinstance(error, UnicodeError) or "UTF8" in message:
        return ": it is not text of that encoding: name another with --data.encoding, such as cp1252 (Windows)"
    return ": it is damaged, or of another format"


# Cached, because every stage of a run asks; the state is part of the cache key, so that a changed file is read again.
@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, _state: tuple[int, ...]) -> str:
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
