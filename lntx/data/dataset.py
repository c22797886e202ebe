"""Rows on disk: Parquet files of non-nullable numeric columns, written and read as a stream.

Knows the file format, not the source of the rows (`synthetic`, `tables`) or their use.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lntx.base.files import HashingWriter
from lntx.base.progress import report_progress
from lntx.base.workers import map_in_order
from lntx.numerics.powers import power_names, powers

Result = TypeVar("Result")


class Block(NamedTuple):
    """A block of rows for fitting."""

    x: np.ndarray
    """Terms, float64, shape (n, num_terms), column-major."""

    y: np.ndarray
    """Target, float64, shape (n,)."""

    low: np.ndarray | None = None
    """Rounding error of x, of the same shape; None if x is exact."""

    row_weights: np.ndarray | None = None
    """Weight of each row, positive, float64, shape (n,); None: 1."""


MEMORY_BYTES = 2**26
"""Rows that need more memory than this are read again at each pass."""

PART_BYTES = 2**26
"""Rows of a part, in memory: some tenths of a second of work in each pass."""

_METADATA_KEY = b"lntx"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset, described by the footers of its files; no rows are read."""

    paths: tuple[Path, ...]
    """The Parquet files, in the order of the rows."""

    features: tuple[str, ...]
    """Names of the feature columns, in the order of the weights."""

    target: str
    """Name of the target column."""

    degree: int
    """Degree of the polynomial in the only feature; 1 for an ordinary linear model."""

    num_rows: int
    """Number of rows."""

    columns: tuple[str, ...]
    """Columns of the user's table that the features come from; the features themselves for synthetic rows."""

    levels: Mapping[str, tuple[str, ...]]
    """Levels of each column that is a category; each but the first is a feature."""

    notes: tuple[str, ...]
    """Sentences about the rows for the reader of a fit: what was left out, and what looks odd."""

    weight: str | None = None
    """Name of the column of the weights of the rows; None: all count alike."""

    first: int = 0
    """Number of rows before these, if they are a part of a larger dataset."""

    row_groups: tuple[int, ...] | None = None
    """Row groups of the only file that hold these rows; None: all of all files."""

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms, one per weight: the features, or the powers of the only feature."""
        return self.features if self.degree == 1 else power_names(self.features[0], self.degree)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as float64, with the rounding errors of its terms."""
        return 8 * (len(self.terms) * (1 if self.degree == 1 else 2) + 1 + (self.weight is not None))


def fits_in_memory(dataset: Dataset) -> bool:
    """Return whether the rows are kept in memory between passes: up to 64 MiB as float64.

    Rows that are not are read again at each pass, in parts, on several cores, and added up by compiled loops.
    """
    return dataset.num_rows * dataset.row_bytes <= MEMORY_BYTES


def parts_of(dataset: Dataset) -> list[Dataset]:
    """Divide a dataset into parts of whole row groups, in the order of the rows.

    A part is a dataset too: 64 MiB of rows in memory. The division depends on the files alone.
    """
    if fits_in_memory(dataset):
        return [dataset]
    parts: list[Dataset] = []
    first = 0
    for path in dataset.paths:
        with pq.ParquetFile(path) as file:
            sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        step = max(1, PART_BYTES // (dataset.row_bytes * max(sizes, default=1)))
        for start in range(0, len(sizes), step):
            groups = range(len(sizes))[start : start + step]
            num_rows = sum(sizes[k] for k in groups)
            part = {"paths": (path,), "row_groups": tuple(groups), "first": first, "num_rows": num_rows}
            parts.append(dataclasses.replace(dataset, **part))
            first += num_rows
    return parts


def block_rows(num_columns: int) -> int:
    """Return the number of rows per block: a power of two, 2^16 at most, about 32 MB of float64 for wide rows."""
    return max(2**10, min(2**16, 1 << ((2**22 // num_columns).bit_length() - 1)))


def pass_over(dataset: Dataset, work: Callable[[Dataset], Result]) -> Iterator[Result]:
    """Yield work(part) for each part of a dataset, in the order of the rows, on all cores; progress is reported."""
    parts, first, is_long = parts_of(dataset), 0, not fits_in_memory(dataset)
    for part, result in zip(parts, map_in_order(work, parts), strict=True):
        first += part.num_rows
        if is_long:
            report_progress(first, dataset.num_rows, "rows of this pass")
        yield result


def write_dataset(
    path: Path,
    blocks: Iterable[Mapping[str, np.ndarray]],
    *,
    features: tuple[str, ...],
    target: str,
    types: Mapping[str, np.dtype[Any]],
    repetitive: frozenset[str],
    weight: str | None = None,
    degree: int = 1,
    columns: Sequence[str] | None = None,
    levels: Mapping[str, Sequence[str]] | None = None,
    notes: Callable[[], Sequence[str]] = tuple,
) -> tuple[int, str]:
    """Write blocks of columns to a Parquet file one by one, and hash the file during writing.

    blocks: each maps every name in `types` to its values, shape (n,).
    repetitive: columns of few distinct values, to be stored as a dictionary.
    degree: highest power of the only feature; powers are computed when rows are read.
    weight, columns, levels, notes: as in `Dataset`; notes are asked for after the last block.

    Returns: the number of rows written, and the digest of the file.
    """
    names = _stored_names(features, weight, target)
    fields = [pa.field(name, pa.from_numpy_dtype(types[name]), nullable=False) for name in names]
    schema = pa.schema(fields)
    num_rows = 0
    with path.open("wb") as stream:
        hashing = HashingWriter(stream)
        with pq.ParquetWriter(
            hashing, schema, compression="NONE", use_dictionary=sorted(repetitive), write_statistics=False
        ) as writer:
            for block in _in_blocks(blocks, block_rows(len(fields))):
                arrays = [pa.array(block[field.name], type=field.type) for field in schema]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
                num_rows += len(arrays[0])
            description = {"features": features, "target": target, "degree": degree, "notes": list(notes())}
            if weight is not None:
                description["weight"] = weight
            description |= {"columns": features if columns is None else columns, "levels": levels or {}}
            writer.add_key_value_metadata({_METADATA_KEY: json.dumps(description).encode()})
    return num_rows, hashing.sha256


def _in_blocks(blocks: Iterable[Mapping[str, np.ndarray]], size: int) -> Iterator[Mapping[str, np.ndarray]]:
    """Cut blocks to one size, so that the bytes of the file depend on the rows alone."""
    waiting: list[Mapping[str, np.ndarray]] = []
    count = 0
    for block in blocks:
        num_rows = len(next(iter(block.values())))
        if not waiting and num_rows == size:
            yield block
            continue
        waiting.append(block)
        count += num_rows
        if count >= size:
            joined = {name: np.concatenate([piece[name] for piece in waiting]) for name in block}
            whole = count - count % size
            for start in range(0, whole, size):
                yield {name: column[start : start + size] for name, column in joined.items()}
            waiting = [{name: column[whole:] for name, column in joined.items()}]
            count -= whole
    if count:
        yield {name: np.concatenate([piece[name] for piece in waiting]) for name in waiting[0]}


def open_dataset(*paths: Path) -> Dataset:
    """Open the files of a dataset and read their metadata.

    paths: in the order of the rows.

    Raises: ValueError: a file is not a dataset written by lntx.
    """
    num_rows = 0
    for path in paths:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata.metadata or {}
            if _METADATA_KEY not in metadata:
                raise ValueError(f"{path} is not a dataset written by lntx")
            num_rows += file.metadata.num_rows
    description = json.loads(metadata[_METADATA_KEY])
    return Dataset(
        paths=paths,
        features=tuple(description["features"]),
        target=description["target"],
        weight=description.get("weight"),
        degree=description["degree"],
        num_rows=num_rows,
        columns=tuple(description["columns"]),
        levels={name: tuple(levels) for name, levels in description["levels"].items()},
        notes=tuple(description["notes"]),
    )


def read_blocks(dataset: Dataset, *, read_rows: int = 2**16, reuse: bool = False) -> Iterator[Block]:
    """Read the rows in blocks whose sizes do not depend on `read_rows`.

    read_rows: rows decoded at a time; affects only the speed. reuse: each block overwrites the one before it: threads
    that allocate large arrays wait for each other.

    Yields: blocks of block_rows(num_terms + 1) rows; the last one may be shorter.
    """
    size, num_features = block_rows(len(dataset.terms) + 1), len(dataset.features)
    for columns in _read_columns(dataset, size, read_rows, reuse):
        x, y = columns[:, :num_features], columns[:, -1]
        row_weights = None if dataset.weight is None else columns[:, num_features]
        if dataset.degree == 1:
            yield Block(x, y, None, row_weights)
        else:
            high, low = powers(x[:, 0], dataset.degree)
            yield Block(high, y, low, row_weights)


def _read_columns(dataset: Dataset, size: int, read_rows: int, reuse: bool) -> Iterator[np.ndarray]:
    """Yield blocks of the columns as they are stored, column-major, shape (n, num_columns)."""
    names = _stored_names(dataset.features, dataset.weight, dataset.target)
    block, filled = _empty(size, len(names)), 0
    for columns in _read_batches(dataset, names, read_rows):
        start, num_rows = 0, len(columns[-1])
        while start < num_rows:
            count = min(size - filled, num_rows - start)
            for j, column in enumerate(columns):
                block[filled : filled + count, j] = column[start : start + count]
            start, filled = start + count, filled + count
            if filled == size:
                yield block
                filled = 0
                if not reuse:
                    block = _empty(size, len(names))
    if filled:
        yield block[:filled]


def _stored_names(features: Sequence[str], weight: str | None, target: str) -> list[str]:
    """Return the names of the columns of a file, in their order."""
    return [*features, *([] if weight is None else [weight]), target]


def _read_batches(dataset: Dataset, names: Sequence[str], read_rows: int) -> Iterator[list[np.ndarray]]:
    """Yield batches of decoded rows, by column."""
    for path in dataset.paths:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            groups = dataset.row_groups or range(file.num_row_groups)
            for batch in file.iter_batches(batch_size=read_rows, row_groups=groups, columns=names, use_threads=False):
                yield [batch.column(name).to_numpy(zero_copy_only=False) for name in names]


def _empty(rows: int, columns: int) -> np.ndarray:
    # Column-major: Parquet is decoded column by column, and BLAS accepts either order.
    return np.empty((rows, columns), order="F")
