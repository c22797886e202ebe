"""Use a model: rows in, predictions out, from any exported file. Knows file formats; knows no store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lntx.errors import BadInput
from lntx.model import LNTXLinearModel

Predictor = Callable[[np.ndarray], np.ndarray]
"""Rows, shape (num_rows, num_features), to predictions, shape (num_rows, 1), in the model's dtype."""

SUFFIXES = {".safetensors": "safetensors", ".pt2": "pt2", ".onnx": "onnx"}


def load_model(path: str | Path) -> LNTXLinearModel:
    """Load a model from a safetensors file.

    Raises: BadInput: the file is missing, or not a linear model.
    """
    import safetensors
    import safetensors.torch

    file = _existing(Path(path))
    try:
        tensors = safetensors.torch.load_file(file)
    except safetensors.SafetensorError as error:
        raise BadInput(f"{file} is not a safetensors file: {error}") from None
    weight = tensors.get("linear.weight")
    if weight is None or weight.ndim != 2 or weight.shape[0] != 1 or set(tensors) - {"linear.weight", "linear.bias"}:
        raise BadInput(f"{file} is not a linear model: it holds {', '.join(sorted(tensors)) or 'nothing'}")
    model = LNTXLinearModel(weight.shape[1], bias="linear.bias" in tensors, dtype=weight.dtype)
    model.load_state_dict(tensors)
    return model


def load_predictor(path: str | Path) -> Predictor:
    """Load a model from a safetensors, .pt2 or .onnx file.

    Raises: BadInput: the file is missing, of another kind, or onnxruntime is not installed.
    """
    file = _existing(Path(path))
    kind = SUFFIXES.get(file.suffix)
    if kind == "safetensors":
        return _module(load_model(file))
    if kind == "pt2":
        import torch

        return _module(torch.export.load(file).module())
    if kind == "onnx":
        return _onnx(file)
    raise BadInput(f"{file} must end in {', '.join(SUFFIXES)}")


def _module(module: object) -> Predictor:
    import torch

    assert callable(module)

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            # A copy: torch warns of read-only arrays.
            y: np.ndarray = module(torch.tensor(x, dtype=dtype)).numpy()
        return y

    dtype = next(iter(module.state_dict().values())).dtype  # type: ignore[attr-defined]
    return predict


def _onnx(file: Path) -> Predictor:
    try:
        import onnxruntime
    except ImportError:
        raise BadInput("onnx needs an extra: pip install 'lntx[onnx]'") from None
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    dtype = np.float64 if given.type == "tensor(double)" else np.float32

    def predict(x: np.ndarray) -> np.ndarray:
        y: np.ndarray = session.run(None, {given.name: np.ascontiguousarray(x, dtype=dtype)})[0]
        return y

    return predict


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise BadInput(f"there is no model at {file}")
    return file
