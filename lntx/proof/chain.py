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


def digest(storage: torch.UntypedStorage) -> int:
    """Return the sum of a storage's words of 64 bits, modulo 2^64: it changes with any single bit."""
    size = storage.nbytes()
    whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    words = whole[: size - size % 8].view(torch.int64)
    found = int(words.sum())
    if size % 8:
        last = whole[size - size % 8 :].to(torch.int64)
        found += int((last * torch.arange(1, size % 8 + 1, device=whole.device)).sum())
    return found


class Chain:
    """Digests of storages as they were last written, and by whom."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}
        self._since_cleaning = 0

    def read(self, storage: torch.UntypedStorage, reader: str) -> Change | None:
        """Compare a storage with what was written to it; one that was not seen before is taken as it is."""
        kept = self._kept.get(storage._cdata)
        if kept is None or kept.alive.expired():
            self._keep(storage, "the program, before the proof")
            return None
        if kept.digest == digest(storage):
            return None
        # Told once: the next reader is compared with what is there now.
        self._keep(storage, kept.writer)
        return Change(writer=kept.writer, reader=reader)

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
            self._kept = {key: kept for key, kept in self._kept.items() if not kept.alive.expired()}
