"""The cases of canaries: fixed ones for each level, and blind ones with unpredictable random values.

Every case trains by loss.backward() on all rows, without preconditioning: this tests torch, not a shortcut of lntx.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lntx.canary.suite.options import Device, Level
from lntx.config.loading import validate
from lntx.config.schema import Format, Pipeline, Section

# Rows of the large case: minutes of work, and only a share of the free memory and disk, to leave room for others.
_LARGE_ROWS = 20_000_000
_SHARE = 0.25
_LARGE_FEATURES = 3


class TrainingCase(Section):
    """A training whose answer is known."""

    name: str
    """Short description of the case."""

    pipeline: Pipeline
    """What is generated, trained and exported."""


def fixed_cases(level: Level, device: Device = "auto") -> tuple[TrainingCase, ...]:
    """Return the cases of a level, including those of lower levels."""
    centred = {"low": -3, "high": 3}
    cases = [
        _case("three weights and a bias", device, {"weights": (3.7, -1.2, 0.5), "bias": 2.0, **centred}, momentum=0.25)
    ]
    if level >= 2:
        formats: tuple[Format, ...] = ("safetensors", "pt2", *(("onnx",) if _has_onnx() else ()))
        noisy = {"num_features": 8, "bias": -1.5, "noise": 0.5, "distribution": "uniform", **centred}
        threads = max(2, min(os.cpu_count() or 1, 8))
        cases += [
            _case("one weight", device, {"weights": (3.7,)}, formats=formats),
            _case("one weight, float32", device, {"weights": (3.7,)}, dtype="float32", formats=formats),
            _case(
                "a bias, float32",
                device,
                {"weights": (3.7, -1.2, 0.5), "bias": 2.0, **centred},
                dtype="float32",
                formats=formats,
            ),
            _case("noise, 100,000 rows", device, {**noisy, "num_rows": 100_000}, momentum=0.5),
            _case(
                f"noise, 100,000 rows, {threads} threads", device, {**noisy, "num_rows": 100_000}, num_threads=threads
            ),
            _case(
                "noise, 100,000 rows, float32", device, {**noisy, "num_rows": 100_000}, dtype="float32", momentum=0.5
            ),
            _case(
                "a hundred weights",
                device,
                {"num_features": 100, "noise": 1.0, "distribution": "normal", **centred, "num_rows": 20_000},
                formats=formats,
            ),
            _case("a million rows", device, {"weights": (3.7,), "num_rows": 1_000_000}),
        ]
    if level >= 3:
        rows = large_rows()
        uniform = {"weights": (3.7, -1.2, 0.5), "bias": 2.0, "distribution": "uniform", **centred, "num_rows": rows}
        cases += [
            _case(f"{rows:,} rows", device, uniform),
            _case(f"{rows:,} rows, float32", device, {**uniform, "noise": 1.0}, dtype="float32"),
        ]
    return tuple(cases)


def blind_case(seed: int, device: Device = "auto", *, for_fault: bool = False) -> TrainingCase:
    """Return a case with random weights, rows and settings, determined by the seed, 0 ≤ seed < 2^63.

    for_fault: use at least two weights, a bias and float64, so that every fault can be planted and detected.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    num_rows = int(10 ** draw.integers(2, 6) * draw.uniform(1, 2))
    num_features = int(draw.integers(2 if for_fault else 1, 9))
    half = int(draw.integers(1, 4))
    has_bias = bool(draw.integers(2)) or for_fault
    data: dict[str, Any] = {
        "weights": tuple(_weight(draw) for _ in range(num_features)),
        "num_rows": num_rows,
        "distribution": ("integers", "uniform", "normal")[draw.integers(3)],
        "noise": float(draw.uniform(0.1, 1)) if draw.integers(2) else 0.0,
        "low": -half,
        "high": half,
        "seed": int(draw.integers(2**63)),
    }
    if has_bias:
        data["bias"] = _weight(draw)
    return _case(
        f"blind {seed}",
        device,
        data,
        momentum=float((0, 0.25, 0.5)[draw.integers(3)]),
        dtype="float64" if for_fault else ("float64", "float64", "float32")[draw.integers(3)],
        seed=int(draw.integers(2**63)),
    )


@functools.cache
def large_rows() -> int:
    """Return the rows of the large case: what a quarter of the free memory and of the disk holds, at most 20 million.

    Computed once per process, so that all repetitions are equal.
    """
    disk = shutil.disk_usage(tempfile.gettempdir()).free
    row_bytes = 8 * (_LARGE_FEATURES + 1)
    rows = int(min(_LARGE_ROWS, _SHARE * _free_memory() / row_bytes, _SHARE * disk / row_bytes))
    # A power of two: a fixed case keeps its number of rows between runs if the free memory changes little.
    return max(1_000_000, 1 << (rows.bit_length() - 1)) if rows < _LARGE_ROWS else _LARGE_ROWS


def _free_memory() -> int:
    """Return the available memory in bytes, within the limit of the container."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    with contextlib.suppress(OSError, ValueError):
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return free


def _case(
    name: str, device: Device, data: dict[str, Any], *, formats: tuple[Format, ...] | None = None, **train: Any
) -> TrainingCase:
    settings = {"gradient": "autograd", "precondition": "none", "device": device, "max_epochs": 2000, **train}
    export = {} if formats is None else {"formats": formats}
    # A canary runs many times: noise alone must not fail one of them.
    evaluate = {"false_alarm_rate": 1e-12}
    sections = {"data": data, "train": settings, "evaluate": evaluate, "export": export}
    return TrainingCase(name=name, pipeline=validate(sections))


def _weight(draw: np.random.Generator) -> float:
    """Draw a weight of either sign with a magnitude between 0.5 and 5, with all its digits."""
    return float(draw.choice((-1.0, 1.0)) * draw.uniform(0.5, 5))


def _has_onnx() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxruntime"))
