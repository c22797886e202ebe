"""Faults of the rows: drawn, written, stored, or read wrongly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lntx.canary.cases import Case
from lntx.canary.faults.planting import Fault, flipped, once_stored
from lntx.config.schema import Data
from lntx.proof.faults import replaced

_Columns = dict[str, np.ndarray]


def _flip_a_bit(_case: Case) -> contextlib.AbstractContextManager[None]:
    """Flip the last bit of a target value in the file."""

    def tamper(files: dict[str, Path]) -> None:
        path = next(iter(files.values()))
        with pq.ParquetFile(path) as file:
            values = next(file.iter_batches(batch_size=1000, columns=["y"])).column("y").to_numpy(zero_copy_only=False)
        value = float(values[len(values) // 2])
        content = path.read_bytes()
        place = content.index(np.float64(value).tobytes())
        path.write_bytes(content[:place] + np.float64(flipped(value, 0)).tobytes() + content[place + 8 :])

    return once_stored("generate", tamper)


def _written(change: Callable[[_Columns], _Columns]) -> Callable[[Case], contextlib.AbstractContextManager[None]]:
    """Change the first block of rows that is written."""

    def plant(_case: Case) -> contextlib.AbstractContextManager[None]:
        written: list[int] = []

        def make(write_batch: Callable[..., None]) -> Callable[..., None]:
            def changing(self: Any, batch: pa.RecordBatch, *args: Any, **options: Any) -> None:
                if not written:
                    written.append(1)
                    columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
                    arrays = [pa.array(change(columns)[field.name], type=field.type) for field in batch.schema]
                    batch = pa.record_batch(arrays, schema=batch.schema)
                write_batch(self, batch, *args, **options)

            return changing

        return replaced(pq.ParquetWriter, "write_batch", make)

    return plant


def _dropped(columns: _Columns) -> _Columns:
    return {name: np.delete(values, len(values) // 2) for name, values in columns.items()}


def _duplicated(columns: _Columns) -> _Columns:
    """Replace a row by a copy of the row before it, which differs."""
    count = len(columns["y"])
    row = next(i for i in range(count - 1) if columns["y"][i] != columns["y"][i + 1])
    order = np.arange(count)
    order[row + 1] = row
    return {name: values[order] for name, values in columns.items()}


def _shuffled(columns: _Columns) -> _Columns:
    return {**columns, "y": np.random.Generator(np.random.PCG64(1)).permutation(columns["y"])}


def _read(change: Callable[[pa.RecordBatch], pa.RecordBatch], *, times: int | None = None) -> Any:
    """Change what is read from Parquet. times: number of readings to change; all by default."""

    def plant(_case: Case) -> contextlib.AbstractContextManager[None]:
        readings: list[int] = []

        def make(iter_batches: Callable[..., Iterator[pa.RecordBatch]]) -> Callable[..., Iterator[pa.RecordBatch]]:
            def changing(self: Any, *args: Any, **options: Any) -> Iterator[pa.RecordBatch]:
                readings.append(1)
                last = None
                for batch in iter_batches(self, *args, **options):
                    if last is not None:
                        yield last
                    last = batch
                if last is not None:
                    # Change the last batch: a file of few rows has no other.
                    yield change(last) if times is None or len(readings) <= times else last

            return changing

        return replaced(pq.ParquetFile, "iter_batches", make)

    return plant


def _without_its_end(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.slice(0, batch.num_rows - max(1, batch.num_rows // 4))


def _without_its_last_row(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.slice(0, batch.num_rows - 1)


def _in_float16(batch: pa.RecordBatch) -> pa.RecordBatch:
    return _with(batch, "y", lambda values: values.astype(np.float16).astype(values.dtype))


def _in_thousandths(batch: pa.RecordBatch) -> pa.RecordBatch:
    name = next(name for name in batch.schema.names if name != "y")
    return _with(batch, name, lambda values: values.astype(np.float64) / 1000)


def _with(batch: pa.RecordBatch, name: str, change: Callable[[np.ndarray], np.ndarray]) -> pa.RecordBatch:
    columns = {column: batch.column(column) for column in batch.schema.names}
    return pa.record_batch({**columns, name: pa.array(change(columns[name].to_numpy(zero_copy_only=False)))})


def _shared_stream(_case: Case) -> contextlib.AbstractContextManager[None]:
    """Draw all features from the same random stream, so that they are equal."""
    import lntx.data.synthetic

    def make(stream: Callable[[int, int, int], np.random.Generator]) -> Callable[..., np.random.Generator]:
        return lambda seed, rows, _column: stream(seed, rows, 0)

    return replaced(lntx.data.synthetic, "_stream", make)


def _other_history(_case: Case) -> contextlib.AbstractContextManager[None]:
    """Change a byte of the stored training history."""

    def tamper(files: dict[str, Path]) -> None:
        path = files["history.parquet"]
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(bytes(content))

    return once_stored("train", tamper)


def _wrong_seed(_case: Case) -> contextlib.AbstractContextManager[None]:
    import lntx.data.shards

    def make(generate_dataset: Callable[..., str]) -> Callable[..., str]:
        def seeded(data: Data, *args: Any, **options: Any) -> str:
            return generate_dataset(data.model_copy(update={"seed": data.seed ^ 1}), *args, **options)

        return seeded

    return replaced(lntx.data.shards, "generate_dataset", make)


def _stale_file(case: Case) -> contextlib.AbstractContextManager[None]:
    """Put the file of an earlier run, with other rows, in place of the fresh one."""

    def tamper(files: dict[str, Path]) -> None:
        from lntx.data.synthetic import generate_dataset

        earlier = case.pipeline.data.model_copy(update={"seed": case.pipeline.data.seed ^ 1})
        generate_dataset(earlier, next(iter(files.values())))

    return once_stored("generate", tamper)


ROWS = (
    Fault(name="flipped-row-bit", what="the last bit of a stored target flips", blame="data", planted=_flip_a_bit),
    Fault(name="dropped-row", what="a row is not written", blame="data", planted=_written(_dropped)),
    Fault(
        name="duplicated-row",
        what="a row is written again in its neighbour's place",
        blame="data",
        planted=_written(_duplicated),
    ),
    Fault(
        name="shuffled-target",
        what="targets are written in another order than features",
        blame="data",
        planted=_written(_shuffled),
    ),
    Fault(
        name="shared-stream",
        what="all features are drawn from one random stream",
        blame="data",
        limit="one feature",
        planted=_shared_stream,
    ),
    Fault(name="wrong-seed", what="the rows are drawn from another seed", blame="data", planted=_wrong_seed),
    Fault(
        name="stale-rows",
        what="the file of an earlier run lies in place of the fresh one",
        blame="data",
        planted=_stale_file,
    ),
    Fault(
        name="float16-column",
        what="the target is read through float16",
        blame="data",
        limit="a column whose values are all float16 numbers",
        planted=_read(_in_float16),
    ),
    Fault(
        name="lost-block", what="the last quarter of a block is not read", blame="data", planted=_read(_without_its_end)
    ),
    Fault(
        name="row-lost-in-training",
        what="training's first reading lacks a row, later ones do not",
        blame="data",
        limit="rows that are kept in memory, up to 64 MiB",
        planted=_read(_without_its_last_row, times=1),
    ),
    Fault(
        name="altered-history",
        what="a byte of the history of training changes once it is stored",
        blame="data",
        planted=_other_history,
    ),
    Fault(name="wrong-unit", what="a feature is read in thousandths", blame="data", planted=_read(_in_thousandths)),
)
"""Faults that must be blamed on the data."""
