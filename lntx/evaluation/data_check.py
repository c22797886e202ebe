"""Check that the stored rows are read as they were written: the part of the verdict about the data.

Reads and compares; knows no model.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from lntx.config.schema import Data
from lntx.data.dataset import Dataset, read_blocks
from lntx.data.row_digest import RowsDigest
from lntx.data.synthetic import generate_blocks
from lntx.files import sha256_of


def damaged_rows(dataset: Dataset, data: Data, *, readings: Sequence[str]) -> str | None:
    """Compare the rows read with the same rows generated again, bit for bit. Return the first difference, or None.

    readings: digests of the rows of earlier readings, by training and by the exact solution, if any were computed.
    """
    if dataset.num_rows != data.num_rows:
        return f"the dataset has {dataset.num_rows} rows where {data.num_rows} were generated"
    drawn_digest, first = RowsDigest(), 1
    for block, drawn in itertools.zip_longest(read_blocks(dataset), generate_blocks(data)):
        if block is None or drawn is None or len(block.y) != len(drawn[1]):
            return f"{_count(dataset)} rows are read where {data.num_rows} were generated"
        if readings:
            drawn_digest.add(*drawn)
        read, right = (np.column_stack(columns) for columns in ((block.x, block.y), drawn))
        # Compare bit for bit, including NaN.
        differs = read.view(np.int64) != right.astype(np.float64).view(np.int64)
        if differs.any():
            row, column = (int(place) for place in np.argwhere(differs)[0])
            name = [*dataset.features, dataset.target][column]
            return (
                f"row {first + row} reads {name} = {float(read[row, column])!r} where "
                f"{float(right[row, column])!r} was generated"
            )
        first += len(block.y)
    if set(readings) - {drawn_digest.sha256}:
        return "an earlier reading, by training or by the exact solution, gave other rows than this one"
    return None


def damaged_file(dataset: Dataset, sha256: str, *, readings: Sequence[str]) -> str | None:
    """Compare the stored file of a user's rows with its digest. Return a clause about the difference, or None.

    readings: digests of the rows of earlier readings, by training and by the exact solution, if any were computed.
    """
    (path,) = dataset.paths
    if sha256_of(path) != sha256:
        return f"{path.name} is not the file that was stored"
    if not readings:
        return None
    digest = RowsDigest()
    for block in read_blocks(dataset):
        digest.add(block.x, block.y)
    if set(readings) == {digest.sha256}:
        return None
    return f"{path.name} was read as other rows earlier, by training or by the exact solution, than now"


def _count(dataset: Dataset) -> int:
    return sum(len(block.y) for block in read_blocks(dataset))
