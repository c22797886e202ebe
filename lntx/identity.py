"""What decides a stage's result, as one key: code, library versions, configuration, inputs.

Reads sources and versions; imports no stage, so that asking is cheap.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lntx.config import Pipeline, Section
from lntx.errors import BadInput
from lntx.selection import Stage

CODE: dict[Stage, tuple[str, ...]] = {
    "generate": ("dataset", "doubledouble", "files", "generation", "parts", "powers", "tables"),
    "train": (
        "backpropagation",
        "checkpoints",
        "curvature",
        "dataset",
        "dependence",
        "descent",
        "doubledouble",
        "fitting",
        "files",
        "model",
        "moments",
        "powers",
        "progress",
        "residuals",
        "rowsdigest",
        "steps",
        "stopping",
        "training",
        "weights",
    ),
    "evaluate": (
        "dataset",
        "dependence",
        "diagnosis",
        "doubledouble",
        "evaluation",
        "exact",
        "figures",
        "fitting",
        "generation",
        "gram",
        "files",
        "jointtest",
        "normal_equations",
        "powers",
        "reference",
        "rowcheck",
        "rowsdigest",
        "verdict",
    ),
    "export": (
        "exporting",
        "files",
        "fitting",
        "freshprocess",
        "model",
        "prediction",
        "readback",
        "verdict",
        "weights",
    ),
}
"""The modules that decide each stage's result."""

PACKAGES: dict[Stage, tuple[str, ...]] = {
    "generate": ("numpy", "pyarrow"),
    "train": ("numpy", "pyarrow", "safetensors", "torch"),
    "evaluate": ("numpy", "pyarrow", "torch"),
    "export": ("numpy", "safetensors", "torch"),
}
"""The packages whose version matters to each stage."""

ONNX_PACKAGES = ("onnx", "onnxruntime")


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


def identify(stage: Stage, pipeline: Pipeline, *, source_sha256: str | None, inputs: Mapping[str, str]) -> Identity:
    """Collect what decides a stage's result.

    source_sha256: digest of the user's file, where there is one. inputs: content digests of the stages it starts
    from.

    Raises: BadInput: a package that the configuration needs is not installed.
    """
    packages = PACKAGES[stage]
    if stage == "export" and "onnx" in pipeline.export.formats:
        packages += ONNX_PACKAGES
    return Identity(
        stage=stage,
        code={name: code_digest(name) for name in CODE[stage]},
        # Python's own version, because it decides how syntax trees are written.
        versions={
            **{name: _version(name) for name in packages},
            "python": ".".join(platform.python_version_tuple()[:2]),
            "machine": platform.machine(),
        },
        config=config_read(stage, pipeline, source_sha256=source_sha256),
        inputs=dict(inputs),
    )


def config_read(stage: Stage, pipeline: Pipeline, *, source_sha256: str | None) -> dict[str, Any]:
    """The part of the configuration that a stage reads, as dotted keys and JSON values."""
    # Drawn or given, the weights are what counts.
    data = _dotted(pipeline, "data") | {
        "data.weights": list(pipeline.data.true_weights or ()),
        "data.num_features": None,
    }
    if pipeline.data.path is not None:
        # The content decides, not where the file lies.
        kept = ("data.target", "data.features", "data.polynomial")
        data = {key: data[key] for key in kept} | {"data.sha256": source_sha256}
    if stage == "generate":
        return data
    if stage == "train":
        device = "cuda" if pipeline.train.device == "cuda" else "cpu"
        return {**_dotted(pipeline, "train"), "train.bias": pipeline.learns_bias, "train.device": device}
    if stage == "evaluate":
        return {**_dotted(pipeline, "evaluate"), **data}
    return _dotted(pipeline, "export")


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
    """sha256 of a module's syntax tree: comments, layout and docstrings do not count.

    Read once a process, as the code itself is.
    """
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
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


def _dotted(pipeline: Pipeline, section: str) -> dict[str, Any]:
    values = getattr(pipeline, section).model_dump(mode="json")
    return {f"{section}.{key}": value for key, value in values.items()}


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if package in ONNX_PACKAGES:
            raise BadInput(f"export.formats onnx needs {package}: pip install 'lntx[onnx]'") from None
        raise BadInput(f"{package} is not installed: pip install {package}") from None
