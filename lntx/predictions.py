"""Write a table with a column of predictions: all other columns pass unchanged. Predicts nothing itself (`models`)."""

from __future__ import annotations

import contextlib
import csv
import math
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lntx.base.errors import BadInput
from lntx.base.text import for_message, quoted
from lntx.data.spelling import Spelling
from lntx.data.tables import Table, open_table
from lntx.models import Interval, Model, columns_of

_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"


def write_predictions(
    model: Model,
    source: Path,
    target: Path,
    *,
    dialect: Spelling | None = None,
    interval: Interval | None = None,
    level: float = 0.95,
) -> int:
    """Copy a table and append a column `prediction` and, with an interval, its ends `low` and `high`.

    source: Parquet or CSV. target: Parquet or CSV, by its suffix; replaced atomically at the end. Purely numeric CSV
    columns become numbers in Parquet, if the numbers are written back as the same text, decimal comma aside.
    dialect: how the source is written; by default as the file of the fit, else with commas and points.

    Returns: the number of rows.

    Raises: BadInput: a column is missing or cannot be used; the target cannot be written.
    """
    is_csv = target.suffix.lower() == ".csv"
    if not is_csv and target.suffix.lower() not in (".parquet", ".pq"):
        raise BadInput(f"--output must end in .csv or .parquet, got {quoted(str(target))}")
    table = open_table(source, dialect) if dialect is not None else _open(source, model)
    new = columns_of(interval)
    if twice := [name for name in new if name in table.names]:
        raise BadInput(f"{table.where} already has a column {quoted(twice[0])}: rename it")
    types = _number_types(table) if table.is_text and not is_csv else {}
    num_rows = 0
    try:
        with tempfile.TemporaryDirectory(prefix=".lntx-", dir=target.parent) as folder:
            partial = Path(folder) / "partial"
            writer: Any = None
            for columns, added in model.predict_table(table, interval=interval, level=level):
                typed = [
                    _typed(_with_point(column, table), types[j]) if j in types else column
                    for j, column in enumerate(columns)
                ]
                arrays = [*typed, *(pa.array(added[name]) for name in new)]
                batch = pa.RecordBatch.from_arrays(arrays, [*table.names, *new])
                if writer is None:
                    dialect = table.spelling if table.file is not None else Spelling()
                    writer = (
                        _CsvWriter(partial, batch.schema, dialect, table, len(new))
                        if is_csv
                        else pq.ParquetWriter(partial, batch.schema)
                    )
                writer.write_batch(batch)
                num_rows += batch.num_rows
            if writer is None:
                raise BadInput(f"{table.where} has no rows")
            writer.close()
            partial.replace(target)
    except pa.ArrowException as error:
        raise BadInput(f"cannot write {for_message(target)}: {type(error).__name__}") from None
    except OSError as error:
        raise BadInput(f"cannot write {for_message(target)}: {error.strerror or type(error).__name__}") from None
    return num_rows


def _open(source: Path, model: Model) -> Table:
    """Open a table in the dialect of the table that was fitted; if it has other columns then, in the usual one."""
    if model.inputs is not None and model.features is not None:
        with contextlib.suppress(BadInput):
            table = open_table(source, Spelling.of(model.inputs.data))
            table.places(model.features)
            return table
    return open_table(source, Spelling())


class _CsvWriter:
    """Writes batches as CSV in a dialect, with minimal quoting; values that were read as text are written unchanged."""

    def __init__(self, path: Path, schema: pa.Schema, dialect: Spelling, table: Table, num_new: int) -> None:
        self._num_new = num_new
        self._decimal = dialect.decimal
        self._stream = path.open("w", encoding=dialect.encoding, newline="")
        delimiter = "," if table.file is None else table.file.delimiter
        self._writer = csv.writer(self._stream, delimiter=delimiter, lineterminator="\n")
        self._writer.writerow(schema.names)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Write rows."""
        columns = [pc.cast(column, pa.string()) for column in batch.columns]
        for j in range(-self._num_new, 0):
            columns[j] = pc.replace_substring(columns[j], ".", self._decimal)
        columns = [column.to_pylist() for column in columns]
        self._writer.writerows(zip(*columns, strict=True))

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _number_types(table: Table) -> dict[int, pa.DataType]:
    """Return the positions of purely numeric CSV columns, each with the type that is written back as the same text."""
    left: dict[int, pa.DataType] = dict.fromkeys(range(len(table.names)), pa.int64())
    for texts in table.read(range(len(table.names))):
        for j in [*left]:
            filled = _with_point(texts[j].filter(pc.not_equal(texts[j], "")), table)
            if left[j] == pa.int64() and not _all_match(filled, _INTEGER):
                left[j] = pa.float64()
            if left[j] == pa.float64() and not all(map(_is_plain, filled.to_pylist())):
                del left[j]
    return left


def _with_point(text: pa.Array, table: Table) -> pa.Array:
    decimal = table.spelling.decimal
    return text if not table.is_text or decimal == "." else pc.replace_substring(text, decimal, ".")


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
