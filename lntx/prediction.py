"""Use a model: rows in, predictions out, from any exported file. Knows file formats; knows no store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lntx.errors import BadInput, LntxError
from lntx.model import LNTXLinearModel

Predictor = Callable[[np.ndarray], np.ndarray]
"""Rows, shape (num_rows, num_features), to predictions, shape (num_rows, 1), in the model's dtype."""

SUFFIXES = {".safetensors": "safetensors", ".pt2": "pt2", ".onnx": "onnx"}


def load_model(path: str | Path) -> LNTXLinearModel:
    """Load a model from a safetensors file.

    Raises: BadInput: the file is missing, or not a linear model.
    """
    import safetensors.torch
    import torch

    file = _existing(Path(path))
    with _usable(file):
        tensors = safetensors.torch.load_file(file)
    weight, bias = tensors.get("linear.weight"), tensors.get("linear.bias")
    if (
        weight is None
        or weight.ndim != 2
        or weight.shape[0] != 1
        or weight.dtype not in (torch.float64, torch.float32)
        or (bias is not None and (bias.shape != (1,) or bias.dtype != weight.dtype))
        or set(tensors) - {"linear.weight", "linear.bias"}
    ):
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(tensors.items()))
        raise BadInput(f"{file} is not a linear model of floats: it holds {shapes or 'nothing'}")
    model = LNTXLinearModel(weight.shape[1], bias=bias is not None, dtype=weight.dtype)
    model.load_state_dict(tensors)
    return model


def load_predictor(path: str | Path) -> Predictor:
    """Load a model from a safetensors, .pt2 or .onnx file.

    Raises: BadInput: the file is missing, of another kind, or onnxruntime is not installed.
    """
    file = _existing(Path(path))
    kind = SUFFIXES.get(file.suffix)
    if kind is None:
        raise BadInput(f"{file} must end in {', '.join(SUFFIXES)}")
    if kind == "safetensors":
        return _guarded(_module(load_model(file)), file)
    with _usable(file):
        if kind == "onnx":
            return _guarded(_onnx(file), file)
        import torch

        return _guarded(_module(torch.export.load(file).module()), file)


def _guarded(ask: Predictor, file: Path) -> Predictor:
    """The same, with what a loader's runtime says turned into one line."""

    def predict(x: np.ndarray) -> np.ndarray:
        with _usable(file, doing=f"take {x.shape[1]} numbers a row"):
            return ask(x)

    return predict


@contextmanager
def _usable(file: Path, *, doing: str = "be loaded as a model") -> Iterator[None]:
    # Each library raises what it likes for a foreign file, and torch logs a traceback of its own besides.
    loud = logging.getLogger("torch.export")
    level = loud.level
    loud.setLevel(logging.CRITICAL)
    try:
        yield
    except LntxError:
        raise
    except Exception as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{file} cannot {doing}: {said}") from None
    finally:
        loud.setLevel(level)


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
