"""The planner: which stages are fresh, stale, missing or damaged, and why. Used by `plan`, by runs and by Prefect.

Computes no results, and writes nothing but the digests of large files (`stat_cache`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

from lntx.base.stages import STAGES, Selection, Stage
from lntx.config.schema import Pipeline
from lntx.pipeline.table import TABLE, identify
from lntx.store.key import Identity, changes
from lntx.store.record import Record
from lntx.store.store import Store

# Number of latest records to search for the most similar one: a reason should name what the user changed, not what
# other runs used since.
_COMPARED = 20

State = Literal["fresh", "stale", "missing", "damaged", "depends"]


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What a run would do with a stage, and why."""

    stage: Stage
    """Name of the stage."""

    state: State
    """fresh: its stored result is used. stale, missing, damaged: it is computed. depends: its input is computed
    again; if the input stays the same, the stored result is used."""

    reason: str | None
    """Why it is not fresh; None if it is."""

    record: Record | None
    """The stored result; None if it is not fresh."""


def source_digest(pipeline: Pipeline) -> str | None:
    """Return the digest of the user's file, or None if the rows are generated.

    Raises: BadInput: the file is missing, unreadable or empty.
    """
    if pipeline.data.path is None:
        return None
    from lntx.data.tables import look_at

    return look_at(pipeline.data.path).sha256


def plan(store: Store, pipeline: Pipeline, selection: Selection) -> dict[Stage, StagePlan]:
    """Plan every stage up to the last one selected.

    Raises: BadInput: a package or the user's file is missing.
    """
    source = source_digest(pipeline)
    plans: dict[Stage, StagePlan] = {}
    for stage in STAGES[: STAGES.index(selection.stages[-1]) + 1]:
        inputs: dict[str, str] = {}
        for upstream in TABLE[stage].inputs:
            record = plans[upstream].record
            if record is not None:
                inputs[upstream] = record.content
        identity = identify(stage, pipeline, source_sha256=source, inputs=inputs)
        plans[stage] = plan_stage(store, identity, forced=stage in selection.forced)
    return plans


def plan_stage(store: Store, identity: Identity, *, forced: bool) -> StagePlan:
    """Plan one stage. Inputs that are missing in the identity will be computed again."""
    stage = identity.stage
    if forced:
        return StagePlan(stage=stage, state="stale", reason="forced", record=None)
    if set(identity.inputs) != set(TABLE[stage].inputs):
        return _plan_depending(store, identity)
    finding = store.find(identity)
    names = {file.name for file in finding.record.files} if finding.record is not None else set()
    if finding.state == "fresh" and not names >= set(TABLE[stage].leaves):
        return StagePlan(stage=stage, state="damaged", reason="its record does not name all of its files", record=None)
    if finding.state == "fresh":
        return StagePlan(stage=stage, state="fresh", reason=None, record=finding.record)
    if finding.state == "damaged":
        return StagePlan(stage=stage, state="damaged", reason=finding.reason, record=None)
    if finding.state == "quarantined":
        return StagePlan(stage=stage, state="stale", reason=finding.reason, record=None)
    return _plan_unknown(store, identity)


def _plan_depending(store: Store, identity: Identity) -> StagePlan:
    """Plan a stage whose inputs are not known yet: it is cached if an intact record, equal but for the inputs, fits."""
    stage = identity.stage
    findings = [store.check(record) for record in store.records(stage, own=identity.own)]
    waiting = " and ".join(upstream for upstream in TABLE[stage].inputs if upstream not in identity.inputs)
    if any(finding.state == "fresh" for finding in findings):
        reason = f"reused if {waiting} {'give' if ' and ' in waiting else 'gives'} the same results"
        return StagePlan(stage=stage, state="depends", reason=reason, record=None)
    if findings:
        state: State = "damaged" if findings[0].state == "damaged" else "stale"
        return StagePlan(stage=stage, state=state, reason=findings[0].reason, record=None)
    return _plan_unknown(store, identity)


def _plan_unknown(store: Store, identity: Identity) -> StagePlan:
    """Plan a stage without a record of its key: name the differences from the most similar of the latest records."""
    latest = itertools.islice(store.records(identity.stage), _COMPARED)
    clauses = min((differences(record.identity, identity) for record in latest), key=len, default=None)
    if clauses is None:
        return StagePlan(stage=identity.stage, state="missing", reason="never computed", record=None)
    return StagePlan(stage=identity.stage, state="stale", reason="; ".join(clauses), record=None)


def differences(before: Identity, after: Identity) -> list[str]:
    """Return the differences between two identities of a stage, one clause each."""
    clauses = [_difference(key, old, new) for key, old, new in changes(before.config, after.config)]
    clauses += [f"{name} {old} → {new}" for name, old, new in changes(before.versions, after.versions)]
    clauses += [f"code of lntx.{name} changed" for name, _, _ in changes(before.code, after.code)]
    clauses += [f"result of {name} changed" for name, _, new in changes(before.inputs, after.inputs) if new is not None]
    clauses += [f"{name} will be computed" for name in TABLE[after.stage].inputs if name not in after.inputs]
    return clauses or ["computed with other inputs"]


def _difference(key: str, old: Any, new: Any) -> str:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new) > 1:
        changed = [j for j in range(len(old)) if old[j] != new[j]]
        j = changed[0]
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"{key}.{j}: {_show(old[j])} → {_show(new[j])}{more}"
    return f"{key}: {_show(old)} → {_show(new)}"


def _show(value: Any) -> str:
    if value is None:
        return "none"
    text = ", ".join(map(_show, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
