"""The deep canary from outside: `lntx canary --deep`. Run: pytest tests/canary/test_deep.py"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from commandline import Cli, Done
from driving import lntx
from torch.utils._python_dispatch import TorchDispatchMode

import lntx.proof.prove as prove_module
from flows.cli.canary import exit_code
from lntx.canary.junit import write_junit
from lntx.canary.operators.faults import PROOF_FAULTS
from lntx.canary.operators.nets import pairs
from lntx.canary.operators.suite import OperatorCase, OperatorSuite, no_compiler
from lntx.canary.page import canary_page
from lntx.canary.run import run_canary
from lntx.canary.suite.options import CanaryOptions
from lntx.canary.suite.results import Canary
from lntx.store.key import digest_of

DEEP = ("canary", "--deep", "--local")


def _deep(root: Path, **options: Any) -> Canary:
    return run_canary(CanaryOptions(deep=True, **options), root=root)


def _only(monkeypatch: pytest.MonkeyPatch, *nets: str) -> None:
    """Let the suite have these networks alone, in float32."""
    cases = [OperatorCase(net=net, mode="float32", seed=20) for net in nets]
    monkeypatch.setattr(OperatorSuite, "cases", lambda self, repetition: cases)


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    root = tmp_path_factory.mktemp("deep")
    return root, lntx(*DEEP, "--json", "--junit", str(root / "deep.xml"), root=root / "root")


def test_all_operators_are_right_and_reported(passed: tuple[Path, Done]) -> None:
    root, done = passed
    assert done.code == 0, done.out + done.err
    found = done.json
    assert (found["verdict"], found["blame"], found["operator"], found["warnings"]) == ("pass", None, None, [])
    # What a build cannot run is no case: which ones depends on the processor.
    assert len(found["cases"]) + len(found["not_run"]) == len(pairs())
    assert len(found["cases"]) > len(pairs()) / 2
    assert (found["unfinished"], [case for case in found["not_run"] if case["cause"] != "build"]) == ([], [])
    assert {case["checked"] for case in found["cases"]} == {1.0}
    assert {row["dtype"] for row in found["operators"]} >= {"float64", "float32", "bfloat16", "float16"}
    assert all(row["largest"] <= 1 for row in found["operators"])
    suite = ElementTree.parse(root / "deep.xml").getroot()[0]
    counts = {name: int(suite.get(name, "")) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": len(pairs()), "failures": 0, "errors": 0, "skipped": len(found["not_run"])}


class _Lacking(TorchDispatchMode):
    """A build without one operator."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.native_group_norm.default:
            raise RuntimeError("could not create a primitive\nand more")
        return func(*args, **(kwargs or {}))


def test_what_the_build_cannot_run_is_listed_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: one operator of one network raises, with and without the proof. Amber if it ran before."""
    _only(monkeypatch, "convolutions", "GRU")
    assert _deep(tmp_path).not_run == ()
    with _Lacking():
        found = _deep(tmp_path, repeat=2)
        elsewhere = _deep(tmp_path / "new")
    (case,) = found.not_run
    assert (case.name, case.error) == ("convolutions; float32", "RuntimeError: could not create a primitive")
    assert (case.cause, case.ran_before) == ("build", True)
    assert case.sentence.endswith("it ran on this kind of device before: see what changed since")
    assert [row.name for row in found.cases] == ["GRU; float32", "GRU; float32"]
    assert (found.verdict, found.reason, exit_code(found)) == ("pass", None, 0)
    assert [row.ran_before for row in elsewhere.not_run] == [False]
    assert case.sentence in canary_page(found).notes
    write_junit(found, tmp_path / "deep.xml")
    suite = ElementTree.parse(tmp_path / "deep.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("skipped"), suite.get("failures")) == ("3", "1", "0")


def test_if_nothing_ran_that_is_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _only(monkeypatch, "convolutions")
    with _Lacking():
        found = _deep(tmp_path)
    assert (found.verdict, exit_code(found)) == (None, 1)
    assert (found.reason or "").startswith("nothing ran: not run here: convolutions; float32: RuntimeError")


def test_an_error_of_the_canary_itself_is_said_after_all_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: what the proof does beside an operator raises, and the step runs without it."""
    right = prove_module.written

    def raising(func: Any, name: str, arguments: dict[str, Any]) -> Any:
        if name == "native_group_norm":
            raise RuntimeError("this proof is wrong")
        return right(func, name, arguments)

    _only(monkeypatch, "convolutions", "GRU")
    monkeypatch.setattr(prove_module, "written", raising)
    found = _deep(tmp_path)
    assert [case.name for case in found.cases] == ["GRU; float32"]
    assert (found.verdict, found.blame, found.not_run, exit_code(found)) == (None, None, (), 1)
    expected = "the canary failed in convolutions; float32: RuntimeError: this proof is wrong; the same work runs"
    assert (found.reason or "").startswith(expected)
    write_junit(found, tmp_path / "deep.xml")
    assert ElementTree.parse(tmp_path / "deep.xml").getroot()[0].get("errors") == "1"


def test_an_unusual_share_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Still within its bound, but more than eight times as far from the truth as before."""
    _only(monkeypatch, "decoder, layer norm")
    assert _deep(tmp_path).warnings == ()
    assert _deep(tmp_path).warnings == ()
    (kept,) = (tmp_path / "artifacts" / "canary").glob("deep-*.json")
    said = json.loads(kept.read_text())
    for record in said["records"]:
        record["shares"]["forward/gelu/float32"] /= 20
    del said["digest"]
    kept.write_text(json.dumps({**said, "digest": digest_of(said)}))
    found = _deep(tmp_path)
    assert found.verdict == "pass"
    assert [warning.split(" takes ")[0] for warning in found.warnings] == ["gelu (float32, forward)"]


def test_a_caught_fault_names_the_operator(cli: Cli, tmp_path: Path) -> None:
    done = cli(*DEEP, "--inject", "layer-norm-eps", "--json", "--junit", str(tmp_path / "deep.xml"))
    assert done.code == 3
    assert (done.json["blame"], done.json["operator"]) == ("training", "native_layer_norm")
    assert done.json["fault"]["is_right"]
    assert "native_layer_norm (float32, call " in done.json["reason"]
    (case,) = ElementTree.parse(tmp_path / "deep.xml").getroot()[0].findall("testcase")
    assert case.find("failure") is None


def test_the_faults_are_listed(cli: Cli) -> None:
    done = cli(*DEEP, "--inject", "list", "--json")
    assert [fault["name"] for fault in done.json["faults"]] == [*PROOF_FAULTS]
    assert len(PROOF_FAULTS) >= 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--deep", "--level", "2"), "--deep has no levels: drop --level 2"),
        (("--compiled",), "--compiled belongs to --deep: add it"),
        (("--processes",), "--processes belongs to --deep: add it"),
        (("--deep", "--inject", "nix"), "unknown fault nix (--deep --inject list names all)"),
        (("--deep", "--inject", "betas", "--repeat", "2"), "--inject plants one fault in one case: drop --repeat 2"),
    ],
)
def test_wrong_options_are_refused(cli: Cli, words: tuple[str, ...], said: str) -> None:
    done = cli("canary", "--local", *words)
    assert (done.code, said in done.err) == (2, True), done.err


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2))
def test_blind_canaries_raise_no_alarm(tmp_path: Path, seed: int) -> None:
    found = _deep(tmp_path, seed=seed)
    assert found.verdict == "pass", found.reason
    assert not any("failed" in why for why in found.unchecked.values()), found.unchecked


def test_compiled_code_of_another_user_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    if os.getuid() == 0:
        os.chown(foreign, 65534, 65534)
    else:
        foreign = Path("/")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(foreign))
    message = f"{foreign} is another user's, and torch runs what is in it: export TORCHINDUCTOR_CACHE_DIR=FOLDER"
    assert no_compiler() == message
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "own"))
    assert no_compiler() != message


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_code_and_two_processes_are_checked(tmp_path: Path) -> None:
    if no_compiler() is not None:
        pytest.skip(f"no compiler: {no_compiler()}")
    found = _deep(tmp_path, compiled=True, processes=True)
    assert found.verdict == "pass", found.reason
    rows = {(row.operator, row.dtype, row.phase): row.elements for row in found.operators}
    for dtype in ("float32", "bfloat16"):
        for phase in ("forward", "backward"):
            assert rows["compiled region", dtype, phase] > 100
    assert rows["all-reduce", "float32", "backward"] > 100
    assert "compiled region" not in found.unchecked
