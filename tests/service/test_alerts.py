"""Alerts: each comes, once, and what needs no person raises none. Run: pytest tests/service/test_alerts.py"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from service import Service, process_of, serving

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(600)]


def test_each_alert_comes_once_and_a_caught_fault_raises_none(service: Service) -> None:
    """Failed, wrong answer and crashed; the fourth, no passing canary, has a test of its own."""
    caught = service.ended(service.start("canary", inject="skipped-step"))
    assert caught["state"]["name"] == "FaultCaught"
    failed = service.ended(service.start("pipeline", data={"path": "/nowhere.csv", "target": "y"}))
    assert (failed["state"]["type"], failed["state"]["name"]) == ("FAILED", "BadInput")
    wrong = service.ended(service.start("pipeline", train={"learning_rate": 0.001, "max_epochs": 3}))
    assert wrong["state"]["name"] == "WrongAnswer"
    long = {"tolerance": 0, "max_epochs": 10**6, "precondition": "none", "gradient": "autograd"}
    killed = service.start("pipeline", data={"noise": 0.5, "bias": 1, "num_rows": 20_000}, train=long)
    service.wait(killed, lambda run: run["state"]["name"] == "Running")
    time.sleep(3)
    os.kill(process_of(killed), signal.SIGKILL)
    assert service.ended(killed)["state"]["name"] == "Crashed"
    told = service.told_until("crashed")
    # Whatever would come late or twice has come by then.
    time.sleep(15)
    told += service.told_so_far()
    # A post that a loaded server repeats has the same id.
    assert {one["id"]: (one["alert"], one["url"].rsplit("/", 1)[1]) for one in told} == {
        f"{failed['id']}:failed:1": ("failed", failed["id"]),
        f"{wrong['id']}:wrong answer:1": ("wrong answer", wrong["id"]),
        f"{killed}:crashed:1": ("crashed", killed),
    }
    (first,) = {one["message"] for one in told if one["alert"] == "failed"}
    assert "/nowhere.csv is outside the folders that this server reads tables from" in first


def test_no_passing_canary_is_told(tmp_path: Path) -> None:
    words = ("--canary-cron", "0 3 1 1 *", "--dead-man-hours", "0.01")
    with serving(tmp_path / "root", *words) as service:
        told = service.alerts.get(timeout=280)
        assert (told["alert"], told["message"]) == ("no passing canary", "no canary has passed for 0.01 hours")
