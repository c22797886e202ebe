"""Detect drift: a training gives other bits than earlier canaries of the same kind. Drift is no failure.

Keeps one file per case and device under `artifacts/canary/`. Compares bits and versions; gives no verdict.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lntx import __version__
from lntx.canary.cases import Case
from lntx.config.schema import Section
from lntx.files import read_json, write_json
from lntx.pipeline.table import TABLE, identify
from lntx.store.key import code_digest, digest_of
from lntx.store.store import Store
from lntx.training.result import Epoch

logger = logging.getLogger(__name__)

_KEPT = 100
_EPOCH_DIGITS = 8


class Drift(Section):
    """A correct training whose bits differ from those of an earlier one."""

    case: str
    """Name of the case."""

    since: str
    """Time of the earlier training, ISO 8601 in UTC."""

    epoch: int
    """The first epoch that differs; 0 is the start."""

    changed: dict[str, tuple[str | None, str | None]]
    """Versions that changed meanwhile, old and new; empty if the same versions gave other bits."""

    @property
    def sentence(self) -> str:
        """The drift as a sentence for the user."""
        if not self.changed:
            why = "with the same versions: look at the machine, and repeat with --repeat 10"
        else:
            why = "with " + ", ".join(f"{name} {old} → {new}" for name, (old, new) in self.changed.items())
        return f"drift: {self.case} gives other bits since {self.since}, from epoch {self.epoch} on, {why}"


class _Witness(Section):
    """The bits of an earlier canary."""

    at: str
    versions: dict[str, str]
    bits: list[str]


def signature(history: Sequence[Epoch]) -> tuple[str, ...]:
    """Return the bits of a training: for each epoch, a digest of its weights and loss."""
    return tuple(
        hashlib.sha256(repr((epoch.coefficients, epoch.loss)).encode()).hexdigest()[:_EPOCH_DIGITS] for epoch in history
    )


def watch(store: Store, case: Case, device: str, history: Sequence[Epoch]) -> Drift | None:
    """Compare a correct training with the last one of the same case on the same kind of device, and store its bits."""
    kind, key, path = _place(store, case, device)
    now = {"at": _now(), "versions": _versions(case), "bits": list(signature(history))}
    try:
        store.locks.mkdir(parents=True, exist_ok=True)
        with store.lock(f"canary-{key}"):
            records = _load(path)
            if not records and path.exists():
                store.set_aside(path)
            drift = _compare(case, records, now)
            if drift is not None or not records or records[-1]["versions"] != now["versions"]:
                records = [*records, now][-_KEPT:]
                write_json(path, {"case": case.name, **kind, "records": records})
    except OSError as error:
        # The verdict does not depend on the stored bits.
        logger.warning("the bits of this canary are not kept: %s", error)
        return None
    return drift


def has_kept_bits(store: Store, case: Case, device: str) -> bool:
    """Whether a training of the case was correct on this kind of device before."""
    return bool(_load(_place(store, case, device)[2]))


def _place(store: Store, case: Case, device: str) -> tuple[dict[str, Any], str, Path]:
    """Return what the bits depend on, its digest, and the file of the bits."""
    kind = {"config": case.pipeline.model_dump(mode="json"), "device": device_kind(device)}
    key = digest_of(kind)
    return kind, key, store.artifacts / "canary" / f"{key[:16]}.json"


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


def _compare(case: Case, records: Sequence[dict[str, Any]], now: dict[str, Any]) -> Drift | None:
    """Compare with the last record of the same versions, else with the last of all."""
    same = [record for record in records if record["versions"] == now["versions"]]
    before = (same or [*records])[-1:]
    if not before or before[0]["bits"] == now["bits"]:
        return None
    old, new = before[0]["versions"], now["versions"]
    names = sorted(old.keys() | new.keys())
    pairs = zip(before[0]["bits"], now["bits"], strict=False)
    shorter = min(len(before[0]["bits"]), len(now["bits"]))
    return Drift(
        case=case.name,
        since=before[0]["at"],
        epoch=next((k for k, (left, right) in enumerate(pairs) if left != right), shorter),
        changed={name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)},
    )


def _versions(case: Case) -> dict[str, str]:
    """Return the versions that can change the bits of a training."""
    found = identify("train", case.pipeline, source_sha256=None, inputs={}).versions
    code = digest_of({name: code_digest(name) for name in {*TABLE["generate"].modules, *TABLE["train"].modules}})
    return {**found, "lntx": __version__, "code of lntx": code[:12]}


def _load(path: Path) -> list[dict[str, Any]]:
    try:
        records = read_json(path)["records"]
        return [_Witness.model_validate(one).model_dump() for one in records]
    except (OSError, ValueError, LookupError, TypeError):
        # A missing or damaged file is no baseline for drift: start a new history.
        return []


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
