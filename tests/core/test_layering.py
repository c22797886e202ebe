"""Imports go one way, and what is not used is not imported. Run: pytest tests/core/test_layering.py"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import lntx

_FOLDER = Path(lntx.__file__).parent


def _modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_a_deliberate_import_the_wrong_way_is_refused(tmp_path: Path) -> None:
    """The contracts in pyproject.toml hold, and one line breaks them."""
    checkout = _FOLDER.parent
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


def test_what_plan_needs_imports_neither_torch_nor_matplotlib_nor_pandas() -> None:
    code = "import flows.cli.main, lntx.pipeline.plan, lntx.pipeline.runner, lntx.runs.run"
    assert _modules_after(code).isdisjoint({"prefect", "torch", "matplotlib", "pandas"})


def test_importing_lntx_imports_nothing_heavy() -> None:
    assert _modules_after("import lntx").isdisjoint({"numpy", "pydantic", "pyarrow", "torch", "prefect", "cyclopts"})


def test_public_names_are_there() -> None:
    assert set(lntx.__all__) <= set(dir(lntx))
    for name in lntx.__all__:
        assert getattr(lntx, name).__doc__
