"""A plugin of pytest: the fixture `proof`, and a canary before the tests. pytest finds it where lntx is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lntx.proof.result import Proof

_WRONG_ANSWER = 3


@pytest.fixture
def proof() -> Iterator[Proof]:
    """Check what torch computes in the test, operator by operator: the test fails if a result is wrong."""
    # Imported here: a test without the fixture must not pay for torch.
    from lntx.proof.prove import prove

    with prove() as result:
        yield result
    result.raise_if_failed()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--lntx-canary`."""
    parser.getgroup("lntx").addoption(
        "--lntx-canary",
        choices=["1", "2", "3", "deep"],
        help="run a canary of this level, or a deep one, before the tests; if it is wrong, run none of them",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    """Run the canary, once for all processes of the session."""
    level = session.config.getoption("--lntx-canary")
    if level is None or hasattr(session.config, "workerinput"):
        return
    from lntx.canary.page import summary
    from lntx.canary.run import run_canary
    from lntx.canary.suite.options import CanaryOptions

    options = CanaryOptions(deep=True) if level == "deep" else CanaryOptions(level=int(level))
    with tempfile.TemporaryDirectory(prefix="lntx-canary-") as root:
        canary = run_canary(options, root=root)
    if canary.verdict != "pass":
        message = f"lntx canary: {canary.blame or 'no verdict'}: {canary.reason}"
        pytest.exit(message, _WRONG_ANSWER if canary.verdict == "fail" else 1)
    session.config.stash[_SUMMARY] = f"lntx canary: PASS, {summary(canary)}"


def pytest_report_header(config: pytest.Config) -> str | None:
    """Return the canary's verdict for the header of the session."""
    return config.stash.get(_SUMMARY, None)


_SUMMARY = pytest.StashKey[str]()
