"""Canaries as Python runs them: right ones, what they leave, drift, repetitions. Run: pytest tests/canary"""

from __future__ import annotations

import html
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.cli.canary import exit_code
from lntx.base.errors import BadInput
from lntx.base.stages import Stage
from lntx.canary.run import run_canary
from lntx.canary.suite.options import CanaryOptions
from lntx.canary.suite.results import Canary, CaseReport
from lntx.canary.trainings import cases as canary_cases
from lntx.canary.trainings import drift as drifts
from lntx.canary.trainings import suite as trainings
from lntx.canary.trainings.cases import blind_case, fixed_cases
from lntx.canary.trainings.faults import FAULTS, once_stored
from lntx.canary.trainings.suite import TrainingSuite
from lntx.config.loading import validate
from lntx.runs.run import Run


@pytest.fixture(autouse=True)
def _throw_aways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


def _run(canary: Canary) -> Run:
    assert canary.run is not None
    return canary.run


def test_a_right_stack_passes_and_leaves_its_bits_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is published, nothing cached, nothing left in the throw-away root; the bits are kept, once."""
    root = tmp_path / "root"
    first = run_canary(root=root)
    monkeypatch.setenv("LNTX_ROOT", str(root))
    again = run_canary()
    assert (first.verdict, first.blame, first.reason, first.drift, first.root) == ("pass", None, None, (), None)
    assert _run(first).learned_weights == pytest.approx((3.7, -1.2, 0.5), rel=1e-14)
    run = _run(first)
    assert (run.true_weights, run.true_bias, run.gradient, run.precondition) == (
        (3.7, -1.2, 0.5), 2.0, "autograd", "none",
    )  # fmt: skip
    assert {stage.state for stage in [*run.stages.values(), *_run(again).stages.values()]} == {"ran"}
    assert (run.exports, run.report) == ({}, None)
    assert first.cases[0].path is not None
    assert first.cases[0].path.epochs == run.epochs
    assert first.cases[0].bits == again.cases[0].bits
    assert not list((tmp_path / "tmp").glob("lntx-*"))
    stored = [path for path in root.rglob("*") if path.is_file() and ".locks" not in path.parts]
    assert [path.parent.name for path in stored] == ["canary"]
    assert len(json.loads(stored[0].read_text())["records"]) == 1


def test_a_wrong_one_keeps_its_files_and_says_why(tmp_path: Path) -> None:
    found = run_canary(root=tmp_path / "root", fault=FAULTS["flipped-gradient-bit"])
    assert (found.verdict, found.blame) == ("fail", "training")
    assert re.match(
        r"epoch 2 deviates from the expected path by .+; the weight of x1 is .+, and descent on these rows gives",
        found.reason or "",
    )
    assert found.root is not None
    run = _run(found)
    assert (run.verdict, run.reason) == (found.verdict, found.reason)
    assert run.report is not None
    words = re.sub(r"\W", "", found.reason or "")
    for report in (Path(run.report), Path(found.root) / "report.html"):
        assert words in re.sub(r"\W", "", html.unescape(report.read_text(encoding="utf-8")))
    assert list(Path(found.root).rglob("history-*.parquet"))
    assert found.fault is not None
    assert found.fault.is_right
    assert not (tmp_path / "root").exists(), "the bits of a planted fault are no drift baseline"


def test_the_end_is_right_although_the_path_is_not(tmp_path: Path) -> None:
    """Descent heals a flipped bit: only the path tells."""
    found = run_canary(fault=FAULTS["flipped-weight-bit"], root=tmp_path)
    assert found.blame == "training"
    run = _run(found)
    assert run.learned_weights == pytest.approx((3.7, -1.2, 0.5), rel=1e-14)
    assert run.digits is not None
    assert run.digits > 14


def test_a_blind_canary_is_new_each_time_and_can_be_drawn_again() -> None:
    first, second = (blind_case(seed).pipeline for seed in (1, 2))
    assert first != second
    assert first == blind_case(1).pipeline
    drawn = [blind_case(seed).pipeline for seed in range(60)]
    assert {len(one.data.true_weights or ()) for one in drawn} == set(range(1, 9))
    assert {len(str(one.data.num_rows)) for one in drawn} == {3, 4, 5, 6}
    assert {one.train.dtype for one in drawn} == {"float32", "float64"}
    assert {one.train.gradient for one in drawn} == {"autograd"}
    suite = TrainingSuite(CanaryOptions(seed=5, repeat=2))
    (one,), (other,) = suite.cases(1), suite.cases(2)
    assert one != other
    assert suite.cases(2) == (other,)


def test_levels_hold_those_below_them() -> None:
    names = [[case.name for case in fixed_cases(level)] for level in (1, 2, 3)]
    assert len(names[0]) == 1
    assert names[1][:1] == names[0]
    assert names[2][: len(names[1])] == names[1]
    every = [case.pipeline for case in fixed_cases(3)]
    assert {one.train.dtype for one in every} == {"float32", "float64"}
    assert max(one.train.num_threads for one in every) > 1
    assert max(one.data.num_rows for one in every) >= 1_000_000
    assert {one.train.gradient for one in every} == {"autograd"}


def test_blind_canaries_raise_no_alarm() -> None:
    found = run_canary(CanaryOptions(seed=20261123, repeat=5))
    assert [case.verdict for case in found.cases] == ["pass"] * 5, [case.reason for case in found.cases]
    assert len({case.config for case in found.cases}) == 5
    assert found.blind_seed == 20261123


def test_rows_that_leave_nothing_are_right_too() -> None:
    """Targets without any rounding: the residuals are 0, and what the exact solution says of them is rounding."""
    for seed in range(3):
        data = {"weights": (-4.233131880616293,), "num_rows": 500, "low": -1, "high": 1, "seed": seed}
        case = fixed_cases(1)[0]
        config = validate({**case.pipeline.model_dump(exclude_unset=True), "data": data})
        report = TrainingSuite(CanaryOptions()).run_case(case.model_copy(update={"pipeline": config}))
        assert isinstance(report, CaseReport)
        assert report.verdict == "pass", report.reason


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_clean_blind_canaries_raise_no_alarm() -> None:
    found = run_canary(CanaryOptions(seed=1, repeat=30))
    alarms = [(case.name, case.reason) for case in found.cases if case.verdict != "pass"]
    assert (len(found.cases), alarms) == (30, [])
    print("closest to its bound:", max(case.path.worst for case in found.cases if case.path is not None))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_highest_level_passes_with_the_cases_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a machine with little memory.
    monkeypatch.setattr(canary_cases, "large_rows", lambda: 2_000_000)
    found = run_canary(CanaryOptions.model_validate({"level": 3}), root=tmp_path / "root")
    assert found.verdict == "pass", found.reason
    again = run_canary(CanaryOptions.model_validate({"level": 2}), root=tmp_path / "root")
    assert again.drift == (), "the same stack gives the same bits"


def test_repetitions_tell_what_is_deterministic(tmp_path: Path) -> None:
    assert run_canary(CanaryOptions(repeat=2), root=tmp_path).recurrence is None
    with FAULTS["skipped-step"].planted(fixed_cases(1)[0]):
        # Planted once for both: the step is skipped in the first alone.
        found = run_canary(CanaryOptions(repeat=2), root=tmp_path)
    assert (found.verdict, found.recurrence) == ("fail", "intermittent")
    with FAULTS["scaled-predictions"].planted(fixed_cases(1)[0]):
        found = run_canary(CanaryOptions(repeat=2), root=tmp_path)
    assert (found.verdict, found.recurrence) == ("fail", "deterministic")
    assert sum(one.name.startswith("lntx-canary-") for one in (tmp_path / "tmp").iterdir()) == 2, "one per wrong canary"


def test_other_bits_within_what_is_right_are_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade the packages are named; with the same stack, that is said too. Neither is a failure."""
    run_canary(root=tmp_path)
    real, taken = torch.optim.SGD.step, []

    def nudged(self: torch.optim.SGD) -> None:
        real(self)
        taken.append(1)
        if len(taken) == 3:
            weight = self.param_groups[0]["params"][0]
            with torch.no_grad():
                weight.copy_(torch.nextafter(weight, weight + 1))

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", nudged)
        found = run_canary(root=tmp_path)
    assert found.verdict == "pass"
    (drift,) = found.drift
    assert (drift.epoch, drift.changed) == (3, {})
    assert "with the same versions: look at the machine" in drift.sentence
    versions = drifts._versions
    monkeypatch.setattr(drifts, "_versions", lambda case: {**versions(case), "torch": "9.9"})
    (upgraded,) = run_canary(root=tmp_path).drift
    assert upgraded.changed == {"torch": (versions(fixed_cases(1)[0])["torch"], "9.9")}
    assert re.search(r"with torch \S+ → 9\.9$", upgraded.sentence)
    assert run_canary(root=tmp_path).drift == (), "told once"


def test_a_damaged_witness_is_none(tmp_path: Path) -> None:
    run_canary(root=tmp_path)
    (file,) = (tmp_path / "artifacts" / "canary").glob("*.json")
    file.write_text("{")
    assert run_canary(root=tmp_path).verdict == "pass"
    assert len(json.loads(file.read_text())["records"]) == 1


def test_what_the_build_cannot_train_is_not_run_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: SGD raises for float32, with and without lntx. Amber if it was right before."""
    cases = tuple(case for case in fixed_cases(2) if case.name in ("one weight", "one weight, float32"))
    monkeypatch.setattr(trainings, "fixed_cases", lambda level, device="auto": cases)
    assert run_canary(root=tmp_path).not_run == ()
    real = torch.optim.SGD.step

    def step(self: torch.optim.SGD, closure: Any = None) -> Any:
        if self.param_groups[0]["params"][0].dtype == torch.float32:
            raise RuntimeError("no kernel image is available\nand more")
        return real(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    found = run_canary(root=tmp_path)
    assert (found.verdict, found.reason, [case.name for case in found.cases]) == ("pass", None, ["one weight"])
    (case,) = found.not_run
    assert (case.name, case.error) == ("one weight, float32", "RuntimeError: no kernel image is available")
    assert (case.cause, case.ran_before, exit_code(found)) == ("build", True, 0)


def test_if_nothing_ran_that_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_self: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(torch.optim.SGD, "step", die)
    found = run_canary()
    assert (found.verdict, found.blame, exit_code(found)) == (None, None, 1)
    assert (found.reason or "").startswith("nothing ran: not run here: three weights and a bias: RuntimeError: no kern")


def test_a_stage_that_fails_where_the_libraries_work_is_an_error_of_the_canary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(*_args: object, **_options: object) -> None:
        raise KeyError("a key")

    monkeypatch.setattr("lntx.training.fit.fit", die)
    found = run_canary()
    assert (found.verdict, found.not_run, exit_code(found)) == (None, (), 1)
    assert (found.reason or "").startswith("the canary failed in three weights and a bias: KeyError: 'a key'; the same")


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        MemoryError("none left"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"),
    ],
)
def test_want_of_memory_or_disk_is_no_wrong_answer(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(_self: object) -> None:
        raise error

    monkeypatch.setattr(torch.optim.SGD, "step", greedy)
    found = run_canary()
    assert (found.verdict, [case.cause for case in found.unfinished], exit_code(found)) == (None, ["machine"], 1)


@pytest.mark.parametrize(
    ("stage", "name", "blame"),
    [
        ("train", "fit.json", "data"),
        ("train", "history.parquet", "data"),
        ("evaluate", "evaluation.json", "data"),
        ("train", "model.safetensors", "export"),
        ("export", "card.json", "export"),
        ("export", "model.pt2", "export"),
    ],
)
@pytest.mark.parametrize("harm", ["gone", "truncated"])
def test_a_stored_file_that_is_gone_or_cut_is_put_down_to_its_part(
    stage: Stage, name: str, blame: str, harm: str
) -> None:
    def tamper(files: dict[str, Path]) -> None:
        if harm == "gone":
            files[name].unlink()
        else:
            files[name].write_bytes(files[name].read_bytes()[:-20])

    with once_stored(stage, tamper):
        found = run_canary()
    assert (found.verdict, found.blame) == ("fail", blame), found.reason


def test_what_is_found_before_an_interrupt_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, runs = TrainingSuite.run_case, []

    def interrupted(*args: Any, **options: Any) -> Any:
        runs.append(1)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(TrainingSuite, "run_case", interrupted)
    with FAULTS["scaled-predictions"].planted(fixed_cases(1)[0]), pytest.raises(KeyboardInterrupt):
        run_canary(CanaryOptions(repeat=3))
    assert "before the end: training: epoch 1 deviates from the expected path" in caplog.text
    assert "lntx-canary-" in caplog.text


def test_a_folder_that_cannot_be_written_costs_the_drift_alone(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "artifacts").write_text("a file")
    found = run_canary(root=tmp_path / "root")
    assert (found.verdict, found.drift) == ("pass", ())


def test_a_missing_device_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="finds no CUDA device"):
        run_canary(CanaryOptions(device="cuda"))
