"""Which stages are fresh, stale, missing or damaged, and why: one planner for `plan`, for runs and for Prefect.

Looks; computes nothing, and writes nothing but what it learned of large files (`stat_cache`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

from lntx.config.schema import Pipeline
from lntx.data.tables import look_at
from lntx.pipeline.table import TABLE, identify
from lntx.stages import STAGES, Selection, Stage
from lntx.store.key import Identity, changes
from lntx.store.record import Record
from lntx.store.store import Store

# Records to look for the nearest one among: a reason should name what was changed, not what else was run since.
_COMPARED = 20

State = Literal["fresh", "stale", "missing", "damaged", "depends"]


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What would happen to a stage, and why."""

    stage: Stage
    """The stage."""

    state: State
    """fresh: its stored result is used. stale, missing, damaged: it is computed. depends: its input is computed
    again, and it is cached if that comes out the same."""

    reason: str | None
    """Why it is not fresh."""

    record: Record | None
    """The stored result, where it is fresh."""


def source_digest(pipeline: Pipeline) -> str | None:
    """Digest of the user's file, if there is one.

    Raises: BadInput: the file is missing, unreadable or empty.
    """
    return None if pipeline.data.path is None else look_at(pipeline.data.path).sha256


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
    """Plan one stage. An input that the identity lacks is one that will be computed again."""
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
    """Inputs are unknown: the stage is cached if they come out as in any intact record that is otherwise alike."""
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
    """No record has this key: say what differs from the nearest of the latest ones."""
    latest = itertools.islice(store.records(identity.stage), _COMPARED)
    clauses = min((differences(record.identity, identity) for record in latest), key=len, default=None)
    if clauses is None:
        return StagePlan(stage=identity.stage, state="missing", reason="never computed", record=None)
    return StagePlan(stage=identity.stage, state="stale", reason="; ".join(clauses), record=None)


def differences(before: Identity, after: Identity) -> list[str]:
    """What differs between two identities of a stage, one clause each."""
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
