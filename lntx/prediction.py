"""Use a model: rows in, predictions out, from any exported file. Knows file formats; knows no store."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lntx.errors import BadInput, LntxError
from lntx.files import read_regular
from lntx.model import LNTXLinearModel
from lntx.text import shown

Predictor = Callable[[np.ndarray], np.ndarray]
"""Rows, shape (num_rows, num_features), to predictions, shape (num_rows, 1), in the model's dtype."""

SUFFIXES = {".safetensors": "safetensors", ".pt2": "pt2", ".onnx": "onnx"}


def load_model(path: str | Path) -> LNTXLinearModel:
    """Load a model from a safetensors file.

    Raises: BadInput: the file is missing, or not a linear model of finite weights.
    """
    return model_of(read_model(Path(path)), Path(path))


def read_model(file: Path) -> bytes:
    """The bytes of a model's file. Raises: BadInput: it is missing, or not a regular file."""
    try:
        return read_regular(file)
    except FileNotFoundError:
        raise BadInput(f"there is no model at {shown(file)}") from None
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"the model {shown(file)} cannot be read: {said}") from None


def model_of(content: bytes, file: Path) -> LNTXLinearModel:
    """The model in the bytes of a safetensors file. file: what messages call it.

    Raises: BadInput: they are not a linear model of finite weights.
    """
    import safetensors.torch
    import torch

    with _usable(file):
        tensors = safetensors.torch.load(content)
    weight, bias = tensors.get("linear.weight"), tensors.get("linear.bias")
    if (
        weight is None
        or weight.ndim != 2
        or weight.shape[0] != 1
        or weight.shape[1] == 0
        or weight.dtype not in (torch.float64, torch.float32)
        or (bias is not None and (bias.shape != (1,) or bias.dtype != weight.dtype))
        or set(tensors) - {"linear.weight", "linear.bias"}
    ):
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(tensors.items()))
        raise BadInput(f"{shown(file)} is not a linear model of floats: it holds {shown(shapes) or 'nothing'}")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise BadInput(f"{shown(file)} is not a usable model: a weight is NaN or infinite")
    model = LNTXLinearModel(weight.shape[1], bias=bias is not None, dtype=weight.dtype)
    model.load_state_dict(tensors)
    return model


def load_predictor(path: str | Path, *, trusted: Container[str] = ()) -> Predictor:
    """Load a model from a safetensors, .pt2 or .onnx file.

    trusted: digests of the .pt2 files that may be loaded, because loading one can run code that is in it.

    Raises: BadInput: the file is missing, of another kind, not trusted, or onnxruntime is not installed.
    """
    return predictor_of(read_model(Path(path)), Path(path), trusted=trusted)


def predictor_of(content: bytes, file: Path, *, trusted: Container[str]) -> Predictor:
    """As `load_predictor`, from bytes that were read. file: says the format, and what messages call it."""
    kind = SUFFIXES.get(file.suffix)
    if kind is None:
        raise BadInput(f"{shown(file)} must end in {', '.join(SUFFIXES)}")
    if kind == "safetensors":
        return _guarded(_module(model_of(content, file)), file)
    if kind == "onnx":
        with _usable(file):
            return _guarded(_onnx(content, file), file)
    program = load_program(content, file, trusted=trusted)
    with _usable(file):
        return _guarded(_module(program.module()), file)


def load_program(content: bytes, file: Path, *, trusted: Container[str]) -> Any:
    """The program in a .pt2 archive: the only place that loads one, and from the very bytes whose digest it checked.

    `torch.export.load` evaluates strings of the archive as Python, so that loading one can run any code.

    Raises: BadInput: the digest is not among those that are trusted; the bytes are not such an archive.
    """
    import torch

    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 not in trusted:
        raise BadInput(
            f"{shown(file)} can run code when it is loaded, and is no export of this root: use a .safetensors file, or "
            f"--trust {sha256} if you know who wrote it"
        )
    with _usable(file):
        return torch.export.load(io.BytesIO(content))


def _guarded(ask: Predictor, file: Path) -> Predictor:
    """The same, with what a loader's runtime says turned into one line."""

    def predict(x: np.ndarray) -> np.ndarray:
        with _usable(file, doing=f"take {x.shape[1]} numbers a row"):
            return ask(x)

    return predict


@contextmanager
def _usable(file: Path, *, doing: str = "be loaded as a model") -> Iterator[None]:
    # Each library raises what it likes for a foreign file, and torch logs a traceback of its own too. What they say
    # may quote the file.
    loud = logging.getLogger("torch.export")
    level = loud.level
    loud.setLevel(logging.CRITICAL)
    try:
        yield
    except LntxError:
        raise
    except Exception as error:
        raise BadInput(f"{shown(file)} cannot {doing} ({type(error).__name__})") from None
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


def _onnx(content: bytes, file: Path) -> Predictor:
    try:
        import onnx
        import onnxruntime
        from onnx.external_data_helper import uses_external_data
    except ImportError:
        raise BadInput("onnx needs an extra: pip install 'lntx[onnx]'") from None
    if any(uses_external_data(tensor) for tensor in _tensors(onnx.load_from_string(content))):
        raise BadInput(f"{shown(file)} keeps its weights in other files, which are not opened: save it as one file")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    dtype = np.float64 if given.type == "tensor(double)" else np.float32

    def predict(x: np.ndarray) -> np.ndarray:
        y: np.ndarray = session.run(None, {given.name: np.ascontiguousarray(x, dtype=dtype)})[0]
        return y

    return predict


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor in a message of ONNX, however deep: in graphs, subgraphs, attributes, functions."""
    waiting = [message]
    while waiting:
        one = waiting.pop()
        if one.DESCRIPTOR.name == "TensorProto":
            yield one
        for kind, value in one.ListFields():
            if kind.type == kind.TYPE_MESSAGE:
                waiting += [value] if hasattr(value, "ListFields") else [*value]
