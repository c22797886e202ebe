"""Settle the configuration from its layers: defaults, preset, TOML file, environment, flags; later wins.

Turns every refusal into one line that names the key, the rule and the value. Knows no stage.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lntx.config import PRESETS, Pipeline
from lntx.errors import BadInput

Layer = Mapping[str, Mapping[str, Any]]

KEYS: tuple[str, ...] = tuple(
    f"{section}.{key}" for section, field in Pipeline.model_fields.items() for key in type(field.default).model_fields
)
"""Every configuration key, dotted."""


def settle(
    *,
    preset: str | None = None,
    file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Layer | None = None,
) -> Pipeline:
    """Merge the layers and validate the outcome.

    file: a TOML file with one table per section. environment: variables, of which LNTX_SECTION_KEY are read.
    overrides: what was said last, by flags or in Python.

    Raises: BadInput: an unknown preset, key or value; an unreadable file.
    """
    merged: dict[str, dict[str, Any]] = {}
    if preset is not None:
        if preset not in PRESETS:
            raise BadInput(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        _merge(merged, PRESETS[preset])
    if file is not None:
        _merge(merged, read_toml(Path(file)))
    _merge(merged, read_environment(environment or {}))
    _merge(merged, overrides or {})
    return validate(merged)


def override(pipeline: Pipeline, layer: Layer) -> Pipeline:
    """A configuration with some values said anew.

    Raises: BadInput: an unknown key or value.
    """
    merged: dict[str, dict[str, Any]] = {}
    _merge(merged, pipeline.model_dump(exclude_unset=True))
    _merge(merged, layer)
    return validate(merged)


def validate(values: Mapping[str, Any]) -> Pipeline:
    """Validate nested values; every problem becomes one line of the error.

    Raises: BadInput.
    """
    try:
        return Pipeline.model_validate(values)
    except ValidationError as error:
        raise BadInput(explain(error)) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read one layer from a TOML file.

    Raises: BadInput: the file is missing, unreadable, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"config file {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"config file {path} is not TOML: {error}") from None


def read_environment(environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read one layer from variables named LNTX_SECTION_KEY, such as LNTX_TRAIN_LEARNING_RATE=0.01.

    Values are JSON where they parse as JSON, else text; lists may also be comma-separated.

    Raises: BadInput: the variable names a section and no key of it.
    """
    by_name = {key.replace(".", "_").upper(): key for key in KEYS}
    layer: dict[str, dict[str, Any]] = {}
    for name, text in sorted(environment.items()):
        section = name.removeprefix("LNTX_").split("_")[0].lower()
        if not name.startswith("LNTX_") or section not in Pipeline.model_fields:
            continue
        plain = name.removeprefix("LNTX_").replace("__", "_")
        if plain not in by_name:
            raise BadInput(unknown("environment variable", name, [f"LNTX_{known}" for known in by_name]))
        key = by_name[plain].split(".")[1]
        layer.setdefault(section, {})[key] = parse_value(text, key)
    return layer


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """Say that a word is unknown, and name the nearest known one."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"unknown {kind} {word}: did you mean {close[0]}?" if close else f"unknown {kind} {word}"


def parse_value(text: str, key: str) -> Any:
    """A value as text says it: JSON where it parses as JSON, else text. key: its name, without the section."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if key in ("path", "target"):
        # A column may be called 1.
        return text
    if key in ("weights", "features", "formats") and not isinstance(value, list):
        return [part.strip() for part in text.split(",")]
    return value


def _merge(base: dict[str, dict[str, Any]], layer: Mapping[str, Any]) -> None:
    for section, values in layer.items():
        if section not in Pipeline.model_fields:
            raise BadInput(unknown("section", section, Pipeline.model_fields))
        if not isinstance(values, Mapping):
            raise BadInput(f"{section} must be a table of keys, got {values!r}")
        target = base.setdefault(section, {})
        if section == "data":
            # Each of these says what the other said before.
            for said, replaced in (("num_features", "weights"), ("weights", "num_features")):
                if values.get(said) is not None:
                    target.pop(replaced, None)
        target.update(values)


def explain(error: ValidationError, *, section: str | None = None) -> str:
    """What is wrong, one line per key.

    section: the section that was validated, where it was not the whole configuration.
    """
    # The members of a union that refused the same value share a line.
    lines: dict[str, str] = {}
    for problem in error.errors():
        location = problem["loc"] if section is None else (section, *problem["loc"])
        kind = problem["type"]
        place = ".".join(str(part) for part in location if kind == "extra_forbidden" or _is_key(part))
        value = problem["input"]
        rule = problem["msg"].removeprefix("Input should be ").removeprefix("a valid ")
        if kind == "extra_forbidden":
            lines[place] = unknown("key", place, KEYS)
        elif kind == "value_error":
            lines[str(problem["ctx"]["error"])] = str(problem["ctx"]["error"])
        elif place in lines:
            lines[place] = f"{lines[place].removesuffix(f', got {value!r}')} or {rule}, got {value!r}"
        else:
            lines[place] = f"{place} must be {rule}, got {value!r}"
    return "\n".join(lines.values())


def _is_key(part: Any) -> bool:
    # Members of a union stand in a location as "constrained-float" or "literal['auto']".
    return isinstance(part, int) or (part.isidentifier() and part not in ("float", "bool", "int", "str"))
