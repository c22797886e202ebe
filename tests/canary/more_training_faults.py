"""More faults of whole trainings than users can plant: each is caught and blamed on the right part."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from lntx.canary.suite.fault import replaced
from lntx.canary.trainings.cases import TrainingCase
from lntx.canary.trainings.faults import (
    EPOCH,
    STEP_LIMIT,
    Columns,
    Parameters,
    Step,
    TrainingFault,
    altered_weights,
    export_fault,
    flip_first,
    in_step,
    model_like,
    once_stored,
    training_fault,
    with_exported_model,
    with_settings,
    with_written_rows,
)
from lntx.config.schema import Data
from lntx.numerics.gram import Gram
from lntx.training.model import LNTXLinearModel


def _duplicated(columns: Columns) -> Columns:
    """Replace a row by a copy of the row before it, which differs."""
    count = len(columns["y"])
    row = next(i for i in range(count - 1) if columns["y"][i] != columns["y"][i + 1])
    order = np.arange(count)
    order[row + 1] = row
    return {name: values[order] for name, values in columns.items()}


def _shuffled(columns: Columns) -> Columns:
    return {**columns, "y": np.random.Generator(np.random.PCG64(1)).permutation(columns["y"])}


def _without_its_end(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.slice(0, batch.num_rows - max(1, batch.num_rows // 4))


def _without_its_last_row(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.slice(0, batch.num_rows - 1)


def _in_thousandths(batch: pa.RecordBatch) -> pa.RecordBatch:
    name = next(name for name in batch.schema.names if name != "y")
    return with_column(batch, name, lambda values: values.astype(np.float64) / 1000)


def _shared_stream(_case: TrainingCase) -> AbstractContextManager[None]:
    """Draw all features from the same random stream, so that they are equal."""
    import lntx.data.synthetic

    def make(stream: Callable[[int, int, int], np.random.Generator]) -> Callable[..., np.random.Generator]:
        return lambda seed, rows, _column: stream(seed, rows, 0)

    return replaced(lntx.data.synthetic, "_stream", make)


def _other_history(_case: TrainingCase) -> AbstractContextManager[None]:
    """Change a byte of the stored training history."""

    def tamper(files: dict[str, Path]) -> None:
        path = files["history.parquet"]
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(bytes(content))

    return once_stored("train", tamper)


def _wrong_seed(_case: TrainingCase) -> AbstractContextManager[None]:
    import lntx.data.shards

    def make(generate_dataset: Callable[..., str]) -> Callable[..., str]:
        def seeded(data: Data, *args: Any, **options: Any) -> str:
            return generate_dataset(data.model_copy(update={"seed": data.seed ^ 1}), *args, **options)

        return seeded

    return replaced(lntx.data.shards, "generate_dataset", make)


def _stale_file(case: TrainingCase) -> AbstractContextManager[None]:
    """Put the file of an earlier run, with other rows, in place of the fresh one."""

    def tamper(files: dict[str, Path]) -> None:
        from lntx.data.synthetic import generate_dataset

        earlier = case.pipeline.data.model_copy(update={"seed": case.pipeline.data.seed ^ 1})
        generate_dataset(earlier, next(iter(files.values())))

    return once_stored("generate", tamper)


def _wrong_product(_case: TrainingCase) -> AbstractContextManager[None]:
    """Make XᵀX and the other exact sums wrong, as if the first feature were larger than it is."""
    import lntx.evaluation.least_squares

    def make(gram: type[Gram]) -> type[Gram]:
        class Wrong(gram):  # type: ignore[misc, valid-type]
            def add(self, columns: np.ndarray, *others: np.ndarray | None) -> None:
                super().add(columns * np.where(np.arange(columns.shape[1]) == 0, 1.5, 1.0), *others)

        return Wrong

    return replaced(lntx.evaluation.least_squares, "Gram", make)


def _wrong_sums(_case: TrainingCase) -> AbstractContextManager[None]:
    """Make every exact sum slightly wrong wherever it is used, by less than the true weights can show."""

    def make(add: Callable[..., None]) -> Callable[..., None]:
        def adding(self: Gram, columns: np.ndarray, *others: np.ndarray | None) -> None:
            add(self, columns * np.where(np.arange(columns.shape[1]) == 0, 1 + 1e-10, 1.0), *others)

        return adding

    return replaced(Gram, "add", make)


def _flip_step(parameters: Parameters, step: Step) -> None:
    before = parameters[0].detach().clone()
    step()
    with torch.no_grad():
        moved = parameters[0] - before
        flip_first(moved, 51)
        parameters[0].copy_(before + moved)


def _keep_gradients(_case: TrainingCase) -> AbstractContextManager[None]:
    return replaced(torch.optim.SGD, "zero_grad", lambda _zero: lambda _self, *_args, **_options: None)


def _sum_for_mean(_case: TrainingCase) -> AbstractContextManager[None]:
    def make(mse_loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda found, target, **_options: mse_loss(found, target, reduction="sum")

    return replaced(nn.functional, "mse_loss", make)


def _lost_part(_case: TrainingCase) -> AbstractContextManager[None]:
    """Leave the last quarter of the rows out of one gradient, as if a thread's sum were lost."""
    calls: list[int] = []

    def make(mse_loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def losing(found: torch.Tensor, target: torch.Tensor, **options: Any) -> torch.Tensor:
            calls.append(1)
            if len(calls) == EPOCH:
                kept = len(found) - max(1, len(found) // 4)
                found = torch.cat([found[:kept], found[kept:].detach()])
            return mse_loss(found, target, **options)

        return losing

    return replaced(nn.functional, "mse_loss", make)


def _float32_sums(_case: TrainingCase) -> AbstractContextManager[None]:
    """Sum predictions and gradients in float32, whatever the dtype of the weights."""

    def make(linear: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def narrow(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
            found = linear(x.float(), weight.float(), None if bias is None else bias.float())
            return found.to(weight.dtype)

        return narrow

    return replaced(nn.functional, "linear", make)


def _few_epochs(_case: TrainingCase) -> AbstractContextManager[None]:
    from lntx.training.loop import TrainingLoop

    def make(descend: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, steps, stopping, _max_epochs: descend(self, steps, stopping, 3)

    return replaced(TrainingLoop, "descend", make)


def _stops_early(_case: TrainingCase) -> AbstractContextManager[None]:
    """Treat weights as converged as soon as they move by less than a part in 10^9."""
    from lntx.training.stopping import Stopping

    def make(after: Callable[..., Any]) -> Callable[..., Any]:
        def hasty(self: Stopping, *args: Any) -> Any:
            stop = after(self, *args)
            return "converged" if stop is None and self.last_move < 1e-9 else stop

        return hasty

    return replaced(Stopping, "after", make)


def _global_start(_case: TrainingCase) -> AbstractContextManager[None]:
    """Draw the initial weights from torch's global generator."""

    def make(uniform: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda tensor, low=0.0, high=1.0, generator=None: uniform(tensor, low, high)

    return replaced(nn.init, "uniform_", make)


def _knows_the_answer(case: TrainingCase) -> AbstractContextManager[None]:
    import lntx.training.fit

    def make(model_class: Callable[..., Any]) -> Callable[..., Any]:
        def knowing(*args: Any, **options: Any) -> Any:
            model = model_class(*args, **options)
            with torch.no_grad():
                model.linear.weight.copy_(torch.tensor([case.pipeline.data.true_weights]))
                if model.linear.bias is not None:
                    model.linear.bias.fill_(case.pipeline.data.bias)
            return model

        return knowing

    return replaced(lntx.training.fit, "LNTXLinearModel", make)


def _other_dtype(model: LNTXLinearModel) -> LNTXLinearModel:
    is_double = model.linear.weight.dtype == torch.float64
    return model_like(model, dtype=torch.float32 if is_double else torch.float64)


def _other_run(model: LNTXLinearModel) -> LNTXLinearModel:
    generator = torch.Generator().manual_seed(1)
    shape, dtype = model.linear.weight.shape, model.linear.weight.dtype
    return model_like(model, weights=torch.empty(shape, dtype=dtype).uniform_(-1, 1, generator=generator))


def _transposed(_case: TrainingCase) -> AbstractContextManager[None]:
    import safetensors.torch

    def make(save: Callable[..., bytes]) -> Callable[..., bytes]:
        def transposing(tensors: dict[str, torch.Tensor], *args: Any, **options: Any) -> bytes:
            turned = {name: t.T.contiguous() if t.ndim == 2 else t for name, t in tensors.items()}
            return save(turned, *args, **options)

        return transposing

    import lntx.export.export

    def within(formats: Any) -> Any:
        def write(model: LNTXLinearModel) -> bytes:
            with replaced(safetensors.torch, "save", make):
                content: bytes = formats["safetensors"].write(model)
            return content

        return {**formats, "safetensors": dataclasses.replace(formats["safetensors"], write=write)}

    # Only in the export: the weights that training stores stay right.
    return replaced(lntx.export.export, "FORMATS", within)


def _rows_inside(case: TrainingCase) -> AbstractContextManager[None]:
    """Trace the program with two training rows, which are a view of the array of all rows."""

    def make(export: Callable[..., Any]) -> Callable[..., Any]:
        def leaking(model: Any, args: tuple[torch.Tensor, ...], *more: Any, **options: Any) -> Any:
            from lntx.data.synthetic import generate_blocks

            x, _ = next(generate_blocks(case.pipeline.data))
            rows = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)).to(args[0].dtype)
            return export(model, (rows[:2],), *more, **options)

        return leaking

    return replaced(torch.export, "export", make)


def _other_card(_case: TrainingCase) -> AbstractContextManager[None]:
    """Write more digits into the card than the evaluation found."""
    import lntx.export.export

    def make(card: Callable[..., Any]) -> Callable[..., Any]:
        def boasting(**fields: Any) -> Any:
            evaluation = fields["evaluation"].model_copy(update={"digits": 99.0})
            return card(**{**fields, "evaluation": evaluation})

        return boasting

    return replaced(lntx.export.export, "Card", make)


def _in_float16(batch: pa.RecordBatch) -> pa.RecordBatch:
    return with_column(batch, "y", lambda values: values.astype(np.float16).astype(values.dtype))


def with_read_rows(change: Callable[[pa.RecordBatch], pa.RecordBatch], *, times: int | None = None) -> Any:
    """Change what is read from Parquet. times: number of readings to change; all by default."""

    def plant(_case: TrainingCase) -> AbstractContextManager[None]:
        readings: list[int] = []

        def make(iter_batches: Callable[..., Iterator[pa.RecordBatch]]) -> Callable[..., Iterator[pa.RecordBatch]]:
            def changing(self: Any, *args: Any, **options: Any) -> Iterator[pa.RecordBatch]:
                readings.append(1)
                last = None
                for batch in iter_batches(self, *args, **options):
                    if last is not None:
                        yield last
                    last = batch
                if last is not None:
                    # Change the last batch: a file of few rows has no other.
                    yield change(last) if times is None or len(readings) <= times else last

            return changing

        return replaced(pq.ParquetFile, "iter_batches", make)

    return plant


def with_column(batch: pa.RecordBatch, name: str, change: Callable[[np.ndarray], np.ndarray]) -> pa.RecordBatch:
    """Return rows with one column changed."""
    columns = {column: batch.column(column) for column in batch.schema.names}
    return pa.record_batch({**columns, name: pa.array(change(columns[name].to_numpy(zero_copy_only=False)))})


@contextlib.contextmanager
def _stale_export(case: TrainingCase) -> Iterator[None]:
    """Put the files of an earlier run in place of the fresh ones."""

    def tamper(files: dict[str, Path]) -> None:
        from lntx.export.formats import FORMATS

        generator = torch.Generator().manual_seed(2)
        dtype = getattr(torch, case.pipeline.train.dtype)
        count = len(case.pipeline.data.true_weights or ())
        earlier = LNTXLinearModel(count, bias=case.pipeline.learns_bias, dtype=dtype, generator=generator)
        for name in case.pipeline.export.formats:
            files[f"model.{name}"].write_bytes(FORMATS[name].write(earlier))

    with once_stored("export", tamper):
        yield


MORE_FAULTS = (
    TrainingFault(
        name="float16-column",
        what="the target is read through float16",
        blame="data",
        limit="a column whose values are all float16 numbers",
        planted=with_read_rows(_in_float16),
    ),
    export_fault("stale-export", "the files of an earlier run lie in place of the fresh ones", _stale_export),
    TrainingFault(
        name="duplicated-row",
        what="a row is written again in its neighbour's place",
        blame="data",
        planted=with_written_rows(_duplicated),
    ),
    TrainingFault(
        name="shuffled-target",
        what="targets are written in another order than features",
        blame="data",
        planted=with_written_rows(_shuffled),
    ),
    TrainingFault(
        name="shared-stream",
        what="all features are drawn from one random stream",
        blame="data",
        limit="one feature",
        planted=_shared_stream,
    ),
    TrainingFault(name="wrong-seed", what="the rows are drawn from another seed", blame="data", planted=_wrong_seed),
    TrainingFault(
        name="stale-rows",
        what="the file of an earlier run lies in place of the fresh one",
        blame="data",
        planted=_stale_file,
    ),
    TrainingFault(
        name="lost-block",
        what="the last quarter of a block is not read",
        blame="data",
        planted=with_read_rows(_without_its_end),
    ),
    TrainingFault(
        name="row-lost-in-training",
        what="training's first reading lacks a row, later ones do not",
        blame="data",
        limit="rows that are kept in memory, up to 64 MiB",
        planted=with_read_rows(_without_its_last_row, times=1),
    ),
    TrainingFault(
        name="altered-history",
        what="a byte of the history of training changes once it is stored",
        blame="data",
        planted=_other_history,
    ),
    TrainingFault(
        name="wrong-unit",
        what="a feature is read in thousandths",
        blame="data",
        planted=with_read_rows(_in_thousandths),
    ),
    TrainingFault(
        name="wrong-product",
        what="an entry of the exact sums XᵀX is wrong",
        blame="reference",
        limit="1e-13 of a coefficient",
        planted=_wrong_product,
    ),
    TrainingFault(
        name="wrong-sums",
        what="all exact sums are off by 1e-10",
        blame="reference",
        limit="1e-13 of a coefficient; more than 2*10^7 products of rows, columns and columns",
        planted=_wrong_sums,
    ),
    training_fault("flipped-step-bit", "a bit of one optimiser step flips", in_step(_flip_step), STEP_LIMIT),
    training_fault("lost-partial-sum", "a quarter of the rows is lost from one gradient", _lost_part, STEP_LIMIT),
    training_fault(
        "kept-gradients", "gradients are not set to zero before they are added up", _keep_gradients, STEP_LIMIT
    ),
    training_fault("sum-for-mean", "the loss is the sum of squares, not their mean", _sum_for_mean, "a single row"),
    training_fault(
        "float16-rate",
        "the learning rate is rounded to float16",
        with_settings(lr=lambda rate: float(torch.tensor(rate, dtype=torch.float16))),
        "a rate that is a float16 number",
    ),
    training_fault("rate-over-the-limit", "steps are beyond the stable limit", with_settings(lr=lambda rate: 4 * rate)),
    training_fault(
        "float32-sums",
        "predictions and gradients of float64 weights are added up in float32",
        _float32_sums,
        STEP_LIMIT,
    ),
    training_fault(
        "too-few-epochs", "training ends after three epochs", _few_epochs, "an answer that is reached by then"
    ),
    training_fault(
        "stops-early", "training ends while weights still move by 1e-9", _stops_early, "64 eps of the weights"
    ),
    training_fault("unseeded-start", "the weights do not start where the seed says", _global_start),
    training_fault("leaked-answer", "training starts at the true weights", _knows_the_answer, "1e-9 of the weights"),
    export_fault("wrong-dtype", "the files are in another dtype", with_exported_model(_other_dtype)),
    export_fault("another-run", "the files are those of another run's weights", with_exported_model(_other_run)),
    export_fault("transposed", "the weights are written with their shape transposed", _transposed, "a single weight"),
    export_fault(
        "rows-inside",
        "the exported program holds rows of the training",
        _rows_inside,
        "two numbers that lie side by side",
    ),
    export_fault("wrong-card", "the model's card tells other figures than were found", _other_card),
    export_fault(
        "altered-weights", "the last bit of a weight flips in the file that training stores", altered_weights("train")
    ),
)
