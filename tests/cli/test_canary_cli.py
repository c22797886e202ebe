"""`lntx canary` as a user meets it. Run: pytest tests/cli/test_canary_cli.py"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from commandline import Cli
from test_cli import RUN_KEYS


def test_a_right_stack_exits_0_with_the_run_s_keys(cli: Cli, tmp_path: Path) -> None:
    page = tmp_path / "canary.html"
    done = cli("canary", "--local", "--json", "--junit", str(tmp_path / "new" / "canary.xml"), "--html", str(page))
    assert done.code == 0, done.err
    assert '<h1 class="pass">PASS  1 of 1 right</h1>' in page.read_text()
    again = cli("canary", "--local", "--html", str(page))
    assert (again.code, "--force" in again.err) == (2, True)
    assert set(done.json) >= RUN_KEYS | {"level", "cases", "drift", "fault", "root", "recurrence", "blind_seed"}
    assert (done.json["verdict"], done.json["fault"], done.json["root"]) == ("pass", None, None)
    assert done.json["cases"][0]["path"]["departure"] is None
    assert ElementTree.parse(tmp_path / "new" / "canary.xml").getroot()[0].get("failures") == "0"
    assert cli("runs", "--json").json == {"runs": []}, "a canary publishes nothing"
    assert cli("predict", "3").code == 2
    shown = cli("canary", "--local")
    assert shown.code == 0
    assert shown.out.splitlines()[0].split() == ["case", "verdict", "epochs", "seconds"]
    assert shown.out.splitlines()[-1] == "PASS  1 of 1 right; next: lntx canary --level 2 tries more"


def test_a_planted_fault_exits_3_and_a_missed_one_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    caught = cli("canary", "--inject", "skipped-step", "--local", "--json")
    assert caught.code == 3
    assert caught.json["fault"].items() >= {"name": "skipped-step", "caught": True, "blame": "training"}.items()
    assert (
        cli("canary", "--inject", "skipped-step", "--local").out.splitlines()[-1].startswith("FAIL  training: epoch 2")
    )

    import contextlib
    import dataclasses

    from lntx.canary.trainings.suite import TrainingSuite

    harmless = dataclasses.replace(TrainingSuite.faults["nan"], planted=lambda _case: contextlib.nullcontext())
    monkeypatch.setattr(TrainingSuite, "faults", {"nan": harmless})
    missed = cli("canary", "--inject", "nan", "--local", "--json")
    assert (missed.code, missed.json["fault"]["caught"]) == (1, False)
    table = cli("canary", "--inject", "all")
    assert table.code == 1
    assert table.out.splitlines()[0].split() == ["fault", "caught", "blame", "expected"]
    assert table.out.splitlines()[1].split() == ["nan", "NO", "–", "training", "!"]
    assert table.out.splitlines()[-1] == "1 faults: 1 missed, 0 blamed wrongly"


def test_faults_are_listed_with_blame_and_limit(cli: Cli) -> None:
    found = cli("canary", "--inject", "list", "--json").json["faults"]
    assert len(found) >= 12
    assert all(set(fault) >= {"name", "blame", "limit"} for fault in found)
    assert {fault["blame"] for fault in found} == {"data", "reference", "training", "export"}
    shown = cli("canary", "--inject", "list")
    assert shown.code == 0
    assert all(fault["name"] in shown.out for fault in found)


@pytest.mark.slow
def test_a_blind_one_says_how_to_draw_it_again(cli: Cli) -> None:
    first = cli("canary", "--blind", "--local", "--json").json
    second = cli("canary", "--blind", "--local", "--json").json
    assert first["true_weights"] != second["true_weights"]
    again = cli("canary", "--seed", str(first["blind_seed"]), "--local", "--json").json
    assert again["true_weights"] == first["true_weights"]
    assert again["cases"][0]["bits"] == first["cases"][0]["bits"]
    told = cli("canary", "--blind", "--local").out
    assert "draws it again" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--level", "4"), "--level"),
        (("--repeat", "0"), "--repeat must be greater than or equal to 1, got 0"),
        (("--seed", "-1"), "--seed must be greater than or equal to 0, got -1"),
        (("--inject", "nan", "--repeat", "2"), "drop --repeat 2"),
        (("--inject", "nix"), "unknown fault nix"),
        (("--device", "tpu"), "--device"),
        (("--junit", "."), "--junit . is not a regular file"),
        (("--html", "."), "--html . is not a regular file"),
        (("--html", "page.html", "--inject", "all"), "--html does not go with --inject all"),
    ],
)
def test_bad_options_are_one_line(cli: Cli, words: tuple[str, ...], said: str) -> None:
    done = cli("canary", "--local", *words)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
