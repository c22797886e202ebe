"""`lntx doctor`: what is wrong with a machine, each with a cure."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from commandline import Cli

from lntx.doctor import Finding, examine


def _found(root: Path) -> dict[str, Finding]:
    return {one.name: one for one in examine(root)}


def test_this_machine_has_no_problem(cli: Cli) -> None:
    done = cli("doctor", "--json")
    assert (done.code, done.json["problems"]) == (0, 0)
    names = {one["name"] for one in done.json["findings"]}
    assert names >= {"lntx", "python", "torch", "processor", "disk", "file system", "locks", "clock", "Prefect server"}
    assert "problems: 0, " in cli("doctor").out


def test_it_leaves_nothing_behind_and_needs_no_root(cli: Cli, tmp_path: Path) -> None:
    root = tmp_path / "not" / "there"
    assert cli("doctor", "--root", str(root)).code == 0
    assert not (tmp_path / "not").exists()


def test_another_version_is_a_problem_with_its_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0" if name == "prefect" else real(name))
    found = _found(tmp_path)["prefect"]
    assert found.state == "problem"
    assert found.said.startswith("1.0, where lntx needs")
    assert found.cure is not None
    assert found.cure.startswith("pip install 'prefect")


def test_versions_that_were_never_tried_are_a_note(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The commands themselves say nothing of it."""
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.1" if name == "pandas" else real(name))
    found = _found(tmp_path)["versions"]
    assert (found.state, found.cure) == ("note", None)
    assert "not tried yet with " in found.said
    assert "pandas 99.1" in found.said
    done = cli("run", "--local")
    assert (done.code, "tried" in done.out + done.err) == (0, False)


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10**6))
    assert _found(tmp_path)["disk"].state == "problem"


def test_a_lock_without_effect_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    found = _found(tmp_path)["locks"]
    assert (found.state, "two runs can compute the same result at once" in found.said) == ("problem", True)


def test_variables_that_change_arithmetic_are_noted(cli: Cli) -> None:
    done = cli("doctor", "--json", env={"ATEN_CPU_CAPABILITY": "avx2"})
    (found,) = (one for one in done.json["findings"] if one["name"] == "ATEN_CPU_CAPABILITY")
    assert (done.code, found["state"], found["cure"]) == (0, "note", "unset ATEN_CPU_CAPABILITY")


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_a_problem(process: Cli) -> None:
    done = process("doctor", "--json", env={"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    (found,) = (one for one in done.json["findings"] if one["name"] == "Prefect server")
    assert (done.code, found["state"]) == (1, "problem")
    assert "unset PREFECT_API_URL" in found["cure"]
