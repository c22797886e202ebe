"""The deep canary from outside: `lntx canary --deep`. Run: pytest tests/canary/test_deep.py"""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from commandline import Cli, Done
from driving import lntx

from lntx.canary import deep
from lntx.canary.deep import DeepOrder, no_compiler, run_deep
from lntx.proof.faults import PROOF_FAULTS

DEEP = ("canary", "--deep", "--local")


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    root = tmp_path_factory.mktemp("deep")
    return root, lntx(*DEEP, "--json", "--junit", str(root / "deep.xml"), root=root / "root")


def test_all_operators_are_right_and_reported(passed: tuple[Path, Done]) -> None:
    root, done = passed
    assert done.code == 0, done.out + done.err
    found = done.json
    assert (found["verdict"], found["blame"], found["operator"], found["warnings"]) == ("pass", None, None, [])
    assert len(found["cases"]) == 29
    assert {case["checked"] for case in found["cases"]} == {1.0}
    assert {row["dtype"] for row in found["operators"]} >= {"float64", "float32", "bfloat16", "float16"}
    assert all(row["largest"] <= 1 for row in found["operators"])
    suite = ElementTree.parse(root / "deep.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("29", "0")


def test_an_unusual_share_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Still within its bound, but more than eight times as far from the truth as before."""
    monkeypatch.setattr(deep, "pieces", lambda order: [("eager", "decoder, layer norm", "float32")])
    assert deep.run_deep(DeepOrder(), root=tmp_path).warnings == ()
    assert deep.run_deep(DeepOrder(), root=tmp_path).warnings == ()
    (kept,) = (tmp_path / "artifacts" / "canary").glob("deep-*.json")
    said = json.loads(kept.read_text())
    for record in said["records"]:
        record["forward/gelu/float32"] /= 20
    kept.write_text(json.dumps(said))
    found = deep.run_deep(DeepOrder(), root=tmp_path)
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
    assert len(PROOF_FAULTS) >= 30


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
@pytest.mark.parametrize("seed", range(6))
def test_blind_canaries_raise_no_alarm(seed: int) -> None:
    found = run_deep(DeepOrder(seed=seed))
    assert found.verdict == "pass", found.reason
    assert not any("failed" in why for why in found.unchecked.values()), found.unchecked


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_code_and_two_processes_are_checked() -> None:
    if no_compiler() is not None:
        pytest.skip(f"no compiler: {no_compiler()}")
    found = run_deep(DeepOrder(compiled=True, processes=True))
    assert found.verdict == "pass", found.reason
    rows = {(row.operator, row.dtype, row.phase): row.elements for row in found.operators}
    for dtype in ("float32", "bfloat16"):
        for phase in ("forward", "backward"):
            assert rows["compiled region", dtype, phase] > 100
    assert rows["all-reduce", "float32", "backward"] > 100
    assert "compiled region" not in found.unchecked
