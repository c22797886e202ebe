"""Files of metrics, as node_exporter's textfile collector reads them. Run: pytest tests/core/test_metrics.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from driving import lntx_here
from prometheus_client.parser import text_string_to_metric_families

import lntx
from lntx.metrics import write_metrics


def _samples(path: Path) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(path.read_text())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_verdict_digits_and_seconds_of_a_run_are_there(tmp_path: Path) -> None:
    path = tmp_path / "lntx.prom"
    run = lntx.run(root=tmp_path)
    write_metrics(run, path)
    samples = _samples(path)
    assert (samples["lntx_passed", "run"], samples["lntx_digits", "run"]) == (1, run.digits)
    seconds = {key[2]: value for key, value in samples.items() if key[0] == "lntx_seconds"}
    assert seconds == {stage: report.seconds for stage, report in run.stages.items()}


def test_when_the_last_one_passed_outlives_a_failure_and_another_kind(tmp_path: Path) -> None:
    """So that the age of the last pass is one expression: time() - lntx_last_pass_timestamp_seconds."""
    words = ("--local", "--prom", str(tmp_path / "lntx.prom"))
    assert lntx_here("run", *words, root=tmp_path).code == 0
    passed = _samples(tmp_path / "lntx.prom")["lntx_last_pass_timestamp_seconds", "run"]
    assert lntx_here("run", "--preset", "tutorial", *words, root=tmp_path).code == 3
    failed = _samples(tmp_path / "lntx.prom")
    assert failed["lntx_passed", "run"] == 0
    assert failed["lntx_last_timestamp_seconds", "run"] >= failed["lntx_last_pass_timestamp_seconds", "run"] == passed
    assert lntx_here("canary", *words, root=tmp_path).code == 0
    both = _samples(tmp_path / "lntx.prom")
    assert lntx_here("canary", "--inject", "skipped-step", *words, root=tmp_path).code == 3
    assert _samples(tmp_path / "lntx.prom") == both, "a planted fault changes nothing"
    assert (both["lntx_passed", "canary"], both["lntx_last_pass_timestamp_seconds", "run"]) == (1, passed)


def test_an_earlier_file_that_is_odd_ends_no_run(tmp_path: Path) -> None:
    """Empty, or with lines that lntx did not write: what says when the last one passed is kept."""
    path = tmp_path / "lntx.prom"
    path.write_text("")
    assert lntx_here("run", "--local", "--prom", str(path), root=tmp_path).code == 0
    name = "lntx_last_pass_timestamp_seconds"
    path.write_text(f'{path.read_text()}{name} 5\n{name}{{kind="canary"}} 7\n{name}{{kind="odd"}} NaN\nnonsense\n')
    assert lntx_here("run", "--local", "--prom", str(path), root=tmp_path).code == 0
    samples = _samples(path)
    assert samples[name, "canary"] == 7
    assert (name, "odd") not in samples


@pytest.mark.parametrize(
    ("name", "message"), [("x.txt", "must end in .prom"), ("mine.prom", "is no file of metrics of lntx: remove it")]
)
def test_a_file_that_is_no_file_of_metrics_is_refused_before_anything_runs(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "mine.prom").write_text("mine")
    done = lntx_here("run", "--local", "--prom", str(tmp_path / name), root=tmp_path / "root")
    assert (done.code, message in done.err) == (2, True), done.err
    assert (tmp_path / "mine.prom").read_text() == "mine"
    assert not (tmp_path / "root" / "artifacts").exists()
