"""The bits between operators: what one wrote is what the next one reads. Knows storages, and no formula."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.multiprocessing.reductions import StorageWeakRef


@dataclass(frozen=True, kw_only=True)
class Change:
    """Bits that changed while no operator wrote."""

    writer: str
    """Who wrote them last."""

    reader: str
    """Who read others."""


@dataclass(frozen=True)
class _Kept:
    digest: int
    writer: str
    alive: StorageWeakRef


_WIDTH = 1024


def digest(storage: torch.UntypedStorage) -> int:
    """Return a digest of a storage's bytes, modulo 2^64: it changes with any single bit, or if words change places.

    The words of 64 bits are laid out in rows of 1,024; the sums of columns and of rows are weighted by odd numbers.
    """
    size = storage.nbytes()
    whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    words = whole[: size - size % 8].view(torch.int64)
    body = words[: len(words) - len(words) % _WIDTH].view(-1, _WIDTH)
    total = _weighted(words[body.numel() :]) + 3 * _weighted(whole[size - size % 8 :].to(torch.int64))
    if len(body):
        total += 5 * _weighted(body.sum(0)) + 7 * _weighted(body.sum(1))
    return total % 2**64


def _weighted(words: torch.Tensor) -> int:
    return int((words * torch.arange(1, 2 * len(words) + 1, 2, device=words.device)).sum()) if len(words) else 0


class Chain:
    """Digests of storages as they were last written, and by whom."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}
        self._since_cleaning = 0

    def read(self, storage: torch.UntypedStorage, reader: str) -> Change | None:
        """Compare a storage with what was written to it; one that was not seen before is taken as it is."""
        known = self._kept.get(storage._cdata)
        if known is None or known.alive.expired():
            self._keep(storage, "the program, before the proof")
            return None
        if known.digest == digest(storage):
            return None
        # Told once: the next reader is compared with what is there now.
        self._keep(storage, known.writer)
        return Change(writer=known.writer, reader=reader)

    def wrote(self, storage: torch.UntypedStorage, writer: str) -> None:
        """Note what a storage holds after an operator wrote to it."""
        self._keep(storage, writer)

    def drop(self, storage: torch.UntypedStorage) -> None:
        """Forget a storage that something else writes to at a time of its own."""
        self._kept.pop(storage._cdata, None)

    def _keep(self, storage: torch.UntypedStorage, writer: str) -> None:
        # The weak reference keeps the address from being taken by another storage.
        self._kept[storage._cdata] = _Kept(digest(storage), writer, StorageWeakRef(storage))
        self._since_cleaning += 1
        if self._since_cleaning > 1000:
            self._since_cleaning = 0
            self._kept = {key: known for key, known in self._kept.items() if not known.alive.expired()}
