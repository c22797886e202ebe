"""The runner and its cache: what runs again, what does not, and that `plan` says so before. No Prefect.

Run: pytest tests/core/test_pipeline.py
"""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from commandline import DATA
from planned import planned as _planned

import lntx
from lntx.base.errors import BadInput, NotFresh
from lntx.base.stages import STAGES
from lntx.config.loading import parse_text
from lntx.config.schema import Data
from lntx.runs.run import Run
from lntx.store.store import Store


def _states(run: Run) -> str:
    """One letter per stage: r(an), c(ached), s(kipped), f(ailed)."""
    return "".join(run.stages[stage].state[0] for stage in STAGES)


def _agrees(planned: dict[str, tuple[str, str | None]], run: Run) -> None:
    """Whatever the plan called other than `depends` is what the run did."""
    for stage, (state, _) in planned.items():
        did = run.stages[stage].state
        if state == "fresh":
            assert did == "cached", stage
        elif state != "depends" and did != "skipped":
            assert did in ("ran", "failed"), stage


def test_the_second_run_computes_nothing(tmp_path: Path) -> None:
    first = lntx.run(root=tmp_path)
    assert _states(first) == "rrrr"
    assert first.verdict == "pass"
    assert first.learned_weights == first.true_weights == (3.7,)
    assert first.digits == 15.95
    assert _planned(tmp_path) == dict.fromkeys(STAGES, ("fresh", None))
    second = lntx.run(root=tmp_path)
    assert _states(second) == "cccc"
    assert second.exports == first.exports
    assert {stage: report.key for stage, report in second.stages.items()} == {
        stage: report.key for stage, report in first.stages.items()
    }


@pytest.mark.parametrize(
    ("options", "states", "reasons"),
    [
        ({"train": {"learning_rate": 0.01}}, "crrr", {"train": "train.learning_rate: auto → 0.01"}),
        ({"train": {"seed": 5}}, "crrr", {"train": "train.seed: 0 → 5"}),
        ({"data": {"seed": 5}}, "rrrr", {"generate": "data.seed: 0 → 5"}),
        ({"evaluate": {"rtol": 1e-9}}, "ccrr", {"evaluate": "evaluate.rtol: none → 1e-09"}),
        (
            {"export": {"formats": ["safetensors"]}},
            "cccr",
            {"export": "export.formats: safetensors, pt2 → safetensors"},
        ),
    ],
)
def test_a_changed_setting_reruns_what_reads_it(
    tmp_path: Path, options: dict[str, Any], states: str, reasons: dict[str, str]
) -> None:
    lntx.run(root=tmp_path)
    planned = _planned(tmp_path, **options)
    for stage, reason in reasons.items():
        assert planned[stage] == ("stale", reason)
    run = lntx.run(root=tmp_path, **options)
    assert _states(run) == states
    _agrees(planned, run)
    # Going back is free.
    assert _states(lntx.run(root=tmp_path)) == "cccc"


def test_a_reason_names_what_was_changed_and_not_what_else_was_run(tmp_path: Path) -> None:
    lntx.run(root=tmp_path, until="train")
    lntx.run(root=tmp_path, until="train", data={"num_features": 2, "bias": 1.0}, train={"momentum": 0.5})
    assert _planned(tmp_path, until="train", train={"seed": 3})["train"] == ("stale", "train.seed: 0 → 3")


def test_numbers_are_compared_and_not_their_spelling(tmp_path: Path) -> None:
    """A form turns 1.0 into 1: that is no change."""
    lntx.run(root=tmp_path, until="train", data={"low": 1, "noise": 2})
    again = lntx.run(root=tmp_path, until="train", data={"low": 1.0, "noise": 2.0, "weights": [3.7]})
    assert _states(again) == "ccss"


@pytest.mark.parametrize(
    ("stage", "states"), [("generate", "rccc"), ("train", "crcc"), ("evaluate", "ccrc"), ("export", "cccr")]
)
@pytest.mark.parametrize("harm", ["delete", "flip", "empty"])
def test_a_harmed_file_reruns_its_stage_alone(
    tmp_path: Path, stage: str, states: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = lntx.run(root=tmp_path, export={"formats": ["safetensors"]})
    for file in first.stages[stage].files:  # type: ignore[index]
        path = tmp_path / file.path
        content = path.read_bytes()
        if harm == "delete":
            path.unlink()
        else:
            path.write_bytes(b"" if harm == "empty" else content[:-1] + bytes([content[-1] ^ 1]))
        planned = _planned(tmp_path, export={"formats": ["safetensors"]})
        assert planned[stage][0] == "damaged"
        assert file.path in (planned[stage][1] or "")
        caplog.clear()
        run = lntx.run(root=tmp_path, export={"formats": ["safetensors"]})
        assert _states(run) == states
        _agrees(planned, run)
        warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == 1
        assert file.path in warnings[0]
        assert path.read_bytes() == content


def test_a_deleted_record_reruns_its_stage_alone(tmp_path: Path) -> None:
    first = lntx.run(root=tmp_path)
    for stage, states in zip(STAGES, ("rccc", "crcc", "ccrc", "cccr"), strict=True):
        (record,) = (tmp_path / "artifacts" / "records" / stage).glob(f"*{first.stages[stage].key}.json")
        record.unlink()
        assert _planned(tmp_path)[stage][0] == "missing"
        assert _states(lntx.run(root=tmp_path)) == states


def test_a_damaged_record_is_kept_aside_even_where_its_stage_is_forced(tmp_path: Path) -> None:
    first = lntx.run(root=tmp_path, until="train")
    (record,) = (tmp_path / "artifacts" / "records" / "train").glob(f"*{first.stages['train'].key}.json")
    record.write_text("{}")
    lntx.run(root=tmp_path, until="train", force="train")
    (kept,) = (tmp_path / "artifacts" / ".damaged").iterdir()
    assert kept.read_text() == "{}"


@pytest.mark.parametrize(
    ("range_", "states"),
    [
        ({"only": "train"}, "crss"),
        ({"from_stage": "train"}, "crrr"),
        ({"until": "evaluate"}, "crrs"),
        ({"from_stage": "train", "until": "evaluate"}, "crrs"),
        ({"only": "generate"}, "csss"),
    ],
)
def test_ranges_run_what_they_say(tmp_path: Path, range_: dict[str, Any], states: str) -> None:
    lntx.run(root=tmp_path)
    run = lntx.run(root=tmp_path, train={"seed": 1}, **range_)
    assert _states(run) == states
    assert (run.verdict is None) == ("evaluate" not in [s for s in STAGES if run.stages[s].state != "skipped"])


@pytest.mark.parametrize(
    ("range_", "states"),
    [
        ({"force": ["all"]}, "rrrr"),
        ({"force": ["train"]}, "crcc"),
        ({"force": ["train", "export"]}, "crcr"),
        ({"only": "evaluate", "force": ["all"]}, "ccrs"),
        ({"from_stage": "evaluate", "force": ["all"]}, "ccrr"),
    ],
)
def test_forced_stages_run_and_the_same_result_goes_no_further(
    tmp_path: Path, range_: dict[str, Any], states: str
) -> None:
    lntx.run(root=tmp_path)
    planned = _planned(tmp_path, **range_)
    run = lntx.run(root=tmp_path, **range_)
    assert _states(run) == states
    _agrees(planned, run)
    assert all(reason == "forced" for state, reason in planned.values() if state == "stale")


def test_a_range_that_starts_from_nothing_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(NotFresh, match=r"generate has no stored result.*--until generate") as caught:
        lntx.run(root=tmp_path, only="train")
    assert caught.value.exit_code == 4


def test_the_tutorial_fails_says_why_and_its_advice_passes(tmp_path: Path) -> None:
    run = lntx.run(preset="tutorial", root=tmp_path)
    assert (run.verdict, run.blame, _states(run)) == ("fail", "training", "rrfs")
    assert run.exports == {}
    assert run.epochs == 10
    assert run.reason is not None
    assert run.report is not None
    assert "FAIL" in (tmp_path / run.report).read_text()
    assert not (tmp_path / "artifacts" / "current.json").exists()
    # A failed verdict is never a hit, and the same bits are said to be the same.
    again = lntx.run(preset="tutorial", root=tmp_path)
    assert _states(again) == "crfs"
    assert "the fault is deterministic" in (again.reason or "")
    words = run.reason.split("add ")[1].split()
    advice = {
        key.removeprefix("--train.").replace("-", "_"): parse_text(value, key.removeprefix("--").replace("-", "_"))
        for key, value in zip(words[::2], words[1::2], strict=True)
    }
    cured = lntx.run(preset="tutorial", train=advice, root=tmp_path)
    assert cured.verdict == "pass"
    assert cured.learned_weights == (float(np.float32(3.7)),)


def test_a_wrong_export_is_blamed_and_never_a_hit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lntx.export import export

    real = export.FORMATS["pt2"]

    def wrong(model: lntx.LNTXLinearModel) -> bytes:
        import torch

        with torch.no_grad():
            other = lntx.LNTXLinearModel(1)
            other.linear.weight.copy_(model.linear.weight * 1.001)
        return real.write(other)

    with monkeypatch.context() as patch:
        patch.setattr(export, "FORMATS", {**export.FORMATS, "pt2": dataclasses.replace(real, write=wrong)})
        run = lntx.run(root=tmp_path)
    assert (run.verdict, run.blame, _states(run)) == ("fail", "export", "rrrf")
    assert "the pt2 file is not the trained model" in (run.reason or "")
    assert run.exports == {}
    assert _states(lntx.run(root=tmp_path)) == "cccr"


def test_a_crash_between_a_wrong_answer_and_its_quarantine_makes_it_no_hit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "quarantine", crash)
        with pytest.raises(SystemExit):
            lntx.run(preset="tutorial", root=tmp_path)
    again = lntx.run(preset="tutorial", root=tmp_path)
    assert (again.verdict, again.exports) == ("fail", {})
    assert again.stages["evaluate"].state == "failed"


def test_json_equals_the_bytes_of_the_exported_file(tmp_path: Path) -> None:
    run = lntx.run(root=tmp_path, data={"weights": [3.7, -1.2, 0.5], "bias": 2}, export={"formats": ["safetensors"]})
    said = json.loads(run.model_dump_json())
    tensors = safetensors.numpy.load_file(tmp_path / said["exports"]["safetensors"])
    assert tensors["linear.weight"][0].tolist() == said["learned_weights"]
    assert tensors["linear.bias"].tolist() == [said["learned_bias"]]
    assert said["verdict"] == "pass"


def test_two_runs_at_once_compute_once(tmp_path: Path) -> None:
    runs: list[Run] = []
    threads = [
        threading.Thread(target=lambda: runs.append(lntx.run(root=tmp_path, until="evaluate"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(runs) == 4
    for stage in ("generate", "train", "evaluate"):
        assert sorted(run.stages[stage].state for run in runs) == ["cached", "cached", "cached", "ran"]  # type: ignore[index]


def test_python_takes_one_stage_as_a_word_and_a_section_as_it_was_said(tmp_path: Path) -> None:
    file = tmp_path / "two.toml"
    file.write_text("[data]\nweights = [1.0, 2.0]\n")
    run = lntx.run(data=Data(noise=0.1), file=file, root=tmp_path, until="train", force="train")
    assert run.true_weights == (1.0, 2.0)
    assert run.stages["train"].state == "ran"


def test_features_may_come_from_any_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "table.csv"
    table.write_text("y,a,b\n1,2,7\n2,4,1\n3,6,2\n")
    monkeypatch.setenv("LNTX_DATA_FEATURES", "a")
    run = lntx.fit(table, target="y", bias=False, root=tmp_path, until="train")
    assert run.learned_weights == (0.5,)


def test_threads_may_export_at_once(tmp_path: Path) -> None:
    runs: list[Run] = []
    threads = [
        threading.Thread(
            target=lambda seed=seed: runs.append(lntx.run(root=tmp_path, data={"weights": [float(seed + 1)]}))  # type: ignore[misc]
        )
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.verdict for run in runs] == ["pass"] * 4


def test_a_users_file_is_known_by_its_content(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text((DATA / "Norris.csv").read_text())
    root = tmp_path / "root"
    run = lntx.fit(table, target="y", root=root, until="evaluate")
    assert (run.true_weights, run.true_bias) == (None, None)
    assert run.features == ("x",)
    moved = tmp_path / "moved.csv"
    table.rename(moved)
    assert _states(lntx.fit(moved, target="y", root=root, until="evaluate")) == "cccs"
    moved.write_text(moved.read_text().replace("338.8", "338.9"))
    assert _states(lntx.fit(moved, target="y", root=root, until="evaluate")) == "rrrs"


@pytest.mark.parametrize(
    ("text", "bias", "line"),
    [
        ("y,a,b\n1,2,2\n2,3,3\n5,4,4\n", True, "feature 'b' duplicates 'a'"),
        ("y,a\n1,2\n2,2\n5,2\n", True, "column 'a' is the same in every row, as the bias is"),
        ("y,a,b\n1,2,3\n", False, "1 row is too few for 2 weights"),
        ("y,a\n1,\n2,2\n", True, "column 'a' has no value in row 1"),
        ("y,a\n1,x\n2,2\n", True, "text in row 1 ('x')"),
    ],
)
def test_a_table_that_cannot_be_fitted_is_refused(tmp_path: Path, text: str, bias: bool, line: str) -> None:
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(BadInput) as caught:
        lntx.fit(table, target="y", bias=bias, root=tmp_path)
    assert line in str(caught.value)


def test_a_refusal_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    lntx.run(root=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(BadInput):
        lntx.run(root=tmp_path, train={"learning_rate": 100.0})
    assert {path: path.read_bytes() for path in before} == before
    assert _states(lntx.run(root=tmp_path)) == "cccc"
