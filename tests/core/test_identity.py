"""What is in a key: code, versions, and no more. Run: pytest tests/core/test_identity.py"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from planned import planned as _planned

import lntx
from lntx.base.errors import LntxError
from lntx.base.stages import STAGES, Stage
from lntx.pipeline.table import TABLE
from lntx.store import key
from lntx.sweep.sweep import CODE


def test_a_comment_reruns_nothing_and_a_line_of_export_code_reruns_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lntx.run(root=tmp_path)
    copies = tmp_path / "copies"
    shutil.copytree(key.PACKAGE, copies)
    monkeypatch.setattr(key, "PACKAGE", copies)

    def planned() -> dict[str, tuple[str, str | None]]:
        key.read_module.cache_clear()
        return _planned(tmp_path)

    for path in copies.rglob("*.py"):
        path.write_text(f"# A comment.\n{path.read_text()}\n\n# Another.\n")
    assert {state for state, _ in planned().values()} == {"fresh"}
    with (copies / "export" / "export.py").open("a") as stream:
        stream.write("\nANOTHER = 1\n")
    found = planned()
    assert found["export"] == ("stale", "code of lntx.export.export changed")
    assert {stage for stage, (state, _) in found.items() if state == "fresh"} == {"generate", "train", "evaluate"}
    key.read_module.cache_clear()


def test_a_changed_library_reruns_what_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lntx.run(root=tmp_path)
    real = key.version_of
    monkeypatch.setattr("lntx.pipeline.table.version_of", lambda name: "9.9" if name == "safetensors" else real(name))
    found = _planned(tmp_path)
    assert found["train"][0] == "stale"
    assert re.fullmatch(r"safetensors \S+ → 9\.9", found["train"][1] or "")
    assert (found["generate"][0], found["evaluate"][0]) == ("fresh", "depends")


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_imports_decides_its_result(stage: Stage) -> None:
    """Its modules are those that Python loads for it and that can change a result, and no more."""
    modules = TABLE[stage].modules
    code = "; ".join(f"import lntx.{name}" for name in modules)
    loaded = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout.split()
    files = {name.removeprefix("lntx.") for name in loaded if name.startswith("lntx.")}
    deciding = {name for name in files if (key.PACKAGE / f"{name.replace('.', '/')}.py").is_file()}
    harmless = {"config.schema", "base.errors", "base.progress", "base.stages", "base.text", "base.version"}
    assert deciding - harmless == set(modules)
    assert not {name.split(".")[0] for name in modules} & {"pipeline", "store", "runs", "report", "canary", "sweep"}


def test_the_code_of_a_sweep_decides_its_rows() -> None:
    trained = {name for name in key.modules_of("sweep.trials", "sweep.vectorized") if name.startswith("sweep.")}
    assert trained | {"sweep.sweep"} == set(CODE)
    of_stages = {name for entry in TABLE.values() for name in entry.modules}
    assert set(key.modules_of("sweep.vectorized")) - set(CODE) <= of_stages


def test_a_needed_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.metadata

    def none(_name: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    key.version_of.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "version", none)
        with pytest.raises(LntxError, match="is not installed"):
            _planned(tmp_path)
    key.version_of.cache_clear()


def test_a_digest_stands_other_threads_that_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython's complaint about them, seen in a run of many threads, is no reason to fail."""
    right, calls = key.code_digest("training.fit"), []

    def parse(source: str) -> ast.Module:
        calls.append(source)
        if len(calls) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=69, after=73)")
        return compile(source, "training", "exec", ast.PyCF_ONLY_AST)

    key.read_module.cache_clear()
    monkeypatch.setattr(key.ast, "parse", parse)
    assert key.code_digest("training.fit") == right
    assert len(calls) == 3
