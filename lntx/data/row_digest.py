"""A digest of the values of rows, independent of their file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from lntx.data.dataset import Block


class RowsDigest:
    """sha256 of rows, float64, in blocks as `read_blocks` and `generate_blocks` yield them."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, x: np.ndarray, *columns: np.ndarray) -> None:
        """Add a block. x: shape (n, num_features). columns: of shape (n,) each."""
        for column in (*x.T, *columns):
            self._digest.update(np.ascontiguousarray(column, dtype=np.float64).data)

    def through(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Yield the same blocks, adding each to the digest."""
        for block in blocks:
            self.add(block.x, block.y, *([] if block.row_weights is None else [block.row_weights]))
            yield block

    @property
    def sha256(self) -> str:
        """The digest, in hexadecimal."""
        return self._digest.hexdigest()
