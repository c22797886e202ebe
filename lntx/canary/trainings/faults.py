"""Faults of whole trainings, planted where they would really occur, each with the part that causes it.

They test the canary itself: it cannot be trusted for a fault that it misses or blames on the wrong part.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from lntx.base.stages import Stage
from lntx.canary.suite.fault import Fault, replaced
from lntx.canary.trainings.cases import TrainingCase
from lntx.numerics.exact_matrix import ExactMatrix
from lntx.numerics.normal_equations import Solution
from lntx.training.model import LNTXLinearModel

Columns = dict[str, np.ndarray]
Parameters = list[torch.Tensor]
Step = Callable[[], None]
Plant = Callable[[TrainingCase], AbstractContextManager[None]]

EPOCH = 2
"""The epoch of a fault that occurs once: early, so that training has recovered by the end."""

STEP_LIMIT = "the distance that rounding explains, about 1e-12 of the weights for 1,000 rows, more for more"
"""The smallest fault of a step that shows."""


@dataclass(frozen=True, kw_only=True)
class TrainingFault(Fault):
    """One way in which a software stack can be wrong; a part of it must be blamed."""

    planted: Callable[[TrainingCase], AbstractContextManager[None]]
    """Returns a context manager that plants it."""


@contextlib.contextmanager
def once_stored(stage: Stage, tamper: Callable[[dict[str, Path]], None]) -> Iterator[None]:
    """Tamper with the files of a stage as soon as they are stored. tamper: called with their paths by name."""
    from lntx.store.store import Store

    def make(publish: Callable[..., Any]) -> Callable[..., Any]:
        def tampering(self: Store, identity: Any, *args: Any, **options: Any) -> Any:
            record = publish(self, identity, *args, **options)
            if identity.stage == stage:
                tamper({file.name: self.path(file) for file in record.files})
            return record

        return tampering

    with replaced(Store, "publish", make):
        yield


def flipped(value: float, bit: int) -> float:
    """Return value with one bit flipped: 0 is the last of the mantissa, 52 the last of the exponent, 63 the sign."""
    return float((np.array([value]).view(np.uint64) ^ np.uint64(1 << bit)).view(np.float64)[0])


def flip_first(tensor: torch.Tensor, bit: int) -> None:
    """Flip a bit of a tensor's first number in place. bit: as in float64; float32 uses the bit of equal weight."""
    place = bit if tensor.dtype == torch.float64 else max(bit - 29, 0)
    kind = torch.int64 if tensor.dtype == torch.float64 else torch.int32
    with torch.no_grad():
        tensor.view(-1)[:1].view(kind).bitwise_xor_(torch.tensor([1 << place], dtype=kind, device=tensor.device))


def _flip_a_bit(_case: TrainingCase) -> AbstractContextManager[None]:
    """Flip the last bit of a target value in the file."""

    def tamper(files: dict[str, Path]) -> None:
        path = next(iter(files.values()))
        with pq.ParquetFile(path) as file:
            values = next(file.iter_batches(batch_size=1000, columns=["y"])).column("y").to_numpy(zero_copy_only=False)
        value = float(values[len(values) // 2])
        content = path.read_bytes()
        place = content.index(np.float64(value).tobytes())
        path.write_bytes(content[:place] + np.float64(flipped(value, 0)).tobytes() + content[place + 8 :])

    return once_stored("generate", tamper)


def with_written_rows(change: Callable[[Columns], Columns]) -> Callable[[TrainingCase], AbstractContextManager[None]]:
    """Change the first block of rows that is written."""

    def plant(_case: TrainingCase) -> AbstractContextManager[None]:
        written: list[int] = []

        def make(write_batch: Callable[..., None]) -> Callable[..., None]:
            def changing(self: Any, batch: pa.RecordBatch, *args: Any, **options: Any) -> None:
                if not written:
                    written.append(1)
                    columns = {name: batch.column(name).to_numpy(zero_copy_only=False) for name in batch.schema.names}
                    arrays = [pa.array(change(columns)[field.name], type=field.type) for field in batch.schema]
                    batch = pa.record_batch(arrays, schema=batch.schema)
                write_batch(self, batch, *args, **options)

            return changing

        return replaced(pq.ParquetWriter, "write_batch", make)

    return plant


def _dropped(columns: Columns) -> Columns:
    return {name: np.delete(values, len(values) // 2) for name, values in columns.items()}


def _rounded_solution(_case: TrainingCase) -> AbstractContextManager[None]:
    """Round the exact solution to float32."""
    import lntx.evaluation.least_squares

    def make(solve: Callable[..., Solution]) -> Callable[..., Solution]:
        def rounding(products: ExactMatrix) -> Solution:
            solution = solve(products)
            rounded = solution.coefficients.astype(np.float32).astype(np.float64)
            return dataclasses.replace(solution, coefficients=rounded)

        return rounding

    return replaced(lntx.evaluation.least_squares, "solve_normal_equations", make)


def in_step(change: Callable[[Parameters, Step], None]) -> Plant:
    """Change one step of the optimiser. change: called with the parameters and the original step."""

    def plant(_case: TrainingCase) -> AbstractContextManager[None]:
        taken: list[int] = []

        def make(step: Callable[..., Any]) -> Callable[..., Any]:
            def changing(self: torch.optim.SGD, *args: Any, **options: Any) -> None:
                taken.append(1)
                if len(taken) == EPOCH:
                    change([p for group in self.param_groups for p in group["params"]], lambda: step(self))
                else:
                    step(self, *args, **options)

            return changing

        return replaced(torch.optim.SGD, "step", make)

    return plant


def _flip_weight(parameters: Parameters, step: Step) -> None:
    step()
    flip_first(parameters[0], 32)


def _flip_gradient(parameters: Parameters, step: Step) -> None:
    assert parameters[0].grad is not None
    flip_first(parameters[0].grad, 52)
    step()


def _skip(_parameters: Parameters, _step: Step) -> None:
    pass


def _nan(parameters: Parameters, step: Step) -> None:
    assert parameters[0].grad is not None
    parameters[0].grad.view(-1)[0] = torch.nan
    step()


def with_settings(**changes: Callable[[float], float]) -> Plant:
    """Create the optimiser with other settings than it was given."""

    def plant(_case: TrainingCase) -> AbstractContextManager[None]:
        def make(init: Callable[..., None]) -> Callable[..., None]:
            def changing(self: torch.optim.SGD, *args: Any, **options: Any) -> None:
                init(self, *args, **options)
                for group in self.param_groups:
                    for name, change in changes.items():
                        group[name] = change(group[name])

            return changing

        return replaced(torch.optim.SGD, "__init__", make)

    return plant


def _scaled(_case: TrainingCase) -> AbstractContextManager[None]:
    def make(linear: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda *args, **options: linear(*args, **options) * (1 + 1e-9)

    return replaced(nn.functional, "linear", make)


def training_fault(name: str, what: str, planted: Plant, limit: str | None = None) -> TrainingFault:
    """Return a fault that must be blamed on training."""
    return TrainingFault(name=name, what=what, blame="training", limit=limit, planted=planted)


def with_exported_model(change: Callable[[LNTXLinearModel], LNTXLinearModel]) -> Plant:
    """Write every format from a changed model."""

    def plant(_case: TrainingCase) -> AbstractContextManager[None]:
        import lntx.export.export

        def make(formats: Any) -> Any:
            return {
                name: dataclasses.replace(
                    file_format, write=lambda model, file_format=file_format: file_format.write(change(model))
                )
                for name, file_format in formats.items()
            }

        return replaced(lntx.export.export, "FORMATS", make)

    return plant


def model_like(
    model: LNTXLinearModel, *, weights: torch.Tensor | None = None, bias: torch.Tensor | None = None, dtype: Any = None
) -> LNTXLinearModel:
    """Return a model with other weights, another bias or another dtype."""
    linear = model.linear
    made = LNTXLinearModel(
        linear.weight.shape[1], bias=linear.bias is not None, dtype=linear.weight.dtype if dtype is None else dtype
    )
    with torch.no_grad():
        made.linear.weight.copy_(linear.weight if weights is None else weights)
        if made.linear.bias is not None:
            made.linear.bias.copy_(linear.bias if bias is None else bias)
    return made


def _wrong_weight(model: LNTXLinearModel) -> LNTXLinearModel:
    weights = model.linear.weight.detach().clone()
    weights[0, -1] *= 1 + 1e-6
    return model_like(model, weights=weights)


def _wrong_bias(model: LNTXLinearModel) -> LNTXLinearModel:
    return model_like(model, bias=model.linear.bias.detach() + 1e-6)


def altered_weights(stage: Any) -> Plant:
    """Flip a bit of the weights in the stored safetensors file."""

    def plant(_case: TrainingCase) -> AbstractContextManager[None]:
        def tamper(files: dict[str, Path]) -> None:
            path = files["model.safetensors"]
            content = path.read_bytes()
            # Layout: length of the header, header, numbers.
            start = 8 + int.from_bytes(content[:8], "little")
            value = float(np.frombuffer(content[start : start + 8], np.float64)[0])
            path.write_bytes(content[:start] + np.float64(flipped(value, 0)).tobytes() + content[start + 8 :])

        return once_stored(stage, tamper)

    return plant


def export_fault(name: str, what: str, planted: Plant, limit: str | None = None) -> TrainingFault:
    """Return a fault that must be blamed on the export."""
    return TrainingFault(name=name, what=what, blame="export", limit=limit, planted=planted)


_FAULTS = (
    TrainingFault(
        name="flipped-row-bit", what="the last bit of a stored target flips", blame="data", planted=_flip_a_bit
    ),
    TrainingFault(name="dropped-row", what="a row is not written", blame="data", planted=with_written_rows(_dropped)),
    TrainingFault(
        name="rounded-solution",
        what="the exact solution is rounded to float32",
        blame="reference",
        limit="1e-13 of a coefficient",
        planted=_rounded_solution,
    ),
    training_fault("flipped-weight-bit", "a bit of a weight flips in one epoch", in_step(_flip_weight), STEP_LIMIT),
    training_fault(
        "flipped-gradient-bit", "a bit of a gradient flips in one epoch", in_step(_flip_gradient), STEP_LIMIT
    ),
    training_fault("skipped-step", "one step is not taken", in_step(_skip), STEP_LIMIT),
    training_fault("nan", "a gradient is NaN in one epoch", in_step(_nan)),
    training_fault(
        "wrong-momentum",
        "the optimiser has another momentum than it was given",
        with_settings(momentum=lambda momentum: momentum + 1e-3),
        STEP_LIMIT,
    ),
    training_fault("scaled-predictions", "nn.functional.linear is off by 1e-9", _scaled, STEP_LIMIT),
    export_fault(
        "wrong-weight",
        "a weight is exported a part in a million too large",
        with_exported_model(_wrong_weight),
        "none in safetensors; 4 eps of a prediction in the other formats",
    ),
    export_fault(
        "wrong-bias",
        "the bias is exported too large by 1e-6",
        with_exported_model(_wrong_bias),
        "none in safetensors; 4 eps of a prediction in the other formats",
    ),
    export_fault("altered-export", "the last bit of a weight flips in the exported file", altered_weights("export")),
)

FAULTS: Mapping[str, TrainingFault] = {fault.name: fault for fault in _FAULTS}
"""The faults that a user can plant, by name, in the order of the stages."""
