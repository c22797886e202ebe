"""The file formats of a model: how to write each format, and how to predict from its bytes. Knows no store."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from lntx.base.errors import BadInput, LntxError
from lntx.base.files import MAX_MODEL_BYTES, read_regular
from lntx.base.text import for_message
from lntx.config.schema import Format

if TYPE_CHECKING:
    import numpy as np

    from lntx.training.model import LNTXLinearModel

Predictor: TypeAlias = "Callable[[np.ndarray], np.ndarray]"
"""Rows, shape (num_rows, num_features), to predictions, shape (num_rows, 1), in the model's dtype."""

_TRACING = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class FormatEntry:
    """A file format; its name is the suffix of its files."""

    write: Callable[[LNTXLinearModel], bytes]
    """Returns the bytes of a model, which depend only on weights, dtype and library versions."""

    load: Callable[[bytes, Path, Container[str]], Predictor]
    """Returns a predictor from the bytes of a file, its name for messages, and the trusted digests."""

    packages: tuple[str, ...] = ()
    """Packages of an extra that the format needs."""


def load_model(path: str | Path) -> LNTXLinearModel:
    """Load a model from a safetensors file.

    Raises: BadInput: the file is missing, or not a linear model of finite weights.
    """
    return model_of(read_model(Path(path)), Path(path))


def read_model(file: Path) -> bytes:
    """Return the bytes of a model file. Raises: BadInput: it is missing or cannot be read."""
    try:
        return read_regular(file, most=MAX_MODEL_BYTES)
    except FileNotFoundError:
        raise BadInput(f"there is no model at {for_message(file)}") from None
    except (OSError, ValueError) as error:
        message = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"the model {for_message(file)} cannot be read: {message}") from None


@dataclass(frozen=True, kw_only=True)
class Linear:
    """The numbers of a linear model."""

    weights: tuple[float, ...]
    """Weights, each as the float64 that it equals."""

    bias: float | None
    """Bias; None if the model has none."""

    dtype: str
    """Type of its arithmetic: float64 or float32."""


def linear_of(content: bytes, file: Path) -> Linear:
    """Return the numbers in the bytes of a safetensors file; needs no torch. file: name of the file in messages.

    Raises: BadInput: they are not a linear model of finite weights.
    """
    import numpy as np
    import safetensors.numpy

    with _usable(file):
        tensors = safetensors.numpy.load(content)
    weight, bias = tensors.get("linear.weight"), tensors.get("linear.bias")
    if (
        weight is None
        or weight.ndim != 2
        or weight.shape[0] != 1
        or weight.shape[1] == 0
        or weight.dtype not in (np.float64, np.float32)
        or (bias is not None and (bias.shape != (1,) or bias.dtype != weight.dtype))
        or set(tensors) - {"linear.weight", "linear.bias"}
    ):
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(tensors.items()))
        raise BadInput(
            f"{for_message(file)} is not a linear model of floats: it holds {for_message(shapes) or 'nothing'}"
        )
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise BadInput(f"{for_message(file)} is not a usable model: a weight is NaN or infinite")
    return Linear(
        weights=tuple(weight[0].astype(np.float64).tolist()),
        bias=None if bias is None else float(bias[0]),
        dtype=str(weight.dtype),
    )


def model_of(content: bytes, file: Path) -> LNTXLinearModel:
    """Return the model in the bytes of a safetensors file. Raises: BadInput: as `linear_of`."""
    import torch

    from lntx.training.model import LNTXLinearModel

    linear = linear_of(content, file)
    dtype: torch.dtype = getattr(torch, linear.dtype)
    model = LNTXLinearModel(len(linear.weights), bias=linear.bias is not None, dtype=dtype)
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor([linear.weights], dtype=torch.float64))
        if linear.bias is not None:
            model.linear.bias.copy_(torch.tensor([linear.bias], dtype=torch.float64))
    return model


def load_predictor(path: str | Path, *, trusted: Container[str] = ()) -> Predictor:
    """Load a model from a safetensors, .pt2 or .onnx file.

    trusted: digests of the .pt2 files that may be loaded; loading one can run code contained in it.

    Raises: BadInput: the file is missing, has another format, is not trusted, or onnxruntime is not installed.
    """
    return predictor_of(read_model(Path(path)), Path(path), trusted=trusted)


def predictor_of(content: bytes, file: Path, *, trusted: Container[str]) -> Predictor:
    """Like `load_predictor`, but from bytes. file: its suffix is the format, its name is used in messages."""
    entry = FORMATS.get(cast(Format, file.suffix.removeprefix(".")))
    if entry is None:
        raise BadInput(f"{for_message(file)} must end in {', '.join(f'.{name}' for name in FORMATS)}")
    return _guarded(entry.load(content, file, trusted), file)


def _load_safetensors(content: bytes, file: Path, _trusted: Container[str]) -> Predictor:
    import numpy as np

    from lntx.numerics.residuals import residuals

    model = linear_of(content, file)

    def predict(x: np.ndarray) -> np.ndarray:
        # The exact sum, rounded once: torch's own answer is within some units in the last place of it.
        rows = x.astype(model.dtype).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            left = residuals(rows, np.zeros(len(rows)), model.weights, model.bias or 0.0)
        y: np.ndarray = np.negative(left)[:, None].astype(model.dtype)
        return y

    return predict


def _load_pt2(content: bytes, file: Path, trusted: Container[str]) -> Predictor:
    program = load_program(content, file, trusted=trusted)
    with _usable(file):
        return _module(program.module())


def load_program(content: bytes, file: Path, *, trusted: Container[str]) -> Any:
    """Load the program in a .pt2 archive from the same bytes whose digest was checked. No other code loads archives.

    `torch.export.load` evaluates strings of the archive as Python, so that loading one can run any code.

    Raises: BadInput: the digest is not trusted; the bytes are not a .pt2 archive.
    """
    import torch

    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 not in trusted:
        raise BadInput(
            f"{for_message(file)} can run code when it is loaded, and is no export of this root: use a .safetensors "
            f"file, or --trust {sha256} if you know who wrote it"
        )
    with _usable(file):
        return torch.export.load(io.BytesIO(content))


def _guarded(ask: Predictor, file: Path) -> Predictor:
    """The same, with what a loader's runtime says turned into one line."""
    import numpy as np

    def predict(x: np.ndarray) -> np.ndarray:
        with _usable(file, doing=f"take {x.shape[1]} numbers a row"):
            y = ask(x)
        if not (isinstance(y, np.ndarray) and y.dtype.kind == "f" and y.shape == (len(x), 1)):
            raise BadInput(f"{for_message(file)} does not give one number for each row: it is no linear model")
        return y

    return predict


@contextmanager
def _usable(file: Path, *, doing: str = "be loaded as a model") -> Iterator[None]:
    # Libraries raise various exceptions for a foreign file, and torch also logs a traceback. Their messages may quote
    # the file.
    loud = logging.getLogger("torch.export")
    level = loud.level
    loud.setLevel(logging.CRITICAL)
    try:
        yield
    except LntxError:
        raise
    except Exception as error:
        raise BadInput(f"{for_message(file)} cannot {doing} ({type(error).__name__})") from None
    finally:
        loud.setLevel(level)


def _module(module: object) -> Predictor:
    import torch

    assert callable(module)

    def predict(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            # Copy the rows: torch warns about read-only arrays.
            y: np.ndarray = module(torch.tensor(x, dtype=dtype)).numpy()
        return y

    dtype = next(iter(module.state_dict().values())).dtype  # type: ignore[attr-defined]
    return predict


def _load_onnx(content: bytes, file: Path, _trusted: Container[str]) -> Predictor:
    import numpy as np

    try:
        import onnx
        import onnxruntime
        from onnx.external_data_helper import uses_external_data
    except ImportError:
        raise BadInput("onnx needs an extra: pip install 'lntx[onnx]'") from None
    with _usable(file):
        if any(uses_external_data(tensor) for tensor in _tensors(onnx.load_from_string(content))):
            raise BadInput(
                f"{for_message(file)} keeps its weights in other files, which are not opened: save it as one file"
            )
        options = onnxruntime.SessionOptions()
        # Its warnings quote the file, including escape sequences.
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        model_input = session.get_inputs()[0]
        dtype = np.float64 if model_input.type == "tensor(double)" else np.float32

    def predict(x: np.ndarray) -> np.ndarray:
        y: np.ndarray = session.run(None, {model_input.name: np.ascontiguousarray(x, dtype=dtype)})[0]
        return y

    return predict


def _tensors(message: Any) -> Iterator[Any]:
    """Yield every tensor in an ONNX message at any depth: in graphs, subgraphs, attributes and functions."""
    waiting = [message]
    while waiting:
        node = waiting.pop()
        if node.DESCRIPTOR.name == "TensorProto":
            yield node
        for kind, value in node.ListFields():
            if kind.type == kind.TYPE_MESSAGE:
                waiting += [value] if hasattr(value, "ListFields") else [*value]


def _write_safetensors(model: LNTXLinearModel) -> bytes:
    from lntx.training.model import dump_weights

    return dump_weights(model)


def _write_pt2(model: LNTXLinearModel) -> bytes:
    import torch

    weight = model.linear.weight
    # Zeros, because the archive stores the example with its storage, and must not contain data.
    example = torch.zeros(2, weight.shape[1], dtype=weight.dtype)
    rows = torch.export.Dim("num_rows", min=1)
    # A buffer, because the archive also stores the name of the file that it is saved to.
    buffer = io.BytesIO()
    # torch can trace and save only one program at a time, also with threads.
    with _TRACING:
        program = torch.export.export(model, (example,), dynamic_shapes={"x": {0: rows}})
        for module in program.graph_module.modules():
            for node in getattr(module, "graph", torch.fx.Graph()).nodes:
                # The stack trace contains file names of this machine.
                node.meta.pop("stack_trace", None)
        torch.export.save(program, buffer)
    return buffer.getvalue()


def _write_onnx(model: LNTXLinearModel) -> bytes:
    import numpy as np

    try:
        import onnx
        import onnxruntime  # noqa: F401
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise BadInput("export.formats onnx needs an extra: pip install 'lntx[onnx]'") from None
    weight = model.linear.weight.detach().numpy()
    element = TensorProto.DOUBLE if weight.dtype == np.float64 else TensorProto.FLOAT
    tensors = [numpy_helper.from_array(weight, "weight")]
    if model.linear.bias is not None:
        tensors.append(numpy_helper.from_array(model.linear.bias.detach().numpy(), "bias"))
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", *(tensor.name for tensor in tensors)], ["y"], transB=1)],
        "LNTXLinearModel",
        [helper.make_tensor_value_info("x", element, ["num_rows", weight.shape[1]])],
        [helper.make_tensor_value_info("y", element, ["num_rows", 1])],
        tensors,
    )
    exported = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], producer_name="lntx")
    # IR version 10 belongs to opset 20; the default of the installed onnx may be too new for the installed onnxruntime.
    exported.ir_version = 10
    onnx.checker.check_model(exported, full_check=True)
    return bytes(exported.SerializeToString(deterministic=True))


FORMATS: Mapping[Format, FormatEntry] = {
    "safetensors": FormatEntry(write=_write_safetensors, load=_load_safetensors),
    "pt2": FormatEntry(write=_write_pt2, load=_load_pt2),
    "onnx": FormatEntry(write=_write_onnx, load=_load_onnx, packages=("onnx", "onnxruntime")),
}
"""All formats. To add one, name it in `Format` and add it here."""
