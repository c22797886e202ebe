"""Check the stored exports again: against the final weights of training, and for training rows.

A fresh process computes their predictions, which are compared with predictions computed here without torch. A second
fresh process exports the same weights: anything else in a file came from the run.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lntx.config.schema import Format
from lntx.export.readback import ask
from lntx.export.worker import Refused, fresh_process
from lntx.training.result import Fit

PROBE_ROWS = (1, 7, 64)
"""Batch sizes with which every file is tested."""

MORE_BYTES = 64
"""Bytes by which a file may exceed an export of the same weights by a fresh process."""

_ROWS_SOUGHT = 4096


def wrong_export(
    files: Mapping[Format, Path], fit: Fit, rows: Iterator[tuple[np.ndarray, np.ndarray]]
) -> tuple[str | None, tuple[str, ...]]:
    """Return a clause that says which file is wrong, or None, and the warnings.

    rows: the training rows in blocks, x, shape (n, d), and y, shape (n,); only the first are searched for.
    """
    warnings: list[str] = []
    with tempfile.TemporaryDirectory(prefix="lntx-") as scratch:
        folder = Path(scratch)
        fresh_process().call(
            "lntx.canary.trainings.export_checks:write_again",
            weights=fit.weights,
            bias=fit.bias,
            dtype=fit.dtype,
            formats=list(files),
            folder=str(folder),
        )
        sought = _sequences(rows, fit.dtype)
        for name, path in files.items():
            problem = _wrong_prediction(path, fit, folder)
            if problem is not None:
                return f"the {name} file {problem}", ()
            if name == "safetensors" and _numbers(path.read_bytes()) != (fit.weights, fit.bias):
                return "the safetensors file does not hold the learned weights", ()
            content, again = path.read_bytes(), (folder / f"again.{name}").read_bytes()
            if content == again:
                continue
            other = _other_member(content, again)
            if other is not None:
                return f"the {name} file is not what its weights alone give{other}", ()
            excess = len(content) - len(again)
            if excess > MORE_BYTES:
                return f"the {name} file has {excess} bytes more than the same weights take from a fresh process", ()
            if sought & (_windows(content, fit.dtype) - _windows(again, fit.dtype)):
                return f"the {name} file holds rows of the training", ()
            warnings.append(f"the {name} file has other bytes than the same weights give in a fresh process")
    return None, tuple(warnings)


def write_again(
    weights: Sequence[float], bias: float | None, dtype: str, formats: Sequence[Format], folder: str
) -> None:
    """Export weights in every format as `again.<format>`. Runs in the fresh process."""
    import torch

    from lntx.export.formats import FORMATS
    from lntx.training.model import LNTXLinearModel

    model = LNTXLinearModel(len(weights), bias=bias is not None, dtype=getattr(torch, dtype))
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor([weights], dtype=torch.float64))
        if model.linear.bias is not None:
            model.linear.bias.copy_(torch.tensor([bias], dtype=torch.float64))
    for name in formats:
        (Path(folder) / f"again.{name}").write_bytes(FORMATS[name].write(model))


def _numbers(content: bytes) -> tuple[tuple[float, ...], float | None]:
    """Return the weights and bias of a safetensors file, read by the format's specification without its library.

    Layout: eight bytes with the length of the header, the header in JSON, then the numbers, little-endian.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    numbers = {}
    for name, header_entry in header.items():
        if name != "__metadata__":
            first, end = header_entry["data_offsets"]
            kind = {"F64": "<f8", "F32": "<f4"}[header_entry["dtype"]]
            numbers[name] = np.frombuffer(content[start + first : start + end], kind).astype(np.float64).tolist()
    bias = numbers.get("linear.bias")
    return tuple(numbers["linear.weight"]), None if bias is None else bias[0]


def _other_member(content: bytes, again: bytes) -> str | None:
    """Return a clause that names the archive member with other numbers, "" if no archive, None if no member differs."""
    if not content.startswith(b"PK"):
        return ""
    members = [{info.filename: file.read(info) for info in file.infolist()} for file in map(_archive, (content, again))]
    for name in sorted(members[0].keys() | members[1].keys()):
        member, other = (archive.get(name) for archive in members)
        # The text that describes a graph may depend on the process; numbers may not.
        if member != other and not name.endswith((".json", "serialization_id")):
            return f": {name} differs"
    return None


def _archive(content: bytes) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(content))


def _wrong_prediction(path: Path, fit: Fit, folder: Path) -> str | None:
    weights, bias = np.array(fit.weights), fit.bias or 0.0
    eps = float(np.finfo(fit.dtype).eps)
    draw = np.random.Generator(np.random.PCG64(len(weights)))
    for count in PROBE_ROWS:
        # Rounded to the dtype of the model.
        probe = draw.uniform(-10, 10, (count, len(weights))).astype(fit.dtype).astype(np.float64)
        rows, answers = folder / "rows.npy", folder / "answers.npy"
        np.save(rows, probe)
        try:
            ask(path, [rows], [answers])
        except Refused as error:
            return f"cannot be used: {error}"
        answer = np.load(answers)
        if answer.shape != (count, 1) or answer.dtype != np.dtype(fit.dtype):
            return f"answers {count} rows with shape {answer.shape} in {answer.dtype}"
        # Each product and each sum rounds once, here and in the exported program.
        allowed = (2 * len(weights) + 4) * eps * (np.abs(probe) @ np.abs(weights) + abs(bias))
        gaps = np.abs(answer[:, 0].astype(np.float64) - (probe @ weights + bias))
        if not (gaps <= allowed).all():
            row = int(np.argmax(np.where(np.isnan(gaps), np.inf, gaps)))
            expected = float(probe[row] @ weights + bias)
            return f"predicts {float(answer[row, 0])!r} where the learned weights give {expected!r}"
    return None


def _sequences(rows: Iterator[tuple[np.ndarray, np.ndarray]], dtype: str) -> set[bytes]:
    """Return pairs of neighbours in a row, in a column and in the target, as bytes of the dtype."""
    x, y = next(rows)
    columns = np.column_stack([x, y])[:_ROWS_SOUGHT].astype(dtype)
    pairs = np.concatenate(
        [
            np.stack([columns[:, :-1], columns[:, 1:]], axis=-1).reshape(-1, 2),
            np.stack([columns[:-1], columns[1:]], axis=-1).reshape(-1, 2),
        ]
    )
    return {pair.tobytes() for pair in pairs}


def _windows(content: bytes, dtype: str) -> set[bytes]:
    """Return every piece of a file that could be two numbers of the dtype."""
    size = 2 * np.dtype(dtype).itemsize
    return {content[start : start + size] for start in range(len(content) - size + 1)}
