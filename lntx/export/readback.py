"""Read exported files in a process that does not have the model in memory.

Judges nothing: the caller compares.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lntx.base.files import sha256_of
from lntx.export.formats import load_predictor
from lntx.export.worker import fresh_process


def ask(model: Path, rows: Sequence[Path], answers: Sequence[Path]) -> None:
    """Predict each file of rows with an exported model in a fresh process, and write files of answers (both .npy).

    Raises: Refused: the file could not be loaded or used. LntxError: the process ended unexpectedly.
    """
    # Absolute paths: the helper keeps its working directory when this process changes its own.
    fresh_process().call(
        "lntx.export.readback:predict_files",
        model=str(model.absolute()),
        sha256=sha256_of(model),
        rows=[str(path.absolute()) for path in rows],
        answers=[str(path.absolute()) for path in answers],
    )


def predict_files(model: str, sha256: str, rows: Sequence[str], answers: Sequence[str]) -> None:
    """Predict in the fresh process. sha256: digest of the file that was just written."""
    predict = load_predictor(model, trusted={sha256})
    for expected, answered in zip(rows, answers, strict=True):
        np.save(answered, predict(np.load(expected)))


def warm_up() -> None:
    """Load an example before the forks, so that the libraries for reading are imported: half are imported on first use.

    Not onnxruntime: it starts threads, which do not exist in a fork.
    """
    import safetensors.torch  # noqa: F401
    import torch

    from lntx.export.formats import load_program

    example = torch.zeros(2, 1)
    rows = torch.export.Dim("num_rows", min=1)
    program = torch.export.export(torch.nn.ReLU(), (example,), dynamic_shapes=({0: rows},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    content = buffer.getvalue()
    load_program(content, Path("example.pt2"), trusted={hashlib.sha256(content).hexdigest()})
