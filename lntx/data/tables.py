"""Open a table of the user (Parquet, Feather, CSV or a data frame): names of its columns, its rows in batches.

Knows file formats; `columns` turns values into numbers. Messages name file, column and row, and never quote a file.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import itertools
import lzma
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from lntx.base.errors import BadInput
from lntx.base.files import open_regular, parse_json, state_of
from lntx.base.text import MAX_NAME, for_message, listed, quoted, suggest
from lntx.config.schema import FRAME
from lntx.data.csv_files import CsvFile, encoding_hint, first_bytes
from lntx.data.frames import frame_of
from lntx.data.spelling import Spelling

_BATCH_ROWS = 2**16
_PARQUET, _FEATHER = b"PAR1", b"ARROW1"
Kind = Literal["Parquet", "Feather", "CSV"]


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

    spelling: Spelling
    """How its text is written."""

    file: CsvFile | None = None
    """The CSV file; None if the values have types."""

    index: frozenset[str] = frozenset()
    """Columns that are the index of the pandas data frame that was written; no features unless they are named."""

    read: Callable[[Sequence[int]], Iterator[list[pa.Array]]]
    """Reads the columns at the given positions, in batches of rows."""

    @property
    def is_text(self) -> bool:
        """Whether all its values are text, as in a CSV file."""
        return self.file is not None

    def places(self, columns: Sequence[str], *, may_exclude: bool = False) -> list[int]:
        """Return the positions of columns. may_exclude: whether a column may be left out.

        Raises: BadInput: a column is missing or occurs twice.
        """
        for name in columns:
            if name not in self.names:
                has = f"{self.where} has no column {quoted(name, MAX_NAME)}"
                hint = {} if self.file is None else self.file.hint(name)
                raise BadInput(f"{has}{suggest(name, self.names) or f': it has {listed(self.names)}'}", advice=hint)
            if self.names.count(name) > 1:
                count = self.names.count(name)
                raise BadInput(
                    f"{self.where} has {count} columns named {quoted(name, MAX_NAME)}",
                    advice={"data.exclude": [name]} if may_exclude else None,
                )
        return [self.names.index(name) for name in columns]


def look_at(path: str | os.PathLike[str]) -> Source:
    """Hash a user's table.

    Raises: BadInput: a file is missing, unreadable, empty, no regular file, or no table.
    """
    name = os.fspath(path)
    if name.startswith(FRAME):
        return Source(path=name, files=(), sha256=name, state=())
    files, digests, states = files_of(name), [], []
    for file, partition in zip(files, partitions_of(name, files), strict=True):
        with readable(file):
            state = tuple(state_of(file))
            digests.append(_sha256(file, state) + (f" {sorted(partition.items())}" if partition else ""))
        if state[1] == 0:
            raise BadInput(f"{for_message(file)} is empty")
        states.append(state)
    several = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return Source(
        path=name,
        files=files,
        sha256=digests[0] if len(digests[0]) == 64 and len(files) == 1 else several,
        state=tuple(number for state in states for number in state),
    )


def files_of(path: str) -> tuple[Path, ...]:
    """Return the files of a table: the file itself, or the Parquet files of a folder or a glob, sorted by name.

    Raises: BadInput: there is none, or one that is no Parquet file.
    """
    file = Path(path)
    try:
        is_folder, is_glob = file.is_dir(), glob.has_magic(path) and not file.exists()
    except (OSError, ValueError):
        is_folder = is_glob = False
    if not (is_folder or is_glob):
        return (file,)
    if is_folder:
        paths = [entry for entry in sorted(file.iterdir()) if entry.suffix.lower() in (".parquet", ".pq")]
        below = sorted(entry for entry in file.glob("*/**/*") if entry.suffix.lower() in (".parquet", ".pq"))
        # A folder may be a root too: then what lntx keeps in it is no part of the table.
        own = {file / "data", file / "artifacts"} if (file / "artifacts" / ".journal.jsonl").is_file() else set()
        below = [entry for entry in below if not own & {*entry.parents}]
        # Folders called key=value are a table in parts, as Hive and Spark write it.
        if below and not paths and all("=" in part for entry in below for part in entry.relative_to(file).parts[:-1]):
            return tuple(below)
        if below:
            raise BadInput(
                f"{for_message(path)} has Parquet files in folders below it, such as "
                f"{for_message(below[0].relative_to(file))}: to read all, give {quoted(str(file / '**/*.parquet'))}"
            )
    else:
        paths = sorted(map(Path, glob.glob(path, recursive=True)))  # noqa: PTH207 (the pattern is a whole path)
        paths = [entry for entry in paths if not entry.is_dir()]
    if not paths:
        raise BadInput(f"{for_message(path)} holds no Parquet file: several CSV files are no table, name one of them")
    for entry in paths:
        with readable(entry):
            if len(paths) > 1 and kind_of(entry) != "Parquet":
                raise BadInput(f"several files must all be Parquet, got {quoted(str(entry))}")
    return tuple(paths)


def partitions_of(path: str, files: Sequence[Path]) -> list[dict[str, str]]:
    """Return, for each file, the columns that its folders give it: key=value, below the folder or the glob."""
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), Path(path).parts))
    base = Path(*fixed) if fixed else Path()
    if len(files) == 1 and files[0] == Path(path):
        return [{}]
    below = [file.relative_to(base).parts[:-1] for file in files]
    return [
        {key: unquote(value) for key, sign, value in (part.partition("=") for part in parts) if key and sign}
        for parts in below
    ]


def kind_of(path: Path) -> Kind:
    """Return the format of a file, by its content: any text may be CSV."""
    start = first_bytes(path)
    return "Parquet" if start.startswith(_PARQUET) else "Feather" if start.startswith(_FEATHER) else "CSV"


def open_table(path: str | os.PathLike[str], spelling: Spelling) -> Table:
    """Open a table by its path, or the data frame that the path stands for. spelling: how its text is written.

    Raises: BadInput: it cannot be read as Parquet, Feather or CSV; the data frame is not in this process.
    """
    name = os.fspath(path)
    if name.startswith(FRAME):
        return table_of(frame_of(name), spelling)
    files, where = files_of(name), for_message(name)
    with readable(files[0], spelling):
        kind = kind_of(files[0])
        if kind == "CSV":
            if files[0].suffix.lower() in (".parquet", ".pq", ".feather"):
                raise pa.ArrowInvalid
            return _csv_table(files[0], spelling)
        if kind == "Feather":
            with pa.ipc.open_file(str(files[0])) as file:
                schema = file.schema
            names = tuple(schema.names)
            read = functools.partial(_read_feather, files[0])
            return Table(where=where, names=names, spelling=spelling, index=_index_of(schema), read=read)
    schemas = []
    for file in files:
        with readable(file):
            schemas.append(_schema(file))
    partitions = partitions_of(name, files)
    fields: dict[str, pa.DataType | None] = {}
    for schema in schemas:
        for field in schema:
            if fields.get(field.name) in (None, pa.null()):
                fields[field.name] = field.type
    twice = len(set(schemas[0].names)) < len(schemas[0].names)
    parts = {key: [partition.get(key) for partition in partitions] for partition in partitions for key in partition}
    by_folder = {key: _as_numbers(values) for key, values in parts.items() if key not in fields}
    names = tuple(schemas[0].names) if twice else (*fields, *by_folder)
    read = functools.partial(_read_parquet, files, names, fields, by_folder)
    return Table(where=where, names=names, spelling=spelling, index=_index_of(schemas[0]), read=read)


def _as_numbers(values: Sequence[str | None]) -> list[Any]:
    """Return the values of folders as pyarrow reads them: whole numbers if all are, else text."""
    texts = [None if value in (None, "__HIVE_DEFAULT_PARTITION__") else value for value in values]
    if all(value is None or re.fullmatch(r"-?[0-9]{1,18}", value) for value in texts):
        return [None if value is None else int(value) for value in texts]
    return texts


def _schema(file: Path) -> pa.Schema:
    schema = pq.read_schema(file)
    if any((field.metadata or {}).get(b"ARROW:extension:name") == b"pandas.period" for field in schema):
        # pandas' periods have their type only once pandas is imported.
        import pandas as pd  # noqa: F401

        return pq.read_schema(file)
    return schema


def _index_of(schema: pa.Schema) -> frozenset[str]:
    """Return the columns that pandas' metadata call its index."""
    try:
        index_columns = parse_json((schema.metadata or {})[b"pandas"])["index_columns"]
        return frozenset(name for name in index_columns if isinstance(name, str))
    except (KeyError, TypeError, ValueError):
        return frozenset()


def table_of(frame: pa.Table, spelling: Spelling) -> Table:
    """Open a data frame that was converted to Arrow."""

    def read(places: Sequence[int]) -> Iterator[list[pa.Array]]:
        for batch in frame.select(list(places)).to_batches(max_chunksize=_BATCH_ROWS):
            yield batch.columns

    names = tuple(frame.schema.names)
    return Table(where="the data frame", names=names, spelling=spelling, index=_index_of(frame.schema), read=read)


def _read_feather(path: Path, places: Sequence[int]) -> Iterator[list[pa.Array]]:
    with readable(path), pa.ipc.open_file(str(path)) as file:
        for k in range(file.num_record_batches):
            batch = file.get_batch(k)
            yield [batch.column(j) for j in places]


def _read_parquet(
    files: Sequence[Path],
    names: tuple[str, ...],
    types: Mapping[str, pa.DataType],
    by_folder: Mapping[str, Sequence[Any]],
    places: Sequence[int],
) -> Iterator[list[pa.Array]]:
    columns = [names[j] for j in places]
    for k, path in enumerate(files):
        with readable(path), pq.ParquetFile(path, memory_map=False) as file:
            own = [name for name in dict.fromkeys(columns) if name in file.schema_arrow.names]
            counts = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
            num_rows = 0
            for batch in file.iter_batches(columns=own, use_threads=False):
                num_rows += batch.num_rows
                if len(batch.columns) > len(own):
                    yield batch.columns
                    continue
                yield [
                    batch.column(name)
                    if name in own
                    else pa.repeat(by_folder[name][k], batch.num_rows)
                    if by_folder.get(name, [None] * (k + 1))[k] is not None
                    else pa.nulls(batch.num_rows, types.get(name) or pa.null())
                    for name in columns
                ]
            if not file.metadata.num_rows == sum(counts) == num_rows:
                counts_text = (
                    f"{file.metadata.num_rows:,} rows in all, {sum(counts):,} by group, and {num_rows:,} are read"
                )
                raise BadInput(f"{for_message(path)} is damaged: its footer says {counts_text}")


def _csv_table(path: Path, spelling: Spelling) -> Table:
    file = CsvFile(path, spelling)
    if len(file.names) == 1 and (hint := file.hint()):
        raise BadInput(f"{for_message(path)} cannot be read as CSV: it has one column", advice=hint)

    def read(places: Sequence[int]) -> Iterator[list[pa.Array]]:
        with readable(path, spelling):
            yield from file.read(places)

    return Table(where=for_message(path), names=file.names, spelling=spelling, file=file, read=read)


@contextmanager
def readable(path: Path, spelling: Spelling | None = None) -> Iterator[None]:
    """Refuse files that are not regular, and replace errors of the operating system and the parser by a short line.

    spelling: how the text of a CSV file is written.
    """
    try:
        with open_regular(path):
            pass
        yield
    except (pa.ArrowException, UnicodeError, EOFError, lzma.LZMAError, zipfile.BadZipFile) as error:
        is_csv = spelling is not None and path.suffix.lower() not in (".parquet", ".pq", ".feather")
        where, advice = _place(error), dict[str, Any]()
        if isinstance(error, UnicodeError) or "UTF8" in str(error):
            where, advice = ": it is not text of that encoding", encoding_hint(path)
        elif is_csv and spelling is not None:
            with suppress(Exception):
                advice = CsvFile(path, spelling).hint()
        kind = "CSV" if is_csv else "Parquet"
        raise BadInput(f"{for_message(path)} cannot be read as {kind}{where}", advice=advice) from None
    except OSError as error:
        # pyarrow raises OSError without errno for a broken file.
        if error.errno is None:
            raise BadInput(f"{for_message(path)} cannot be read: it is damaged") from None
        raise BadInput(f"{for_message(path)} cannot be read: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        # A null byte in the name.
        raise BadInput(f"{for_message(path)} is not a valid file name") from None


def _place(error: Exception) -> str:
    """Return where a parser stopped and what it expected; never the text that it read."""
    match = re.search(r"CSV parse error: (?:Row #(\d+): )?Expected (\d+) columns, got (\d+)", str(error))
    if match is not None:
        row, expected, got = match.groups()
        # The parser counts the header as row 1; messages count data rows from 1.
        return f":{f' row {int(row) - 1}:' if row else ''} expected {expected} columns, got {got}"
    return ": it has no rows" if "Empty CSV file" in str(error) else ": it is damaged, or of another format"


# Cached, because every stage of a run asks; the state is part of the cache key, so that a changed file is read again.
@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, _state: tuple[int, ...]) -> str:
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
