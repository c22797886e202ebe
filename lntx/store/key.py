"""The key of a stage's result: a digest of the code, library versions, configuration and inputs that determine it.

Reads sources and versions. The table of stages (`lntx/pipeline/table.py`) lists what each stage depends on.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lntx.base.errors import BadInput
from lntx.base.stages import Stage
from lntx.config.schema import Section

PACKAGE = Path(__file__).parent.parent
"""The folder of the lntx package."""

_HARMLESS = frozenset({"config.schema", "base.errors", "base.progress", "base.stages", "base.text", "base.version"})
_TRIES, _PAUSE_S = 50, 0.01


class Identity(Section):
    """Everything that determines a stage's result."""

    stage: Stage
    """Name of the stage."""

    code: dict[str, str]
    """Digest of each module that the result depends on."""

    versions: dict[str, str]
    """Version of each relevant package and of Python, and the machine's architecture."""

    config: dict[str, Any]
    """The configuration values that the stage reads, with `auto` resolved where possible."""

    inputs: dict[str, str]
    """Content digest of each input, by the stage that produced it."""

    @property
    def key(self) -> str:
        """sha256 of the whole identity, in hexadecimal."""
        return digest_of({"lntx": 1, **self.model_dump(mode="json")})

    @property
    def own(self) -> str:
        """sha256 of the identity without the inputs."""
        return digest_of({"lntx": 1, **self.model_dump(mode="json", exclude={"inputs"})})


def _parse(source: str) -> ast.Module:
    for _ in range(_TRIES):
        try:
            return ast.parse(source)
        except SystemError:
            # All threads of CPython share one recursion counter for parsing: concurrent parsing can raise this error.
            time.sleep(_PAUSE_S)
    return ast.parse(source)


def digest_of(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON: sorted keys, no spaces, shortest floats."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def code_digest(module: str) -> str:
    """Return the sha256 of the syntax tree of a module such as "data.tables", without comments and docstrings."""
    return read_module(module)[0]


def modules_of(*roots: str) -> list[str]:
    """Return modules of lntx and all that they import, sorted, without those that cannot change a result."""
    modules: set[str] = set()
    waiting = {*roots}
    while waiting:
        module = waiting.pop()
        modules.add(module)
        waiting |= read_module(module)[1] - modules - _HARMLESS
    return sorted(modules)


@functools.cache
def read_module(module: str) -> tuple[str, frozenset[str]]:
    """Return the digest of a module's syntax tree, and the modules of lntx that it imports.

    Read once per process, because the code is also loaded once.
    """
    tree = _parse(_path(module).read_text(encoding="utf-8"))
    imports: set[str] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_text(statement)]  # type: ignore[attr-defined]
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("lntx"):
            names = (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
            imports |= {name.removeprefix("lntx.") for name in names}
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return digest, frozenset(name for name in imports if _path(name).is_file())


def _path(module: str) -> Path:
    return PACKAGE / f"{module.replace('.', '/')}.py"


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


@functools.cache
def version_of(package: str) -> str:
    """Return the version of an installed package. Raises: BadInput: it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        extra = "'lntx[onnx]'" if package.startswith("onnx") else package
        raise BadInput(f"{package} is not installed: pip install {extra}") from None


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the differences of two mappings: name, old value and new value; None if a value is absent."""
    keys = dict.fromkeys([*before, *after])
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]
