"""The options that commands share, as cyclopts reads them. Only defines and parses them."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter, Token
from pydantic import BaseModel, Field, create_model

from flows.engines import Engine, choose
from lntx.base.stages import Selection, Stage, select
from lntx.base.text import quoted
from lntx.config.loading import is_list, parse_text, settle
from lntx.config.schema import SPELLING_KEYS, Data, Evaluate, Export, Pipeline, Section, Train


def whole(_type: Any, tokens: Sequence[Token]) -> int:
    """Parse an integer strictly: cyclopts would round 0.5 to 0."""
    text = tokens[0].value
    if not re.fullmatch(r"[+-]?[0-9]{1,40}", text):
        raise ValueError(f"must be an integer, got {quoted(text)}")
    return int(text)


Whole = Annotated[int, Parameter(converter=whole)]
"""An integer on the command line."""


@dataclass(frozen=True, kw_only=True)
class Common:
    """Options of every command."""

    root: Path | None = None
    """Folder that contains data/ and artifacts/. [default: LNTX_ROOT, else the current directory]"""

    json: Annotated[bool, Parameter(negative=())] = False
    """Print one JSON object on stdout."""

    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())] = False
    """Log errors only."""

    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], negative=())] = False
    """Log everything, and show tracebacks."""

    log_format: Literal["text", "json"] = "text"
    """How log lines are written on stderr; json: an object each, those of Prefect too."""

    @property
    def folder(self) -> Path:
        """The root: the option, else LNTX_ROOT, else the current directory."""
        return self.root or Path(os.environ.get("LNTX_ROOT") or ".")


@dataclass(frozen=True, kw_only=True)
class Where:
    """Options that say where the rows are worked on."""

    engine: Engine | None = None
    """Where rows are worked on: in threads of this process, or by the workers of a Ray cluster, which share the root.
    [default: LNTX_ENGINE, else threads]"""

    ray_address: str | None = None
    """Address of the cluster's head, such as 10.0.0.1:6379. [default: LNTX_RAY_ADDRESS, else the cluster of this
    machine, which is started if there is none]"""

    def choose(self) -> None:
        """Set the engine of this process. Raises: BadInput: an address without its engine."""
        choose(self.engine, self.ray_address)


@dataclass(frozen=True, kw_only=True)
class Range:
    """Options that select stages."""

    from_: Annotated[Stage | None, Parameter(name="--from")] = None
    """Start at this stage; the results of earlier stages are read from the store."""

    until: Stage | None = None
    """Stop after this stage."""

    only: Stage | None = None
    """Run only this stage."""

    force: Annotated[list[str] | None, Parameter(metavar="[STAGE ...]")] = None
    """Compute these stages even if their results are stored; without a value, all stages."""

    @property
    def forced(self) -> list[str]:
        """Stages to force, "all" for a bare --force."""
        return self.force or []

    def selection(self) -> Selection:
        """Return the selected stages."""
        return select(from_stage=self.from_, until=self.until, only=self.only, force=self.forced)


_ONE_OF = {
    "weights": "FLOAT",
    "features": "COLUMN",
    "exclude": "COLUMN",
    "categories": "COLUMN",
    "symbols": "SYMBOL",
    "formats": "CHOICE",
}
"""What one value of a key that takes several is called in the help."""


def _flags(section: type[Section], name_of_model: str, only: Sequence[str] = ()) -> type[BaseModel]:
    """Return a model of a section's keys without defaults and rules: it shows which keys were given, and the rules
    apply after all layers are merged. only: the keys; all by default.
    """
    fields: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        if only and name not in only:
            continue
        kind: Any = bool if name == "bias" and section is Train else field.annotation
        default = "none" if field.default is None else field.default
        text = ", ".join(map(str, default)) if isinstance(default, tuple) else default
        typed, more = None, ""
        if int in (kind, *get_args(kind)):
            # Parsed in `_said`: cyclopts would round.
            kind, typed = str, "INT"
        elif is_list(f"{section.__name__.lower()}.{name}"):
            # cyclopts would show STR..., as if several values could follow one option.
            typed, more = _ONE_OF.get(name, "TEXT"), " Repeat the option for more."
        fields[name] = (
            Annotated[kind | None, Parameter(metavar=typed)],
            Field(None, description=f"{field.description}{more} [default: {text}]"),
        )
    return create_model(name_of_model, **fields)


DataFlags = _flags(Data, "DataFlags")
TrainFlags = _flags(Train, "TrainFlags")
EvaluateFlags = _flags(Evaluate, "EvaluateFlags")
ExportFlags = _flags(Export, "ExportFlags")
DialectFlags = _flags(Data, "DialectFlags", SPELLING_KEYS)

SECTIONS = {
    "DataFlags": "data",
    "DialectFlags": "data",
    "TrainFlags": "train",
    "EvaluateFlags": "evaluate",
    "ExportFlags": "export",
}
"""The section of each model of flags."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The configuration, in layers."""

    config: Path | None = None
    """A TOML file with one table per section."""

    preset: str | None = None
    """A named configuration: tutorial."""

    data: DataFlags | None = None  # type: ignore[valid-type]
    train: TrainFlags | None = None  # type: ignore[valid-type]
    evaluate: EvaluateFlags | None = None  # type: ignore[valid-type]
    export: ExportFlags | None = None  # type: ignore[valid-type]

    def settle(self, **more: dict[str, Any]) -> Pipeline:
        """Return the whole configuration: defaults, preset, file, environment, flags.

        more: sections from other options, which override the flags.
        """
        flags = {name: _said(name, getattr(self, name)) for name in Pipeline.model_fields}
        for name, values in more.items():
            flags[name] |= values
        return settle(preset=self.preset, file=self.config, environment=os.environ, overrides=flags)


def read_dialect(flags: BaseModel) -> Data:
    """Return the keys that say how a CSV file is written, checked. Raises: BadInput."""
    # Keys of a file need one; its name plays no part.
    file = {"path": "rows.csv", "target": "y"}
    return settle(overrides={"data": {**file, **_said("data", flags)}}).data


def _said(section: str, flags: BaseModel | None) -> dict[str, Any]:
    values = {} if flags is None else flags.model_dump(exclude_unset=True)
    return {
        name: parse_text(value, f"{section}.{name}") if isinstance(value, str) else value
        for name, value in values.items()
    }


_MOST_ADVICE = 20_000


def options_of(advice: Mapping[str, Any]) -> str:
    """Return settings as options for a shell; options beyond 20,000 characters are left out as a whole."""
    words: list[str] = []
    for key, value in advice.items():
        name = "--target" if key == "data.target" else f"--{key.replace('_', '-')}"
        for item in value if isinstance(value, list) else [value]:
            text = str(item)
            quoted_text = shlex.quote(text) if text.isprintable() else "$'" + repr(text)[1:-1].replace("'", "\\'") + "'"
            words.append(f"{name}={quoted_text}" if text[:1] in ("-", "") else f"{name} {quoted_text}")
    total = itertools.accumulate(len(word) + 1 for word in words)
    return " ".join(word for word, length in zip(words, total, strict=True) if length <= _MOST_ADVICE)
