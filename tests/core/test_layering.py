"""The core stands alone, and starts quickly. Run: pytest tests/core/test_layering.py"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import lntx

CORE = sorted(path.stem for path in Path(lntx.__file__).parent.glob("*.py") if path.stem != "__init__")


def _modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_the_core_never_imports_prefect_or_flows() -> None:
    code = "\n".join(f"import lntx.{name}" for name in CORE)
    assert _modules_after(code).isdisjoint({"prefect", "flows", "cyclopts"})


def test_what_plan_needs_imports_neither_torch_nor_matplotlib_nor_pandas() -> None:
    code = "import flows.cli, lntx.planning, lntx.pipeline, lntx.runs"
    assert _modules_after(code).isdisjoint({"prefect", "torch", "matplotlib", "pandas"})


def test_importing_lntx_is_quick() -> None:
    """Under 0.2 s over a bare interpreter, best of three."""

    def seconds(code: str) -> float:
        times = []
        for _ in range(3):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - started)
        return min(times)

    assert seconds("import lntx") - seconds("pass") < 0.2


def test_public_names_are_there() -> None:
    assert set(lntx.__all__) <= set(dir(lntx))
    for name in lntx.__all__:
        assert getattr(lntx, name).__doc__
