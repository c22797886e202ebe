"""The plugin of pytest, in sessions of its own. Run: pytest tests/cli/test_pytest_plugin.py"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

RIGHT = "import torch\ndef test_it(proof):\n    assert torch.ones(3).exp().sum() > 8\n"

WRONG = """
import torch
library = torch.library.Library("aten", "IMPL")
library.impl("exp", lambda x: torch.full_like(x, 5.0), "CPU")
def test_it(proof):
    torch.ones(3).exp()
"""

BROKEN = """
import torch
step = torch.optim.SGD.step
def scaled(self, closure=None):
    for parameter in self.param_groups[0]["params"]:
        parameter.grad.mul_(1.001)
    return step(self, closure)
torch.optim.SGD.step = scaled
"""


def _pytest(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_a_canary_passes_before_the_tests_and_the_fixture_proves_them(tmp_path: Path) -> None:
    (tmp_path / "test_right.py").write_text(RIGHT)
    done = _pytest(tmp_path, "--lntx-canary", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lntx canary: PASS, 1 of 1 right" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {"test_right.py", "__pycache__"}, "nothing is left behind"


@pytest.mark.slow
def test_a_wrong_operator_fails_the_test_and_a_wrong_canary_the_session(tmp_path: Path) -> None:
    (tmp_path / "test_wrong.py").write_text(WRONG)
    done = _pytest(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "forward: exp (float32" in done.stdout
    (tmp_path / "conftest.py").write_text(BROKEN)
    done = _pytest(tmp_path, "--lntx-canary", "1")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "lntx canary: training: " in done.stdout + done.stderr


@pytest.mark.slow
def test_the_step_of_the_action_writes_a_junit_file(tmp_path: Path) -> None:
    action = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())
    step = action["runs"]["steps"][-1]
    given = {name: action["inputs"][name]["default"] for name in ("level", "junit")} | {"level": "1"}
    assert step["env"] == {name.upper(): f"${{{{ inputs.{name} }}}}" for name in given}
    variables = {name.upper(): value for name, value in given.items()}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = ["bash", "-euo", "pipefail", "-c", step["run"]]
    subprocess.run(words, cwd=tmp_path, env={**os.environ, **variables, "PATH": path}, check=True, timeout=300)
    assert "<testcase" in (tmp_path / given["junit"]).read_text()
