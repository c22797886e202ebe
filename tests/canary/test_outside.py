"""Faults from outside, by ways that the code does not know of: a `sitecustomize` in the environment of a real command.

Run: pytest tests/canary/test_outside.py; the whole catalogue is in `make test-all`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Runs a function on a module as soon as it is imported, by any importer.
_HOOK = """
import importlib.abc, importlib.util, os, pathlib, sys

class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, name, change):
        self.name, self.change, self.busy = name, change, False

    def find_spec(self, name, path, target=None):
        if name != self.name or self.busy:
            return None
        self.busy = True
        spec = importlib.util.find_spec(name)
        self.busy = False
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            self.change(module)
        spec.loader.exec_module = exec_module
        return spec

def on_import(name):
    return lambda change: sys.meta_path.insert(0, _Finder(name, change))
"""

FAULTS: dict[str, tuple[str, str]] = {
    "linear-from-the-third-call": (
        "training",
        """
@on_import("torch.nn.functional")
def _(functional):
    linear, calls = functional.linear, []
    def scaled(*args, **options):
        calls.append(1)
        found = linear(*args, **options)
        return found * (1 + 1e-6) if len(calls) >= 3 else found
    functional.linear = scaled
""",
    ),
    "parquet-reads-without-a-row": (
        "data",
        """
@on_import("pyarrow.parquet.core")
def _(core):
    read_table, read, iter_batches = core.read_table, core.ParquetFile.read, core.ParquetFile.iter_batches
    core.read_table = lambda *args, **options: read_table(*args, **options).slice(1)
    core.ParquetFile.read = lambda self, *args, **options: read(self, *args, **options).slice(1)
    def shorter(self, *args, **options):
        for batch in iter_batches(self, *args, **options):
            yield batch.slice(1)
    core.ParquetFile.iter_batches = shorter
""",
    ),
    "parquet-tables-without-a-row": (
        "data",
        """
@on_import("pyarrow.parquet")
def _(parquet):
    read_table = parquet.read_table
    parquet.read_table = lambda *args, **options: read_table(*args, **options).slice(0, 900)
""",
    ),
    "parquet-batches-without-a-row-once": (
        "data",
        """
@on_import("pyarrow.parquet.core")
def _(core):
    iter_batches, calls = core.ParquetFile.iter_batches, []
    def shorter(self, *args, **options):
        calls.append(1)
        first = len(calls) == 1
        for batch in iter_batches(self, *args, **options):
            yield batch.slice(1) if first else batch
    core.ParquetFile.iter_batches = shorter
""",
    ),
    "arrays-through-float32": (
        "data",
        """
@on_import("pyarrow")
def _(pyarrow):
    import numpy
    array = pyarrow.array
    def rounded(values, *args, **options):
        if isinstance(values, numpy.ndarray) and values.dtype == numpy.float64:
            values = values.astype(numpy.float32).astype(numpy.float64)
        return array(values, *args, **options)
    pyarrow.array = rounded
""",
    ),
    "truncated-dataset": (
        "data",
        """
replace = pathlib.Path.replace
def truncating(self, target):
    found = replace(self, target)
    if str(target).endswith(".parquet") and "dataset" in str(target):
        os.truncate(target, os.path.getsize(target) // 2)
    return found
pathlib.Path.replace = truncating
""",
    ),
    "safetensors-altered-on-rename": (
        "export",
        """
replace = pathlib.Path.replace
def altering(self, target):
    found = replace(self, target)
    if str(target).endswith(".safetensors"):
        content = bytearray(open(target, "rb").read())
        content[-1] ^= 0x80
        open(target, "wb").write(content)
    return found
pathlib.Path.replace = altering
""",
    ),
    "safetensors-altered-on-writing": (
        "export",
        """
write_bytes = pathlib.Path.write_bytes
def altering(self, content):
    if str(self).endswith(".safetensors"):
        content = bytearray(content)
        content[-8] ^= 1
    return write_bytes(self, bytes(content))
pathlib.Path.write_bytes = altering
""",
    ),
    "safetensors-altered-by-another-program": (
        "export",
        """
import glob, threading, time
def watch():
    seen = set()
    while True:
        for path in glob.glob(os.environ["TMPDIR"] + "/lntx-canary-*/artifacts/export/model-*.safetensors"):
            if path not in seen:
                seen.add(path)
                content = bytearray(open(path, "rb").read())
                # Set, not flipped: more than one process does it.
                content[-3] = 7
                open(path, "wb").write(content)
        time.sleep(0.001)
threading.Thread(target=watch, daemon=True).start()
""",
    ),
    "safetensors-saves-other-weights": (
        "export",
        """
@on_import("safetensors.torch")
def _(module):
    save = module.save
    module.save = lambda tensors, *args, **options: save(
        {name: tensor * (1 + 1e-12) for name, tensor in tensors.items()}, *args, **options
    )
""",
    ),
    "pt2-answers-wrongly": (
        "export",
        """
@on_import("torch.export")
def _(export):
    load = export.load
    class Program:
        def __init__(self, program):
            self.inner = program.module()
        def module(self):
            return self
        def __call__(self, x):
            return self.inner(x) * (1 + 1e-9)
        def state_dict(self):
            return self.inner.state_dict()
    export.load = lambda *args, **options: Program(load(*args, **options))
""",
    ),
    "patched-sgd": (
        "training",
        """
@on_import("torch.optim.sgd")
def _(sgd):
    step = sgd.SGD.step
    def scaled(self, *args, **options):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.mul_(1 + 1e-9)
        return step(self, *args, **options)
    sgd.SGD.step = scaled
""",
    ),
    "patched-backward": (
        "training",
        """
@on_import("torch")
def _(torch):
    backward = torch.Tensor.backward
    torch.Tensor.backward = lambda self, *args, **options: backward(self * (1 + 1e-8), *args, **options)
""",
    ),
    "patched-start": (
        "training",
        """
@on_import("torch.nn.init")
def _(init):
    init.uniform_ = lambda tensor, a=0.0, b=1.0, generator=None: init._no_grad_fill_(tensor, 2.0)
""",
    ),
    "one-loss-of-many": (
        "training",
        """
@on_import("torch.nn.functional")
def _(functional):
    mse_loss, calls = functional.mse_loss, []
    def off(*args, **options):
        calls.append(1)
        return mse_loss(*args, **options) * (1.001 if len(calls) == 5 else 1.0)
    functional.mse_loss = off
""",
    ),
    "a-wrong-matrix-product": (
        "reference",
        """
@on_import("numpy")
def _(numpy):
    matmul = numpy.matmul
    def off(*args, **options):
        found = matmul(*args, **options)
        if found.ndim == 3:
            found[0, 0, 0] += 4096
        return found
    numpy.matmul = off
""",
    ),
}

_FAST = ("linear-from-the-third-call",)


def _canary(folder: Path, code: str) -> tuple[int, dict[str, Any]]:
    (folder / "tmp").mkdir()
    (folder / "sitecustomize.py").write_text(_HOOK + code)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "canary", "--local", "--json", "--root", str(folder / "root")],
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(folder / "tmp")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in _FAST else pytest.mark.slow) for name in FAULTS]
)
def test_a_fault_from_outside_is_caught_and_put_down_to_the_right_part(tmp_path: Path, name: str) -> None:
    expected, code = FAULTS[name]
    exit_code, found = _canary(tmp_path, code)
    assert (exit_code, found["verdict"], found["blame"]) == (3, "fail", expected), found["reason"]
    assert ": look at " in found["reason"]
    if name == "linear-from-the-third-call":
        assert found["reason"].startswith("epoch 3 deviates from the expected path")


def test_a_step_that_raises_is_no_wrong_answer(tmp_path: Path) -> None:
    """Without the canary too: the build cannot run it, and nothing else ran."""
    code = """
@on_import("torch.optim.sgd")
def _(sgd):
    def step(self, *args, **options):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    sgd.SGD.step = step
"""
    exit_code, found = _canary(tmp_path, code)
    assert (exit_code, found["verdict"], found["blame"]) == (1, None, None)
    assert found["reason"].startswith("nothing ran: not run here: three weights and a bias: RuntimeError: CUDA error")


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("", marks=pytest.mark.slow),
        pytest.param(
            '@on_import("torch")\ndef _(torch):\n    torch.set_default_dtype(torch.float64)\n', marks=pytest.mark.slow
        ),
        pytest.param(
            '@on_import("torch")\ndef _(torch):\n    torch.set_flush_denormal(True)\n', marks=pytest.mark.slow
        ),
    ],
    ids=["nothing", "default-dtype", "flushed-denormals"],
)
def test_what_does_no_harm_is_no_fault(tmp_path: Path, code: str) -> None:
    exit_code, found = _canary(tmp_path, code)
    assert (exit_code, found["verdict"]) == (0, "pass"), found["reason"]
