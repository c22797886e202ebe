"""Export a model to files that other programs can load, and verify each file by reading it back.

Knows formats; `evaluation` judges the model, and `store` publishes the files.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import torch

from lntx.config.schema import Export, Section
from lntx.evaluation.verdict import Evaluation
from lntx.export.formats import FORMATS, load_model
from lntx.export.readback import ask
from lntx.export.worker import Refused
from lntx.training.model import LNTXLinearModel
from lntx.training.result import Fit

logger = logging.getLogger(__name__)

PROBE_ROWS = (1, 2, 1000)
"""Batch sizes with which every export is tested."""

# Runtimes sum in a different order than torch. Measured with 3 to 1,000 features in both dtypes: 1.7 at most.
_EPS_ALLOWED = 4


class ReadBack(Section):
    """The result of reading one exported file in a fresh process."""

    max_error: float | None
    """Largest |prediction - prediction of the model|, in eps · (Σ|x·w| + |b|); None if there was no prediction."""

    problem: str | None
    """Why the file is wrong; None if it is right."""


class Card(Section):
    """Description of an exported model: its inputs, its training and its quality."""

    model: str
    """Class name of the model."""

    formula: str
    """The learned function, to 6 digits."""

    features: tuple[str, ...]
    """Names of the features, in the order of the weights."""

    degree: int
    """Degree of the polynomial, whose powers are the inputs; 1 for an ordinary linear model."""

    target: str
    """Name of the target."""

    columns: tuple[str, ...]
    """Columns of a table that the features come from."""

    levels: dict[str, tuple[str, ...]]
    """Levels of each column that is a category, the first of which has no feature."""

    evaluation: Evaluation
    """How far the weights are from the exact solution."""

    fit: Fit
    """How the weights were learned."""

    read_back: dict[str, ReadBack]
    """Result of reading each file back, by format."""


def export(model: LNTXLinearModel, fit: Fit, evaluation: Evaluation, settings: Export, folder: Path) -> Card:
    """Write `model.<format>` per format and `card.json`, and test each file in a fresh process.

    Raises: BadInput: onnx is requested but its extra is not installed.
    """
    read_back = {}
    for name in settings.formats:
        path = folder / f"model.{name}"
        path.write_bytes(FORMATS[name].write(model))
        if (model.weights, model.bias) == (fit.weights, fit.bias):
            read_back[name] = prove(path, model)
        else:
            read_back[name] = ReadBack(max_error=None, problem="its weights are not those that training ended with")
        logger.info("%s: %s", path.name, read_back[name].problem or f"within {read_back[name].max_error:.2g} eps")
    card = Card(
        model="LNTXLinearModel",
        formula=_formula(evaluation, fit),
        features=evaluation.features,
        degree=evaluation.degree,
        target=evaluation.target,
        columns=evaluation.columns,
        levels=evaluation.levels,
        evaluation=evaluation,
        fit=fit,
        read_back=read_back,
    )
    (folder / "card.json").write_text(card.model_dump_json(indent=1), encoding="utf-8")
    return card


def prove(path: Path, model: LNTXLinearModel) -> ReadBack:
    """Compare the predictions of a file, read in a fresh process, with those of the model."""
    num_features = len(model.weights)
    generator = np.random.Generator(np.random.PCG64(0))
    probes = [generator.uniform(-10, 10, (rows, num_features)) for rows in PROBE_ROWS]
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="lntx-") as scratch:
        rows = [Path(scratch) / f"rows-{i}.npy" for i in range(len(probes))]
        answers = [Path(scratch) / f"answers-{i}.npy" for i in range(len(probes))]
        for file, probe in zip(rows, probes, strict=True):
            np.save(file, probe)
        try:
            ask(path, rows, answers)
        except Refused as error:
            return ReadBack(max_error=None, problem=str(error))
        for probe, file in zip(probes, answers, strict=True):
            problem, error_eps = _compare(np.load(file), probe, model)
            if problem is not None:
                return ReadBack(max_error=error_eps, problem=problem)
            assert error_eps is not None
            worst = max(worst, error_eps)
    if path.suffix == ".safetensors" and load_model(path).weights != model.weights:
        return ReadBack(max_error=worst, problem="the weights in the file are not the trained ones")
    return ReadBack(max_error=worst, problem=None)


def _compare(answer: np.ndarray, probe: np.ndarray, model: LNTXLinearModel) -> tuple[str | None, float | None]:
    """Return the problem, or None, and the largest error in eps · (Σ|x·w| + |b|), or None."""
    with torch.no_grad():
        weight = model.linear.weight
        x = torch.from_numpy(probe).to(weight.dtype)
        expected = model(x).numpy()
        reach = (x.abs() @ weight.abs().T + abs(model.bias or 0.0)).double().numpy()
    if answer.dtype != expected.dtype:
        return f"it answers in {answer.dtype} where the model is {expected.dtype}", None
    if answer.shape != expected.shape:
        return f"it answers {len(probe)} rows with shape {answer.shape} in place of {expected.shape}", None
    if not np.isfinite(answer).all():
        return "it answers with NaN or infinity", None
    errors = np.abs(answer.astype(np.float64) - expected) / (np.finfo(expected.dtype).eps * np.maximum(reach, 1e-300))
    worst = float(errors.max())
    if worst > _EPS_ALLOWED:
        row = int(errors.argmax())
        return f"it predicts {float(answer[row, 0])!r} where the model predicts {float(expected[row, 0])!r}", worst
    return None, worst


def _formula(evaluation: Evaluation, fit: Fit) -> str:
    terms = [f"{weight:.6g}·{name}" for weight, name in zip(fit.weights, evaluation.features, strict=True)]
    if fit.bias is not None:
        terms.append(f"{fit.bias:.6g}")
    return f"{evaluation.target} = " + " + ".join(terms)
