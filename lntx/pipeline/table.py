"""The table of stages: what each reads, what its result depends on, and what computes it.

This is the only definition of stages in the core; `flows/tasks.py` has the settings for Prefect. To add a stage, name
it in `lntx/base/stages.py` and add it to both.
"""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lntx.base.stages import Blame, Stage
from lntx.config.schema import FILE_KEYS, Pipeline
from lntx.export.formats import FORMATS
from lntx.pipeline import work
from lntx.pipeline.outcome import Outcome, Request
from lntx.store.key import Identity, code_digest, modules_of, version_of
from lntx.store.store import Store


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """The definition of a stage."""

    inputs: tuple[Stage, ...]
    """The stages whose results it reads."""

    sections: tuple[str, ...]
    """Sections of the configuration that it reads."""

    unread: tuple[str, ...] = ()
    """Dotted keys of these sections that do not affect its result."""

    roots: tuple[str, ...]
    """Modules of lntx that do its work, the first one for synthetic rows."""

    packages: tuple[str, ...]
    """Packages whose version affects its result."""

    work: Callable[[Request, Store, Mapping[Stage, Outcome], Path, Identity], Mapping[str, str] | None]
    """Writes the files of a result to a folder; returns the digests that were computed during writing."""

    leaves: tuple[str, ...] = ()
    """Names of the files that its result always contains."""

    part: Blame
    """The part to blame if its result is wrong."""

    @property
    def modules(self) -> list[str]:
        """Modules of lntx that affect its result: the roots and all that they import."""
        return modules_of(*self.roots)


TABLE: dict[Stage, StageEntry] = {
    "generate": StageEntry(
        inputs=(),
        sections=("data",),
        roots=("data.shards", "data.synthetic", "data.importing"),
        packages=("numpy", "pyarrow"),
        work=work.compute_generate,
        part="data",
    ),
    "train": StageEntry(
        inputs=("generate",),
        sections=("train",),
        roots=("training.fit", "training.model"),
        packages=("numba", "numpy", "pyarrow", "safetensors", "torch"),
        work=work.compute_train,
        leaves=("model.safetensors", "history.parquet", "fit.json"),
        part="training",
    ),
    "evaluate": StageEntry(
        inputs=("generate", "train"),
        sections=("evaluate", "data"),
        # Used only to compare runs.
        unread=("evaluate.shift_limit",),
        roots=("evaluation.evaluate",),
        packages=("numba", "numpy", "pyarrow", "python-flint", "torch"),
        work=work.compute_evaluate,
        leaves=("evaluation.json",),
        part="reference",
    ),
    "export": StageEntry(
        inputs=("train", "evaluate"),
        sections=("export",),
        roots=("export.export",),
        packages=("numpy", "safetensors", "torch"),
        work=work.compute_export,
        leaves=("card.json",),
        part="export",
    ),
}
"""Every stage, in the order of `STAGES`."""


def sections_for(stage: Stage) -> list[str]:
    """Return the sections of the configuration that a run of one stage reads: its own, then those of its inputs."""
    entry = TABLE[stage]
    inputs = [section for name in reversed(entry.inputs) for section in sections_for(name)]
    return list(dict.fromkeys([*entry.sections, *inputs]))


def import_ahead(stages: Iterable[Stage]) -> None:
    """Import what the work of stages needs, while the caller waits for something else."""
    for stage in stages:
        importlib.import_module(f"lntx.{TABLE[stage].roots[0]}")


def stage_of(part: Blame) -> Stage:
    """Return the stage whose result is wrong if a part is blamed."""
    return next(stage for stage, entry in TABLE.items() if entry.part == part)


def identify(stage: Stage, pipeline: Pipeline, *, source_sha256: str | None, inputs: Mapping[str, str]) -> Identity:
    """Collect everything that determines a stage's result.

    source_sha256: digest of the user's file, or None. inputs: content digests of the input stages.

    Raises: BadInput: a package that the configuration needs is not installed.
    """
    entry = TABLE[stage]
    packages = entry.packages
    if "export" in entry.sections:
        packages += tuple(name for export_format in pipeline.export.formats for name in FORMATS[export_format].packages)
    return Identity(
        stage=stage,
        code={name: code_digest(name) for name in entry.modules},
        # The version of Python, because the dump of a syntax tree depends on it.
        versions={
            **{name: version_of(name) for name in packages},
            "python": ".".join(platform.python_version_tuple()[:2]),
            "machine": platform.machine(),
        },
        config=config_read(stage, pipeline, source_sha256=source_sha256),
        inputs=dict(inputs),
    )


def config_read(stage: Stage, pipeline: Pipeline, *, source_sha256: str | None) -> dict[str, Any]:
    """Return the configuration that a stage reads: dotted keys, JSON values, `auto` resolved where possible."""
    entry = TABLE[stage]
    values_read: dict[str, Any] = {}
    for section in entry.sections:
        values = _data_read(pipeline, source_sha256) if section == "data" else _dotted(pipeline, section)
        values_read |= {key: value for key, value in values.items() if key not in entry.unread}
    if "train" in entry.sections:
        device = "cuda" if pipeline.train.device == "cuda" else "cpu"
        values_read |= {"train.bias": pipeline.learns_bias, "train.device": device}
    return values_read


def _data_read(pipeline: Pipeline, source_sha256: str | None) -> dict[str, Any]:
    # Only the values of the weights matter, not whether they are drawn or given.
    data = _dotted(pipeline, "data") | {
        "data.weights": list(pipeline.data.true_weights or ()),
        "data.num_features": None,
    }
    if pipeline.data.path is None:
        return data
    # The content decides, not where the file lies.
    return {f"data.{key}": data[f"data.{key}"] for key in FILE_KEYS} | {"data.sha256": source_sha256}


def _dotted(pipeline: Pipeline, section: str) -> dict[str, Any]:
    values = getattr(pipeline, section).model_dump(mode="json")
    return {f"{section}.{key}": value for key, value in values.items()}
