"""What is in a key: code, versions, and no more. Run: pytest tests/core/test_identity.py"""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest
from planned import planned as _planned

import lntx
from lntx.errors import LntxError
from lntx.pipeline.table import TABLE
from lntx.stages import STAGES
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
        key.code_digest.cache_clear()
        return _planned(tmp_path)

    for path in copies.rglob("*.py"):
        path.write_text(f"# A comment.\n{path.read_text()}\n\n# Another.\n")
    assert {state for state, _ in planned().values()} == {"fresh"}
    with (copies / "export" / "export.py").open("a") as stream:
        stream.write("\nANOTHER = 1\n")
    found = planned()
    assert found["export"] == ("stale", "code of lntx.export.export changed")
    assert {stage for stage, (state, _) in found.items() if state == "fresh"} == {"generate", "train", "evaluate"}
    key.code_digest.cache_clear()


def test_a_changed_library_reruns_what_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lntx.run(root=tmp_path)
    real = key.version_of
    monkeypatch.setattr("lntx.pipeline.table.version_of", lambda name: "9.9" if name == "safetensors" else real(name))
    found = _planned(tmp_path)
    assert found["train"][0] == "stale"
    assert re.fullmatch(r"safetensors \S+ → 9\.9", found["train"][1] or "")
    assert (found["generate"][0], found["evaluate"][0]) == ("fresh", "depends")


def _closure(*roots: str) -> set[str]:
    """Modules of lntx that some import, less what cannot change a result."""
    harmless = {"config.schema", "errors", "progress", "stages", "text"}

    def is_module(name: str) -> bool:
        return (key.PACKAGE / f"{name.replace('.', '/')}.py").is_file()

    def imports(module: str) -> set[str]:
        found = set()
        for node in ast.walk(ast.parse((key.PACKAGE / f"{module.replace('.', '/')}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lntx":
                base = (node.module or "").removeprefix("lntx").removeprefix(".")
                found |= {base, *(f"{base}.{alias.name}".removeprefix(".") for alias in node.names)}
        return set(filter(is_module, found))

    closure: set[str] = set()
    waiting = set(roots)
    while waiting:
        module = waiting.pop()
        closure.add(module)
        waiting |= imports(module) - closure - harmless
    return closure


def test_the_table_lists_the_modules_that_decide() -> None:
    """Each stage's list is what its own modules import; a sweep's is its own modules beside those of its stages."""
    roots = {
        "generate": ("data.synthetic", "data.shards", "data.importing"),
        "train": ("training.fit", "model"),
        "evaluate": ("evaluation.evaluate",),
        "export": ("export.export",),
    }
    assert set(roots) == set(TABLE) == set(STAGES)
    for stage, entry in TABLE.items():
        assert _closure(*roots[stage]) == set(entry.modules), stage
        assert list(entry.modules) == sorted(entry.modules)
    of_stages = {name for entry in TABLE.values() for name in entry.modules}
    trained = {name for name in _closure("sweep.trials", "sweep.vectorized") if name.startswith("sweep.")}
    assert trained | {"sweep.sweep"} == set(CODE)
    assert _closure("sweep.vectorized") - set(CODE) <= of_stages


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

    key.code_digest.cache_clear()
    monkeypatch.setattr(key.ast, "parse", parse)
    assert key.code_digest("training.fit") == right
    assert len(calls) == 3
