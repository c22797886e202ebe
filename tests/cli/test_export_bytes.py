"""Exports written by two environments. Run: pytest tests/cli/test_export_bytes.py"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_WRITE = """
import sys, torch
from lntx.export.formats import FORMATS
from lntx.training.model import LNTXLinearModel
model = LNTXLinearModel(3, bias=True, generator=torch.Generator().manual_seed(1))
for name in ("safetensors", "pt2", "onnx"):
    open(f"{sys.argv[1]}.{name}", "wb").write(FORMATS[name].write(model))
"""


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_environment_or_the_file_name(tmp_path: Path) -> None:
    """Two environments at different paths, two working directories, two file names: the same bytes."""
    library = next(Path(path) for path in sys.path if (Path(path) / "torch").is_dir())
    project = Path(__file__).parents[2]
    for name in ("one", "another"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "packages").symlink_to(library)
        (folder / "project").symlink_to(project)
        environment = {**os.environ, "PYTHONPATH": f"{folder / 'project'}:{folder / 'packages'}"}
        # -S: no site-packages but the ones named here, so that every traceback would name this folder.
        command = [sys.executable, "-S", "-c", _WRITE, str(folder / f"{name}-model")]
        subprocess.run(command, cwd=folder, env=environment, check=True)
    for suffix in ("safetensors", "pt2", "onnx"):
        one = (tmp_path / "one" / f"one-model.{suffix}").read_bytes()
        assert one == (tmp_path / "another" / f"another-model.{suffix}").read_bytes(), suffix
