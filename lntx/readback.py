"""Exported files as a process sees them that has never seen the model.

Judges nothing: whoever asks compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lntx.files import sha256_of
from lntx.freshprocess import fresh_process
from lntx.prediction import load_predictor


def ask(model: Path, rows: Sequence[Path], answers: Sequence[Path]) -> None:
    """Have a fresh process predict each file of rows with an exported model, into a file of answers (both .npy).

    Raises: Refused: the file could not be loaded or asked. LntxError: the process died.
    """
    # Absolute: the process stays where it was started when this one changes its folder.
    fresh_process().call(
        "lntx.readback:predict_files",
        model=str(model.absolute()),
        sha256=sha256_of(model),
        rows=[str(path.absolute()) for path in rows],
        answers=[str(path.absolute()) for path in answers],
    )


def predict_files(model: str, sha256: str, rows: Sequence[str], answers: Sequence[str]) -> None:
    """What the fresh process does. sha256: digest of the file that was just written."""
    predict = load_predictor(model, trusted={sha256})
    for asked, answered in zip(rows, answers, strict=True):
        np.save(answered, predict(np.load(asked)))
