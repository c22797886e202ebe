"""What this machine and its packages are, and what is wrong with them for lntx: findings, each with a cure.

Reads, and tries; changes nothing that stays. Knows no Prefect: the command adds what it knows of the server.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Literal

from lntx.base.files import network_disk
from lntx.base.text import listed
from lntx.base.version import __version__
from lntx.base.workers import cores
from lntx.config.schema import Section

State = Literal["ok", "note", "problem"]

_LOW_DISK = 2**30
# Files of other machines or of a clock that was set back look newer than now.
_CLOCK_S = 2.0

ARITHMETIC = {
    "ATEN_CPU_CAPABILITY": "chooses torch's kernels",
    "CUBLAS_WORKSPACE_CONFIG": "chooses how cuBLAS adds",
    "LD_PRELOAD": "puts other libraries before those of the packages",
    "MKL_CBWR": "chooses MKL's kernels",
    "MKL_ENABLE_INSTRUCTIONS": "chooses MKL's kernels",
    "MKL_NUM_THREADS": "sets the threads of MKL",
    "NPY_DISABLE_CPU_FEATURES": "switches kernels of numpy off",
    "NVIDIA_TF32_OVERRIDE": "changes the format of products on the GPU",
    "OMP_NUM_THREADS": "sets the threads of OpenMP",
    "ONEDNN_MAX_CPU_ISA": "chooses oneDNN's kernels",
    "OPENBLAS_CORETYPE": "chooses numpy's BLAS kernels",
    "OPENBLAS_NUM_THREADS": "sets the threads of numpy's BLAS",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "changes the format of products on the GPU",
}
"""Variables of the environment that can change bits or times, and what each does."""


class Finding(Section):
    """One thing that was looked at."""

    name: str
    """What was looked at."""

    state: State
    """ok; note: unusual, but works; problem: something will not work."""

    said: str
    """What was found."""

    cure: str | None = None
    """A command, or a clause, that mends it; None if there is nothing to mend."""


def examine(root: Path) -> Iterator[Finding]:
    """Yield findings about this machine, its packages, and a root, which need not exist yet."""
    yield Finding(name="lntx", state="ok", said=f"{__version__}, in {Path(__file__).parent}")
    yield from _packages()
    yield Finding(name="processor", state="ok", said=f"{platform.machine()}, {cores()} cores for this process")
    for look in (_own_files, _torch, _tried, _blas, _compiler, _environment, _disk, _file_system, _locks, _clock):
        try:
            yield from look(_nearest(root))
        except Exception as error:
            message = next(iter(str(error).splitlines()), "")
            name = look.__name__.strip("_").replace("_", " ")
            yield Finding(name=name, state="problem", said=f"cannot be looked at: {type(error).__name__}: {message}")


def _packages() -> Iterator[Finding]:
    """Compare installed versions with those that lntx asks for."""
    from packaging.requirements import Requirement

    yield Finding(name="python", state="ok", said=f"{platform.python_version()}, {sys.executable}")
    for line in importlib.metadata.requires("lntx") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            cure = f"pip install '{requirement.name}{requirement.specifier}'"
            yield Finding(name=requirement.name, state="problem", said="is not installed", cure=cure)
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        yield Finding(
            name=requirement.name,
            state="ok" if fits else "problem",
            said=version if fits else f"{version}, where lntx needs {requirement.specifier}",
            cure=None if fits else f"pip install '{requirement.name}{requirement.specifier}'",
        )


def _own_files(_folder: Path) -> Iterator[Finding]:
    """Compare the installed files with the digests that the installer wrote: another package could replace them."""
    altered, count = [], 0
    for file in importlib.metadata.files("lntx") or ():
        if file.hash is not None and file.suffix == ".py":
            count += 1
            digest = hashlib.new(file.hash.mode, file.read_binary()).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
                altered.append(str(file))
    if altered:
        message = f"{listed(altered)} are not those of lntx: another package may have the same name"
        cure = "install lntx again, in an environment without that package"
        yield Finding(name="files of lntx", state="problem", said=message, cure=cure)
    elif count:
        yield Finding(name="files of lntx", state="ok", said=f"{count} modules are as they were installed")


def _torch(_folder: Path) -> Iterator[Finding]:
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    yield Finding(name="torch's kernels", state="ok", said=f"{capability}, {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            yield Finding(name=f"GPU {number}", state="ok", said=torch.cuda.get_device_name(number))
    elif torch.version.cuda is not None and shutil.which("nvidia-smi"):
        message = f"torch is built for CUDA {torch.version.cuda}, and finds no device"
        yield Finding(name="GPU", state="problem", said=message, cure="nvidia-smi (it says what the driver finds)")
    else:
        why = "" if torch.version.cuda else ": torch is built without CUDA"
        yield Finding(name="GPU", state="ok", said=f"none{why}")


def _tried(_folder: Path) -> Iterator[Finding]:
    """Compare versions and processor with those that lntx was run with: a difference is no problem."""
    import torch

    rows = json.loads(files("lntx").joinpath("tried.json").read_text(encoding="utf-8"))
    python = ".".join(platform.python_version_tuple()[:2])
    here = {"python": python, "processor": platform.machine(), "kernels": torch.backends.cpu.get_cpu_capability()}
    known = {
        "python": {".".join(row["python"].split(".")[:2]) for row in rows},
        "processor": {row["machine"] for row in rows},
        "kernels": {row["kernels"] for row in rows},
    }
    for name in {name for row in rows for name in row["versions"]}:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            here[name] = importlib.metadata.version(name).split("+")[0]
            known[name] = {row["versions"][name].split("+")[0] for row in rows if name in row["versions"]}
    new = [f"{name} {value}" for name, value in sorted(here.items()) if value not in known[name]]
    message = f"not tried yet with {', '.join(new)}" if new else "tried with these versions and this processor"
    yield Finding(name="versions", state="note" if new else "ok", said=message)


def _blas(_folder: Path) -> Iterator[Finding]:
    import numpy as np
    import threadpoolctl

    # The libraries are loaded with numpy.
    assert np.__version__
    for pool in threadpoolctl.threadpool_info():
        message = f"{pool['internal_api']} {pool.get('version') or ''}, {pool['num_threads']} threads".replace(
            " ,", ","
        )
        yield Finding(name=Path(pool["filepath"]).name.split(".")[0].split("-")[0], state="ok", said=message)


def _compiler(_folder: Path) -> Iterator[Finding]:
    """Look whether numba can keep what it compiles."""
    folder = Path(__file__).parent / "numerics" / "__pycache__"
    place = folder if os.access(folder, os.W_OK) else Path(os.environ.get("NUMBA_CACHE_DIR") or Path.home() / ".cache")
    is_writable = os.access(place, os.W_OK)
    yield Finding(
        name="compiled loops",
        state="ok" if is_writable else "note",
        said=f"kept in {place}" if is_writable else "compiled again in each process: no folder for them can be written",
        cure=None if is_writable else "export NUMBA_CACHE_DIR=FOLDER",
    )


def _environment(_folder: Path) -> Iterator[Finding]:
    variables = {name: os.environ[name] for name in ARITHMETIC if os.environ.get(name)}
    for name, value in variables.items():
        yield Finding(name=name, state="note", said=f"{value}: {ARITHMETIC[name]}", cure=f"unset {name}")
    if not variables:
        yield Finding(name="environment", state="ok", said="no variable that changes arithmetic")


def _disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    low = free < _LOW_DISK
    yield Finding(
        name="disk",
        state="problem" if low else "ok",
        said=f"{free / 1e9:.1f} GB free at {folder}",
        cure="lntx gc --keep 10, or another --root" if low else None,
    )


def _file_system(folder: Path) -> Iterator[Finding]:
    kind = network_disk(folder)
    yield Finding(
        name="file system",
        state="ok" if kind is None else "note",
        said="of this machine" if kind is None else f"{kind}: other machines may not see its locks",
        cure=None if kind is None else "start runs in this root from one machine only, or choose another --root",
    )


def _locks(folder: Path) -> Iterator[Finding]:
    """Take a lock twice: the second time must fail."""
    with tempfile.NamedTemporaryFile(dir=folder) as first, Path(first.name).open("rb") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield Finding(name="locks", state="ok", said="flock works")
            return
    message = f"flock has no effect in {folder}: two runs can compute the same result at once"
    yield Finding(name="locks", state="problem", said=message, cure="choose --root on another file system")


def _clock(folder: Path) -> Iterator[Finding]:
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        ahead = Path(file.name).stat().st_mtime - time.time()
    wrong = abs(ahead) > _CLOCK_S
    yield Finding(
        name="clock",
        state="problem" if wrong else "ok",
        said=f"that of the disk is {ahead:+.0f} s from that of this machine" if wrong else "agrees with the disk's",
        cure="timedatectl set-ntp true (on both machines)" if wrong else None,
    )


def _nearest(root: Path) -> Path:
    """Return the root, or the nearest folder around it that exists."""
    return next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.is_dir())
