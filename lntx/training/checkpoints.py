"""Checkpoints from which an interrupted training resumes: one file, replaced atomically every few seconds.

Stores tensors and plain numbers; independent of the training itself.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from pathlib import Path
from typing import Any

import torch

from lntx.base.files import read_regular, sync

logger = logging.getLogger(__name__)

# A checkpoint is due after this many times the duration of the last one, which keeps the cost below 2 %, but not before
# this many seconds.
_TIMES_ITS_COST = 60
_NO_SOONER_S = 1.0
_DIGEST_BYTES = 64


class Checkpoints:
    """Checkpoints of one training.

    path: file of the checkpoint; None disables checkpoints.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._saved_at = time.monotonic()
        self._cost = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        waited = time.monotonic() - self._saved_at
        return self._path is not None and waited >= max(_NO_SOONER_S, _TIMES_ITS_COST * self._cost)

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint. state: tensors, numbers, strings, and lists and dictionaries of them."""
        assert self._path is not None
        started = time.monotonic()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getvalue()
        beside = self._path.with_suffix(".partial")
        with beside.open("wb") as stream:
            stream.write(hashlib.sha256(payload).hexdigest().encode())
            stream.write(payload)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(self._path)
        sync(self._path.parent)
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started

    def load(self) -> dict[str, Any] | None:
        """Return the checkpoint of an interrupted training, or None if there is none or it is damaged."""
        if self._path is None:
            return None
        try:
            content = read_regular(self._path)
        except OSError:
            return None
        digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(payload).hexdigest().encode() != digest:
            logger.warning("%s is damaged: training starts again", self._path.name)
            return None
        state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True)
        return state
