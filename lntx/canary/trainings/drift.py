"""Detect drift: a training gives other bits than earlier canaries of the same kind. Drift is no failure.

Compares bits and versions; gives no verdict.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence

from lntx.base.version import __version__
from lntx.canary.suite.baseline import Baseline, device_kind
from lntx.canary.suite.results import Drift
from lntx.canary.trainings.cases import TrainingCase
from lntx.config.schema import Section
from lntx.pipeline.table import TABLE, identify
from lntx.store.key import code_digest, digest_of
from lntx.store.store import Store
from lntx.training.result import Epoch

_EPOCH_DIGITS = 8


class TrainingBits(Section):
    """The bits of a correct training."""

    at: str
    """Time, ISO 8601 in UTC."""

    versions: dict[str, str]
    """Versions that can change the bits."""

    bits: tuple[str, ...]
    """Digest of the weights and the loss of each epoch."""


def signature(history: Sequence[Epoch]) -> tuple[str, ...]:
    """Return the bits of a training: for each epoch, a digest of its weights and loss."""
    return tuple(
        hashlib.sha256(repr((epoch.coefficients, epoch.loss)).encode()).hexdigest()[:_EPOCH_DIGITS] for epoch in history
    )


def find_drift(store: Store, case: TrainingCase, device: str, history: Sequence[Epoch]) -> Drift | None:
    """Compare a correct training with the last one of the same case on the same kind of device, and keep its bits."""
    now = TrainingBits(at=_now(), versions=_versions(case), bits=signature(history))

    def compare(records: list[TrainingBits]) -> tuple[Drift | None, TrainingBits | None]:
        drift = _compare(case, records, now)
        is_new = drift is not None or not records or records[-1].versions != now.versions
        return drift, now if is_new else None

    return _baseline(store, case, device).update(compare)


def has_run_before(store: Store, case: TrainingCase, device: str) -> bool:
    """Whether a training of the case was correct on this kind of device before."""
    return bool(_baseline(store, case, device).load())


def _baseline(store: Store, case: TrainingCase, device: str) -> Baseline[TrainingBits]:
    kind = {"config": case.pipeline.model_dump(mode="json"), "device": device_kind(device)}
    return Baseline(store, TrainingBits, kind)


def _compare(case: TrainingCase, records: Sequence[TrainingBits], now: TrainingBits) -> Drift | None:
    """Compare with the last record of the same versions, else with the last of all."""
    same = [record for record in records if record.versions == now.versions]
    before = (same or [*records])[-1:]
    if not before or before[0].bits == now.bits:
        return None
    (earlier,) = before
    old, new = earlier.versions, now.versions
    names = sorted(old.keys() | new.keys())
    pairs = zip(earlier.bits, now.bits, strict=False)
    shorter = min(len(earlier.bits), len(now.bits))
    return Drift(
        case=case.name,
        since=earlier.at,
        epoch=next((k for k, (left, right) in enumerate(pairs) if left != right), shorter),
        changed={name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)},
    )


def _versions(case: TrainingCase) -> dict[str, str]:
    """Return the versions that can change the bits of a training."""
    libraries = identify("train", case.pipeline, source_sha256=None, inputs={}).versions
    code = digest_of({name: code_digest(name) for name in {*TABLE["generate"].modules, *TABLE["train"].modules}})
    return {**libraries, "lntx": __version__, "code of lntx": code[:12]}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
