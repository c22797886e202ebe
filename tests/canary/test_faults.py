"""Every fault that can be planted is caught and blamed on the right part. Run: pytest tests/canary/test_faults.py"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import pytest
import torch
from more_training_faults import MORE_FAULTS

from lntx.base.errors import BadInput
from lntx.canary.run import open_suite, run_canary, run_faults
from lntx.canary.suite.fault import replaced
from lntx.canary.suite.options import CanaryOptions
from lntx.canary.suite.results import FaultReport
from lntx.canary.trainings.faults import FAULTS, TrainingFault

ALL_FAULTS: dict[str, TrainingFault] = {fault.name: fault for fault in (*FAULTS.values(), *MORE_FAULTS)}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.CRITICAL, logger="lntx"):
        yield


def test_there_are_faults_of_every_part() -> None:
    assert {fault.blame for fault in FAULTS.values()} == {"data", "reference", "training", "export"}
    assert all(name == fault.name for name, fault in FAULTS.items())
    assert len(ALL_FAULTS) == len(FAULTS) + len(MORE_FAULTS)


_CATALOGUES = [FAULTS, pytest.param(ALL_FAULTS, marks=pytest.mark.slow)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("faults", _CATALOGUES, ids=["for users", "all"])
def test_every_fault_is_caught_and_put_down_to_the_right_part(faults: Mapping[str, TrainingFault]) -> None:
    results = [*run_faults(faults=faults)]
    assert [result.name for result in results] == [*faults]
    assert [result for result in results if not (isinstance(result, FaultReport) and result.is_right)] == []
    # And nothing of them is left behind.
    assert run_canary().verdict == "pass"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_so_they_are_in_blind_canaries() -> None:
    results = [*run_faults(CanaryOptions(seed=0), faults=ALL_FAULTS)]
    assert len(results) == len(ALL_FAULTS)
    assert [result for result in results if not (isinstance(result, FaultReport) and result.is_right)] == []


def test_a_planted_fault_leaves_nothing_behind() -> None:
    """A method put on the class that inherits it would hide what is planted in its base later."""
    with replaced(torch.optim.SGD, "zero_grad", lambda original: lambda self: None):
        assert "zero_grad" in vars(torch.optim.SGD)
    assert "zero_grad" not in vars(torch.optim.SGD)


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(BadInput, match=r"unknown fault flipped-bit: did you mean flipped-\w+-bit\?"):
        open_suite(CanaryOptions(inject="flipped-bit"))
