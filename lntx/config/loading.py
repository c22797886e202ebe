"""Merge the layers of the configuration: defaults, preset, TOML file, environment, flags; later layers win.

Turns every validation error into one line that names the key, the rule and the value. Knows no stage.
"""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from lntx.base.errors import BadInput
from lntx.base.files import parse_json, read_regular
from lntx.base.text import MAX_NAME, for_message, quoted, suggest
from lntx.config.schema import PRESETS, Pipeline

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
    """Merge the layers and validate the result.

    file: a TOML file with one table per section. environment: variables; those named LNTX_SECTION_KEY are read.
    overrides: the last layer, from flags or from Python.

    Raises: BadInput: an unknown preset, key or value; an unreadable file.
    """
    merged: dict[str, dict[str, Any]] = {}
    if preset is not None:
        if preset not in PRESETS:
            raise BadInput(
                f"preset must be one of {', '.join(PRESETS)}, got {quoted(preset)}{suggest(preset, PRESETS)}"
            )
        _merge(merged, PRESETS[preset])
    if file is not None:
        _merge(merged, read_toml(Path(file)))
    _merge(merged, read_environment(environment or {}))
    _merge(merged, overrides or {})
    return validate(merged)


def override(pipeline: Pipeline, layer: Layer) -> Pipeline:
    """Return a configuration with some values replaced.

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
        raise BadInput(*explain(error)) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read one layer from a TOML file.

    Raises: BadInput: the file is missing, unreadable, or not TOML.
    """
    try:
        return tomllib.loads(read_regular(path).decode())
    except OSError as error:
        raise BadInput(f"config file {for_message(path)}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BadInput(f"config file {for_message(path)} is not TOML: it is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"config file {for_message(path)} is not TOML: {error}") from None
    except RecursionError:
        raise BadInput(f"config file {for_message(path)} is not TOML: it is nested too deeply") from None
    except ValueError as error:
        raise BadInput(f"config file {for_message(path)} cannot be read: {error}") from None


def read_environment(environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Read one layer from variables named LNTX_SECTION_KEY, such as LNTX_TRAIN_LEARNING_RATE=0.01.

    Values are parsed by the type of their key, as in `parse_text`.

    Raises: BadInput: a variable names a section but no key of that section.
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
        key = by_name[plain]
        layer.setdefault(section, {})[key.split(".")[1]] = parse_text(text, key)
    return layer


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """Return a message that a word is unknown, with the most similar known word."""
    return f"unknown {kind} {for_message(word, MAX_NAME)}{suggest(word, known)}"


def parse_text(text: str, key: str) -> Any:
    """Parse text to a value by the type of its dotted key; invalid text is returned unchanged for the error message.

    Lists are JSON, or values separated by commas. "null" means None.
    """
    section, name = key.split(".")
    annotation = _field(section, name)
    if text == "null" and type(None) in get_args(annotation):
        return None
    item = _item(annotation)
    if item is None:
        return _parsed(text, annotation)
    if text.startswith("["):
        try:
            return parse_json(text)
        except ValueError:
            return text
    return [_parsed(part.strip(), item) for part in text.split(",")]


def is_list(key: str) -> bool:
    """Return whether the value of a dotted key is a list."""
    return _item(_field(*key.split("."))) is not None


def _field(section: str, name: str) -> Any:
    return type(Pipeline.model_fields[section].default).model_fields[name].annotation


def _item(annotation: Any) -> Any:
    """Return the item type of a list annotation; None if it is no list."""
    lists = [option for option in (annotation, *get_args(annotation)) if get_origin(option) is tuple]
    return get_args(lists[0])[0] if lists else None


def _parsed(text: str, annotation: Any) -> Any:
    try:
        value = TypeAdapter(annotation).validate_strings(text)
    except ValidationError:
        # Report a number outside its range as a number, not as text.
        return _number(text)
    # Pydantic accepts 3.0 and 1_0 as integers; the configuration does not.
    return text if type(value) is int and not re.fullmatch(r"[+-]?[0-9]+", text) else value


def _merge(base: dict[str, dict[str, Any]], layer: Mapping[str, Any]) -> None:
    for section, values in layer.items():
        if section not in Pipeline.model_fields:
            raise BadInput(unknown("section", section, Pipeline.model_fields))
        if not isinstance(values, Mapping):
            raise BadInput(f"{section} must be a table of keys, got {quoted(values)}")
        target = base.setdefault(section, {})
        if section == "data":
            # Each of these two keys replaces the other one of an earlier layer.
            for chosen, replaced in (("num_features", "weights"), ("weights", "num_features")):
                if values.get(chosen) is not None:
                    target.pop(replaced, None)
        target.update(values)


def explain(
    error: ValidationError, *, section: str | None = None, name: Callable[[str], str] = lambda key: key
) -> list[str]:
    """Return the validation errors, one line per key.

    section: the validated section; None for the whole configuration, or other values. name: what a key is called.
    """
    # Errors of several union members about the same value share one line.
    lines: dict[str, str] = {}
    choices: dict[str, str] = {}
    for problem in error.errors():
        location = problem["loc"] if section is None else (section, *problem["loc"])
        kind = problem["type"]
        place = name(".".join(str(part) for part in location if kind == "extra_forbidden" or _is_key(part)))
        value = quoted(problem["input"])
        rule = _plain(problem["msg"])
        if kind == "extra_forbidden":
            lines[place] = unknown("key", place, KEYS)
        elif kind == "value_error":
            lines[str(problem["ctx"]["error"])] = str(problem["ctx"]["error"])
        elif place in lines:
            lines[place] = f"{lines[place].removesuffix(f', got {value}')} or {rule}, got {value}"
        else:
            lines[place] = f"{place} must {rule if rule.startswith('have ') else f'be {rule}'}, got {value}"
        if isinstance(problem["input"], str) and kind == "literal_error":
            choices[place] = suggest(problem["input"], re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    return [line + choices.get(place, "") for place, line in lines.items()]


def _number(text: str) -> Any:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


_ARTICLES = {
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "tuple": "a list",
}


def _plain(rule: str) -> str:
    """Shorten a message of pydantic: "Input should be a valid integer, unable …" becomes "an integer"."""
    rule = re.sub(r"^(Input should be|\w+ should(?= have)) ", "", rule)
    match = re.match(r"a valid (\w+)", rule)
    return rule if match is None else _ARTICLES.get(match[1], f"a {match[1]}")


def _is_key(part: Any) -> bool:
    # Union members appear in a location as "constrained-float" or "literal['auto']".
    return isinstance(part, int) or (part.isidentifier() and part not in ("float", "bool", "int", "str"))
