"""Imports go one way, and what is not used is not imported. Run: pytest tests/core/test_layering.py"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lntx
from lntx import run

_FOLDER = Path(lntx.__file__).parent


def test_all_log_lines_go_where_the_command_line_looks() -> None:
    """It formats those of the logger `lntx` and of Prefect: others would be printed as they are."""
    own_name = "getLogger(__name__)"
    assert [path for path in (_FOLDER.parent / "flows").rglob("*.py") if own_name in path.read_text()] == []


def _modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_a_deliberate_import_the_wrong_way_is_refused(tmp_path: Path) -> None:
    """The contracts in pyproject.toml hold, and one line breaks them."""
    checkout = _FOLDER.parent
    if importlib.util.find_spec("importlinter") is None:
        pytest.skip("import-linter is not installed: pip install import-linter")
    for name in ("lntx", "flows", "pyproject.toml"):
        place = checkout / name
        shutil.copytree(place, tmp_path / name) if place.is_dir() else shutil.copy(place, tmp_path / name)
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False).returncode == 0
    for module, line in (("numerics/gram", "import lntx.training.fit"), ("store/store", "import lntx.runs.run")):
        path = tmp_path / "lntx" / f"{module}.py"
        content = path.read_text()
        path.write_text(content.replace("import annotations\n", f"import annotations\n{line}\n", 1))
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, "The floors of the core BROKEN" in done.stdout) == (1, True), done.stdout
        path.write_text(content)


def test_commands_that_compute_nothing_import_nothing_heavy(tmp_path: Path) -> None:
    """Help, a plan, a list of runs and a run that is cached need no numpy, and so start in no time."""
    run(data={"num_rows": 10}, root=tmp_path)
    for words in ("--help", "runs", "show", "plan --data.num-rows 10", "run --local --data.num-rows 10"):
        arguments = [*words.split(), "--root", str(tmp_path)]
        call = f"try: run_command({arguments})\nexcept SystemExit as end: assert not end.code"
        code = f"from flows.cli.entry import run_command\n{call}"
        heavy = {"numpy", "pyarrow", "pandas", "torch", "matplotlib", "prefect", "asyncio"}
        assert not _modules_after(code) & heavy, words


@pytest.mark.parametrize(
    "code", ["import flows.server.api", "import flows.server.serve, flows.canary, flows.gc, flows.pipeline"]
)
def test_a_server_that_waits_holds_no_torch_in_memory(code: str) -> None:
    assert not _modules_after(code) & {"torch", "pyarrow", "pandas", "matplotlib", "scipy"}


def test_importing_lntx_imports_nothing_heavy() -> None:
    assert _modules_after("import lntx").isdisjoint({"numpy", "pydantic", "pyarrow", "torch", "prefect", "cyclopts"})


def test_public_names_are_there() -> None:
    assert set(lntx.__all__) <= set(dir(lntx))
    for name in lntx.__all__:
        assert getattr(lntx, name).__doc__
