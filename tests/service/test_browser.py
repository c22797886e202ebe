"""What a person sees in Prefect's UI, in a real browser.

Run: pytest tests/service/test_browser.py; --screenshots docs/images makes the pictures of the README again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, chromium
from driving import lntx, lntx_here
from service import Service, environment

from lntx.base.stages import STAGES

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(600)]

NOISY = ("--data.weights", "3.7", "--data.weights", "-1.2", "--data.bias", "2", "--data.noise", "0.5")


@pytest.fixture(scope="module")
def browser(pytestconfig: pytest.Config, service: Service) -> Iterator[Browser]:
    """Logged in."""
    folder = pytestconfig.getoption("--screenshots")
    with chromium(None if folder is None else Path(folder)) as found:
        found.open(service.url)
        found.find("//input[@type='password']").send_keys(service.secret)
        found.click("//button[@type='submit']")
        found.find("//h1[.='Dashboard'] | //*[contains(., 'Flow Runs')]")
        yield found


def test_who_does_not_log_in_sees_nothing(service: Service) -> None:
    with chromium(None) as stranger:
        stranger.open(f"{service.url}/v2/runs")
        stranger.find("//input[@type='password']").send_keys("lntx:guessed")
        stranger.click("//button[@type='submit']")
        stranger.wait(lambda: "/login" in stranger.url)
        assert "Dashboard" not in stranger.text


def test_a_run_shows_its_stages_and_its_report(service: Service, browser: Browser) -> None:
    # An earlier one of the same settings, so that there is a trend.
    assert lntx_here("run", "--local", *NOISY, root=service.root).code == 0
    run = lntx("run", "--json", *NOISY, root=service.root, env=environment()).json
    browser.open(f"{service.url}/v2/runs/flow-run/{run['flow_run_id']}?tab=TaskRuns")
    for stage in STAGES:
        browser.find(f"//a[normalize-space()='{stage}']")
    assert "Completed" in browser.text
    assert "y = [3.7, -1.2]·x, 1,000 rows" in browser.text
    browser.screenshot("run", height=1150)
    browser.click("//button[normalize-space()='Artifacts']")
    browser.click("//a[contains(., 'lntx-report')]")
    browser.click("//a[contains(@href, '/artifacts/artifact/')]")
    browser.wait(lambda: len(browser.pictures()) >= 3 and all(complete for _, complete in browser.pictures()))
    assert all(width > 0 for width, _ in browser.pictures())
    for said in ("PASS", "standard error", "Digits over the last runs", "Learned against true", "Residuals"):
        assert said in browser.text
    browser.screenshot("report", height=1950)


def test_train_is_started_from_its_form_with_another_learning_rate(service: Service, browser: Browser) -> None:
    """And generate, which it does not change, is taken from the store."""
    assert lntx_here("run", "--local", root=service.root).code == 0
    browser.open(f"{service.url}/v2/deployments/deployment/{service.deployment('train')['id']}/run")
    field = "//label[starts-with(normalize-space(), 'Learning Rate')]"
    browser.find(field)
    browser.click(f"({field}/following::button[normalize-space()='float'])[1]")
    number = browser.find(f"({field}/following::input[@type='number'])[1]")
    number.clear()
    number.send_keys("0.011")
    browser.wait(lambda: number.get_attribute("value") == "0.011")
    browser.screenshot("form")
    earlier = {run["id"] for run in service.runs("train")}
    browser.submit("//button[normalize-space()='Submit']")
    (run_id,) = {run["id"] for run in browser.wait(lambda: service.runs("train"))} - earlier
    browser.open(f"{service.url}/v2/runs/flow-run/{run_id}?tab=TaskRuns")
    run = service.ended(run_id)
    assert run["state"]["name"] == "Completed"
    assert run["parameters"]["train"]["learning_rate"] == 0.011
    browser.wait(lambda: "Cached" in browser.text and "train" in browser.text)
    rows = {stage: browser.find(_row(stage)).text for stage in ("generate", "train")}
    assert "Cached" in rows["generate"], rows
    assert "Completed" in rows["train"], rows
    assert "evaluate" not in browser.text


def test_the_list_of_runs_tells_them_apart(service: Service, browser: Browser) -> None:
    """What ran, with which settings, how it ended, and what was cached, without opening one."""
    for words, code in (
        ((), 0),
        ((), 0),
        (("--only", "train", "--train.learning-rate", "0.01"), 0),
        (("--preset", "tutorial"), 3),
    ):
        assert lntx("run", *words, root=service.root, env=environment()).code == code
    browser.open(f"{service.url}/v2/runs")
    names = (
        "y = [3.7]·x, 1,000 rows · PASS 15.95 · cached",
        "y = [3.7]·x, 1,000 rows · train only · learning_rate 0.01 · no verdict",
        "y = [3.7]·x, 1,000 rows · bias true · dtype float32 · learning_rate 0.001 · … · FAIL training",
    )
    browser.wait(lambda: all(name in browser.text for name in names))
    browser.screenshot("list", height=1150)


def test_automations_say_what_they_are_for(service: Service, browser: Browser) -> None:
    browser.open(f"{service.url}/v2/automations")
    browser.wait(lambda: "lntx: wrong answer" in browser.text)
    for text in ("A run or a canary gave a wrong answer.", "Call webhook using"):
        browser.wait(lambda text=text: text.lower() in browser.text.lower())
    browser.screenshot("automations", height=1150)


def _row(stage: str) -> str:
    """The least element around a stage's link that tells its state."""
    return f"//a[normalize-space()='{stage}']/ancestor::*[contains(., 'Cached') or contains(., 'Completed')][1]"
