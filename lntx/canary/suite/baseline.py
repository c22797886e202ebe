"""What earlier canaries kept, to compare later ones with: one file for each kind of case and device.

Lies under `artifacts/canary/`. A verdict never depends on it.
"""

from __future__ import annotations

import contextlib
import logging
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import ValidationError

from lntx.base.version import __version__
from lntx.config.schema import Section
from lntx.store.key import digest_of
from lntx.store.sealed import DamagedFile, OtherVersion, read_sealed, write_sealed
from lntx.store.store import Store

logger = logging.getLogger(__name__)

_FORMAT = 1
_MAX_RECORDS = 100

R = TypeVar("R", bound=Section)
T = TypeVar("T")


class _Content(Section):
    """What the file holds."""

    format: int
    kind: dict[str, Any]
    records: tuple[dict[str, Any], ...]


class Baseline(Generic[R]):
    """The records of one kind, the latest last.

    record: type of a record. kind: what the records depend on. prefix: of the file's name.
    """

    def __init__(self, store: Store, record: type[R], kind: Mapping[str, Any], *, prefix: str = "") -> None:
        self._store, self._record, self._kind = store, record, kind
        self._name = f"{prefix}{digest_of(kind)[:16]}"
        self.path = store.artifacts / "canary" / f"{self._name}.json"

    def load(self) -> list[R]:
        """Return the records; none if the file is missing, damaged, or written by a newer lntx."""
        with contextlib.suppress(OtherVersion):
            return self._read()
        return []

    def _read(self) -> list[R]:
        try:
            content = read_sealed(self.path, _Content, version=_FORMAT)
            return [self._record.model_validate(record) for record in content.records]
        except (OSError, DamagedFile, ValidationError):
            return []

    def update(self, compare: Callable[[list[R]], tuple[T, R | None]]) -> T | None:
        """Compare with the records under a lock, and keep a new one; a damaged file is set aside.

        compare: gets the records; returns the outcome, and a record to keep or None.

        Returns: the outcome; None if the folder cannot be written, or a newer lntx wrote the file.
        """
        try:
            self._store.locks.mkdir(parents=True, exist_ok=True)
            with self._store.lock(f"canary-{self._name}"):
                records = self._read()
                if not records and self.path.exists():
                    self._store.set_aside(self.path)
                outcome, record = compare(records)
                if record is not None:
                    latest = tuple(entry.model_dump() for entry in [*records, record][-_MAX_RECORDS:])
                    content = _Content(format=_FORMAT, kind=dict(self._kind), records=latest)
                    write_sealed(self.path, content.model_dump(mode="json"))
        except (OSError, OtherVersion) as error:
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


def device_kind(device: str) -> str:
    """Return the model of the processor or GPU that does the arithmetic."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor()
    return f"{platform.machine()} {model}".strip()
