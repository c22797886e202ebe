"""Parse `--over KEY=VALUES` into the trials of a sweep. Trains nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lntx.base.errors import BadInput
from lntx.base.text import for_message, quoted
from lntx.config.loading import KEYS, is_list, override, parse_text, unknown
from lntx.config.schema import Pipeline

Settings = dict[str, Any]
"""Settings of a trial: values by dotted key."""

MAX_TRIALS = 100_000


def parse_over(words: Iterable[str]) -> dict[str, list[Any]]:
    """Parse KEY=VALUES: values separated by commas, START:STOP or START:STOP:STEP (integers, STOP excluded), or
    LOW:HIGH:xCOUNT (COUNT values from LOW to HIGH, in geometric progression).

    Raises: BadInput: no such key, or no values.
    """
    over: dict[str, list[Any]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not text:
            raise BadInput(f"--over takes KEY=VALUES, such as train.seed=0:100, got {quoted(word)}")
        if key not in KEYS:
            raise BadInput(unknown("key", key, KEYS))
        if key in over:
            raise BadInput(f"--over names {key} twice: put its values into one")
        over[key] = [value for part in _split(text) for value in _values(part.strip(), key)]
        if not over[key]:
            raise BadInput(f"--over {for_message(word)} has no values")
    if not over:
        raise BadInput("a sweep needs --over KEY=VALUES, such as --over train.learning_rate=0.001,0.01")
    return over


def trials(over: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """Return every combination of the values; the last key varies fastest.

    Raises: BadInput: too many combinations.
    """
    _allowed(math.prod(len(values) for values in over.values()))
    return [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]


def configure(pipeline: Pipeline, settings: Settings) -> Pipeline:
    """Return the configuration of a trial.

    Raises: BadInput: a value is not valid for its key.
    """
    return override(pipeline, layer_of(settings))


def layer_of(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the settings of a trial by section."""
    layer: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        section, name = key.split(".")
        layer.setdefault(section, {})[name] = [value] if is_list(key) and not isinstance(value, list) else value
    return layer


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _values(text: str, key: str) -> list[Any]:
    parts = text.split(":")
    name = key.split(".")[1]
    if len(parts) == 1 or text.startswith("[") or name in ("path", "target", "features"):
        value = parse_text(text, key)
        if text.startswith("[") and is_list(key):
            return [value]
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"--over {key} must have finite values, got {for_message(text)}")
        return value if isinstance(value, list) else [value]
    try:
        if len(parts) == 3 and parts[2].startswith("x"):
            count = _allowed(int(parts[2][1:]))
            return _multiples(float(parts[0]), float(parts[1]), count)
        numbers = range(*(int(part) for part in parts))
        _allowed(len(numbers))
        return [*numbers]
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(
            f"--over {key}={for_message(text)} is no range: START:STOP, START:STOP:STEP in whole numbers, or "
            "LOW:HIGH:xCOUNT"
        ) from None


def _allowed(count: int) -> int:
    if count > MAX_TRIALS:
        raise BadInput(f"a sweep may have {MAX_TRIALS:,} trials at most, got {count:,}: narrow a range")
    return count


def _multiples(low: float, high: float, count: int) -> list[Any]:
    if not 0 < low < high < math.inf or count < 2:
        raise ValueError
    return [low * (high / low) ** (k / (count - 1)) for k in range(count - 1)] + [high]
