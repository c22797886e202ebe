"""What is in a key: code, versions, and no more. Run: pytest tests/core/test_identity.py"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from planned import planned as _planned

import lntx
from lntx import identity
from lntx.errors import LntxError
from lntx.selection import INPUTS, STAGES


def test_a_comment_reruns_nothing_and_a_line_of_export_code_reruns_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lntx.run(root=tmp_path)
    sources = {path.stem: path.read_text() for path in Path(identity.__file__).parent.glob("*.py")}
    copies = tmp_path / "copies"
    copies.mkdir()
    for name, text in sources.items():
        (copies / f"{name}.py").write_text(text)
    monkeypatch.setattr(identity, "__file__", str(copies / "identity.py"))

    def planned() -> dict[str, tuple[str, str | None]]:
        identity.code_digest.cache_clear()
        return _planned(tmp_path)

    for name, text in sources.items():
        (copies / f"{name}.py").write_text(f"# A comment.\n{text}\n\n# Another.\n")
    assert {state for state, _ in planned().values()} == {"fresh"}
    (copies / "exporting.py").write_text(sources["exporting"] + "\nANOTHER = 1\n")
    found = planned()
    assert found["export"] == ("stale", "code of lntx.exporting changed")
    assert {stage for stage, (state, _) in found.items() if state == "fresh"} == {"generate", "train", "evaluate"}
    identity.code_digest.cache_clear()


def test_a_changed_library_reruns_what_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lntx.run(root=tmp_path)
    real = identity._version
    monkeypatch.setattr(identity, "_version", lambda name: "9.9" if name == "safetensors" else real(name))
    found = _planned(tmp_path)
    assert found["train"][0] == "stale"
    assert re.fullmatch(r"safetensors \S+ → 9\.9", found["train"][1] or "")
    assert (found["generate"][0], found["evaluate"][0]) == ("fresh", "depends")


def test_keys_list_the_modules_that_decide() -> None:
    """Each stage's list is what its own module imports, less what cannot change a result."""
    import ast

    package = Path(identity.__file__).parent
    generators = ("generation", "parts", "tables")
    roots = {"generate": generators, "train": ("training", "weights"), "evaluate": ("evaluation",)}
    harmless = {"config", "errors", "headway", "store", "report", "text"}

    def imports(module: str) -> set[str]:
        found = set()
        for node in ast.walk(ast.parse((package / f"{module}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "lntx":
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lntx."):
                found.add((node.module or "").removeprefix("lntx."))
        return {name for name in found if (package / f"{name}.py").is_file()}

    for stage in STAGES:
        closure: set[str] = set()
        waiting = set(roots.get(stage, ("exporting",)))
        while waiting:
            module = waiting.pop()
            closure.add(module)
            waiting |= imports(module) - closure - harmless
        assert closure == set(identity.CODE[stage]), stage
    assert set(INPUTS) == set(identity.PACKAGES) == set(STAGES)


def test_a_needed_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.metadata

    def none(_name: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    identity._version.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(importlib.metadata, "version", none)
        with pytest.raises(LntxError, match="is not installed"):
            _planned(tmp_path)
    identity._version.cache_clear()


def test_a_digest_stands_other_threads_that_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPython's complaint about them, seen in a run of many threads, is no reason to fail."""
    import ast

    right, calls = identity.code_digest("training"), []

    def parse(source: str) -> ast.Module:
        calls.append(source)
        if len(calls) < 3:
            raise SystemError("AST constructor recursion depth mismatch (before=69, after=73)")
        return compile(source, "training", "exec", ast.PyCF_ONLY_AST)

    identity.code_digest.cache_clear()
    monkeypatch.setattr(identity.ast, "parse", parse)
    assert identity.code_digest("training") == right
    assert len(calls) == 3
