"""Kernels of liger-kernel under Triton's interpreter, in the deep canary and on the page of findings."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_ARE_INSTALLED = all(importlib.util.find_spec(name) is not None for name in ("liger_kernel", "triton"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not _ARE_INSTALLED, reason="Triton or liger-kernel is not installed: pip install 'lntx[kernels]'"
    ),
]

_SUITE = """
import json
from lntx.canary.operators.kernels import KERNELS
from lntx.canary.operators.suite import OperatorSuite
from lntx.canary.suite.options import CanaryOptions

suite = OperatorSuite(CanaryOptions(deep=True))
results = [suite.run_case(case) for case in suite.cases(1) if case.how == "kernel"]
assert len(results) == len(KERNELS)
print(json.dumps([result.model_dump(mode="json") for result in results]))
"""


def _run(*words: str, interpreted: bool = True) -> str:
    environment = {**os.environ, "TRITON_INTERPRET": "1"} if interpreted else {**os.environ}
    done = subprocess.run([sys.executable, "-W", "ignore", *words], cwd=ROOT, env=environment, text=True,
                          capture_output=True, check=True)  # fmt: skip
    return done.stdout


def test_the_deep_canary_proves_the_kernels_that_run() -> None:
    results = json.loads(_run("-c", _SUITE))
    right = [result["name"] for result in results if result.get("verdict") == "pass"]
    assert {name.split(";")[0] for name in right} >= {"softmax", "rotary", "embedding", "cross entropy"}
    # The interpreter lacks what the others use: that is no fault of the kernels.
    assert all(result.get("cause") == "build" for result in results if result["name"] not in right)
    rows = [row for result in results for row in result.get("operators", ())]
    assert {row["phase"] for row in rows} == {"forward", "backward"}
    assert all(0 <= row["largest"] <= 1 for row in rows)


def test_without_a_gpu_or_the_interpreter_there_are_no_kernels() -> None:
    code = "from lntx.canary.operators.kernels import can_run; print(can_run('cpu'))"
    assert _run("-c", code, interpreted=False).strip() == "False"


def test_the_page_shows_what_is_found_in_kernels_of_others() -> None:
    table = [line for line in _run("benchmarks/kernel_findings.py").splitlines() if line.startswith("|")]
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    assert len(table) == 5
    assert all(line in page for line in table)
