"""What decides a stage's result, as one key: code, library versions, configuration, inputs.

Reads sources and versions. What a stage reads is in the table of stages (`lntx/pipeline/table.py`).
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

from lntx.config.schema import Section
from lntx.errors import BadInput
from lntx.stages import Stage

PACKAGE = Path(__file__).parent.parent
"""The folder of lntx."""

_TRIES, _PAUSE_S = 50, 0.01


class Identity(Section):
    """Everything that decides a stage's result."""

    stage: Stage
    """The stage."""

    code: dict[str, str]
    """Digest of each deciding module."""

    versions: dict[str, str]
    """Version of each package that matters and of Python, and the machine's architecture."""

    config: dict[str, Any]
    """What the stage reads of the configuration, `auto` settled where it can be."""

    inputs: dict[str, str]
    """Content digest of each stage's result that it starts from."""

    @property
    def key(self) -> str:
        """sha256 of all of it, in hexadecimal."""
        return digest_of({"lntx": 1, **self.model_dump(mode="json")})

    @property
    def own(self) -> str:
        """sha256 of all but the inputs."""
        return digest_of({"lntx": 1, **self.model_dump(mode="json", exclude={"inputs"})})


def _parse(source: str) -> ast.Module:
    for _ in range(_TRIES):
        try:
            return ast.parse(source)
        except SystemError:
            # CPython counts how deep it is in one place for all threads, and complains when another parses too.
            time.sleep(_PAUSE_S)
    return ast.parse(source)


def digest_of(value: Any) -> str:
    """sha256 of a value's canonical JSON: sorted keys, no spaces, shortest floats."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def code_digest(module: str) -> str:
    """sha256 of the syntax tree of a module such as "data.tables": comments, layout and docstrings do not count.

    Read once a process, as the code itself is.
    """
    source = (PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    tree = _parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_text(statement)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


@functools.cache
def version_of(package: str) -> str:
    """Version of an installed package. Raises: BadInput: it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        extra = "'lntx[onnx]'" if package.startswith("onnx") else package
        raise BadInput(f"{package} is not installed: pip install {extra}") from None


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What two mappings differ in: name, old and new value, none where there is none."""
    keys = dict.fromkeys([*before, *after])
    return [(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]
