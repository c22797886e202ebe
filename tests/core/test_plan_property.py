"""What `plan` says is what `run` does, whatever happened before. Run: pytest tests/core/test_plan_property.py"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lntx
from lntx.base.stages import STAGES, Stage, select
from lntx.config.loading import settle
from lntx.config.schema import Pipeline
from lntx.pipeline.plan import StagePlan, plan
from lntx.store.store import Store

CONFIGURATIONS = st.fixed_dictionaries(
    {
        "data": st.fixed_dictionaries({"seed": st.integers(0, 1), "num_rows": st.sampled_from([20, 30])}),
        "train": st.fixed_dictionaries({"seed": st.integers(0, 1), "max_epochs": st.sampled_from([3, 1000])}),
        "evaluate": st.fixed_dictionaries({"rtol": st.sampled_from([1e-7, 1e-6])}),
        "export": st.just({"formats": ["safetensors"]}),
    }
)
# A share of what is stored, by its place in the sorted list, is taken away or altered.
ACCIDENTS = st.lists(st.tuples(st.sampled_from(["delete", "alter"]), st.floats(0, 0.999)), max_size=2)
STEPS = st.lists(
    st.tuples(CONFIGURATIONS, ACCIDENTS, st.sets(st.sampled_from(STAGES), max_size=2)), min_size=2, max_size=5
)


def _stored(root: Path) -> list[Path]:
    folders = ("data", "artifacts/train", "artifacts/evaluate", "artifacts/export", "artifacts/records")
    return sorted(path for folder in folders for path in (root / folder).rglob("*") if path.is_file())


def _happen(root: Path, accidents: list[tuple[str, float]]) -> None:
    for kind, share in accidents:
        files = _stored(root)
        if files:
            path = files[int(share * len(files))]
            if kind == "delete":
                path.unlink()
            else:
                path.write_bytes(path.read_bytes()[::-1])


def _intact_keys(store: Store, stage: Stage) -> set[str]:
    return {record.key for record in store.records(stage) if store.check(record).state == "fresh"}


def _check(root: Path, config: Pipeline, forced: set[Stage]) -> None:
    store = Store(root)
    planned: dict[Stage, StagePlan] = plan(store, config, select(force=sorted(forced)))
    intact = {stage: _intact_keys(store, stage) for stage in STAGES}
    run = lntx.run(config, force=sorted(forced), root=root)
    for stage in STAGES:
        done: Any = run.stages[stage]
        said = planned[stage].state
        if said == "fresh":
            assert done.state == "cached", (stage, said)
        elif said == "depends":
            assert (done.state == "cached") == (done.key in intact[stage]), (stage, said)
        else:
            assert done.state in ("ran", "failed"), (stage, said)
        if done.state == "failed":
            break


def _sequence(steps: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        for overrides, accidents, forced in steps:
            _happen(root, accidents)
            _check(root, settle(overrides=overrides), forced)


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_what_is_planned_is_done(steps: list[Any]) -> None:
    _sequence(steps)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_what_is_planned_is_done_in_many_ways(steps: list[Any]) -> None:
    _sequence(steps)
