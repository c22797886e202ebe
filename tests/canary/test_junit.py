"""The JUnit file of a canary. Run: pytest tests/canary/test_junit.py"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from lntx.canary.junit import write_error_junit, write_junit
from lntx.canary.run import run_canary
from lntx.canary.suite.options import CanaryOptions
from lntx.canary.trainings.cases import fixed_cases
from lntx.canary.trainings.faults import FAULTS


def test_junit_has_a_test_case_per_case(tmp_path: Path) -> None:
    write_junit(run_canary(CanaryOptions(repeat=2), root=tmp_path), tmp_path / "right.xml")
    suite = ElementTree.parse(tmp_path / "right.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "0")
    with FAULTS["scaled-predictions"].planted(fixed_cases(1)[0]):
        write_junit(run_canary(root=tmp_path), tmp_path / "wrong.xml")
    suite = ElementTree.parse(tmp_path / "wrong.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("type") == "training"
    write_error_junit(RuntimeError("no\x1b[31m room"), tmp_path / "error.xml")
    suite = ElementTree.parse(tmp_path / "error.xml").getroot()[0]
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0")
    assert "deviates from the expected path" in (failure.get("message") or "")
