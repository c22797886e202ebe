"""Check that the stored rows are read as they were written: the part of the verdict about the data.

Reads and compares; knows no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lntx.base.files import sha256_of
from lntx.config.schema import Data
from lntx.data.dataset import Block, Dataset, read_blocks
from lntx.data.row_digest import RowsDigest
from lntx.data.synthetic import generate_blocks


class Redrawn:
    """Compares rows, as they are read, with the same rows generated again, bit for bit.

    part: the dataset, or a part of it. hashes: whether to compute the digest of the generated rows.
    """

    def __init__(self, part: Dataset, data: Data, *, hashes: bool = False) -> None:
        self._part, self._data = part, data
        self._digest = RowsDigest() if hashes else None
        self.difference: str | None = None

    @property
    def sha256(self) -> str | None:
        """Digest of the generated rows, once all were compared and none differed."""
        return None if self._digest is None or self.difference is not None else self._digest.sha256

    def through(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the blocks read; the first difference is kept in `difference`."""
        part, read = self._part, 0
        generated = generate_blocks(self._data, first=part.first, stop=part.first + part.num_rows)
        for block in blocks:
            if self.difference is None:
                self._compare(block, next(generated, None), part.first + read + 1)
            read += len(block.y)
            yield block
        if read != part.num_rows:
            first, last = part.first + 1, part.first + part.num_rows
            which = f" of rows {first} to {last}" if last - first + 1 != self._data.num_rows else ""
            self.difference = f"{read} rows are read where {part.num_rows} were generated{which}"

    def _compare(self, block: Block, generated: tuple[np.ndarray, np.ndarray] | None, first: int) -> None:
        if generated is None or len(generated[1]) != len(block.y):
            # The number of rows will say what is wrong.
            self.difference = f"the rows from row {first} on are not those that were generated"
            return
        if self._digest is not None:
            self._digest.add(*generated)
        names = [*self._part.features, self._part.target]
        differences = []
        for name, read, right in zip(names, (*block.x.T, block.y), (*generated[0].T, generated[1]), strict=True):
            expected = right.astype(np.float64, copy=False)
            # Compare bit for bit, including NaN.
            differs = read.view(np.int64) != expected.view(np.int64)
            if differs.any():
                row = int(differs.argmax())
                differences.append((row, f"{name} = {float(read[row])!r} where {float(expected[row])!r}"))
        if differences:
            row, what = min(differences, key=lambda difference: difference[0])
            self.difference = f"row {first + row} reads {what} was generated"


def other_number(dataset: Dataset, data: Data) -> str | None:
    """Return a clause if the dataset has another number of rows than were generated, or None."""
    if dataset.num_rows == data.num_rows:
        return None
    return f"the dataset has {dataset.num_rows} rows where {data.num_rows} were generated"


def other_reading(readings: Sequence[str], sha256: str | None) -> str | None:
    """Return a clause if earlier readings, of which these are the digests, gave other rows than were generated."""
    if sha256 is None or not set(readings) - {sha256}:
        return None
    return "an earlier reading, by training or by the exact solution, gave other rows than this one"


def damaged_rows(dataset: Dataset, data: Data, *, readings: Sequence[str]) -> str | None:
    """Compare the rows read with the same rows generated again, bit for bit. Return the first difference, or None.

    readings: digests of the rows of earlier readings, if any were computed.
    """
    difference = other_number(dataset, data)
    if difference is not None:
        return difference
    check = Redrawn(dataset, data, hashes=bool(readings))
    for _ in check.through(read_blocks(dataset)):
        pass
    return check.difference or other_reading(readings, check.sha256)


def damaged_file(dataset: Dataset, sha256: str, *, readings: Sequence[str]) -> str | None:
    """Compare the stored file of a user's rows with its digest. Return a clause about the difference, or None.

    readings: digests of the rows as training and the exact solution read them, if they were computed.
    """
    (path,) = dataset.paths
    if sha256_of(path) != sha256:
        return f"{path.name} is not the file that was stored"
    if len(set(readings)) <= 1:
        return None
    return f"{path.name} was read as other rows at one time, by training or by the exact solution, than at another"
