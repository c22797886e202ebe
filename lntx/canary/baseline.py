"""What earlier canaries kept, to compare later ones with: one file for each kind of case and device.

Lies under `artifacts/canary/`. A verdict never depends on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np

from lntx import __version__
from lntx.config.schema import Section
from lntx.files import read_json, write_json
from lntx.store.key import digest_of
from lntx.store.store import Store

logger = logging.getLogger(__name__)

_MAX_RECORDS = 100

R = TypeVar("R", bound=Section)
T = TypeVar("T")


class Baseline(Generic[R]):
    """The records of one kind, the latest last.

    record: type of a record. kind: what the records depend on. prefix: of the file's name.
    """

    def __init__(self, store: Store, record: type[R], kind: Mapping[str, Any], *, prefix: str = "") -> None:
        self._store, self._record, self._kind = store, record, kind
        self._name = f"{prefix}{digest_of(kind)[:16]}"
        self._path = store.artifacts / "canary" / f"{self._name}.json"

    def load(self) -> list[R]:
        """Return the records; none if the file is missing or damaged."""
        try:
            return [self._record.model_validate(record) for record in read_json(self._path)["records"]]
        except (OSError, ValueError, LookupError, TypeError):
            return []

    def update(self, compare: Callable[[list[R]], tuple[T, R | None]]) -> T | None:
        """Compare with the records under a lock, and keep a new one; a damaged file is set aside.

        compare: gets the records; returns the outcome, and a record to keep or None.

        Returns: the outcome; None if the folder cannot be written.
        """
        try:
            self._store.locks.mkdir(parents=True, exist_ok=True)
            with self._store.lock(f"canary-{self._name}"):
                records = self.load()
                if not records and self._path.exists():
                    self._store.set_aside(self._path)
                outcome, record = compare(records)
                if record is not None:
                    stored = [stored.model_dump() for stored in [*records, record][-_MAX_RECORDS:]]
                    write_json(self._path, {**self._kind, "records": stored})
        except OSError as error:
            logger.warning("what this canary measured is not kept: %s", error)
            return None
        return outcome


def installed_versions() -> dict[str, str]:
    """Return the versions of lntx, torch and numpy, and the instruction set of torch's kernels."""
    import torch

    return {
        "lntx": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "kernels": torch.backends.cpu.get_cpu_capability(),
    }
