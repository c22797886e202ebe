"""Learn the weights with nn.Linear, nn.MSELoss, torch.optim.SGD and the tutorial's loop.

Uses rows and settings; never the true weights or the exact solution.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lntx.base.errors import BadInput
from lntx.base.progress import report_progress
from lntx.config.schema import MAX_MAGNITUDE, Train
from lntx.data.dataset import Block, Dataset, fits_in_memory, pass_over, read_blocks
from lntx.data.row_digest import RowsDigest
from lntx.training import curvature as curves
from lntx.training.checkpoints import Checkpoints
from lntx.training.gradients import Part, naive_error
from lntx.training.hyperparameters import Descent, choose_frame, exact_descent, plan_descent
from lntx.training.loop import TrainingLoop
from lntx.training.model import LNTXLinearModel
from lntx.training.moments import Moments, PassSums, add_up, sums_of_part, sums_of_rows
from lntx.training.result import Epoch, Fit, history_digest
from lntx.training.steps import by_moments, coefficients_of, full_batch, mini_batches
from lntx.training.stopping import Stopping

# Squares of larger values, and of their products with weights, overflow float32.
LARGEST_FLOAT32 = 1e15
# A weight has settled if the rest of its way to the solution, relative to itself, is below this.
_SETTLED = {"float64": 1e-9, "float32": 1e-6}
# Below this number of rows the float32 sums of torch's own gradient are accurate to four digits.
_NAIVE_IS_FINE = 10**5


def fit(
    dataset: Dataset, train: Train, *, bias: bool, read_rows: int = 2**16, checkpoint: Path | None = None
) -> tuple[LNTXLinearModel, Fit, list[Epoch]]:
    """Train a model on a dataset.

    bias: whether the model has a bias (`train.bias` with auto resolved). read_rows: rows decoded at a time; the result
    does not depend on it. checkpoint: file to resume from, if it exists, and to save to; the result does not depend on
    it.

    Returns: the model, its figures, and its history, epoch 0 first.

    Raises: BadInput, before the first step: dependent columns, too few rows, a learning rate at or above the stable
    limit, no such device.
    """
    device, dtype, in_memory = find_device(train), getattr(torch, train.dtype), fits_in_memory(dataset)
    readings: list[RowsDigest] = []

    def blocks() -> Iterator[Block]:
        read = read_blocks(dataset, read_rows=read_rows)
        if not in_memory:
            return read
        readings.append(RowsDigest())
        return readings[-1].through(read)

    with threads(train.num_threads):
        largest = LARGEST_FLOAT32 if dtype == torch.float32 else MAX_MAGNITUDE
        if in_memory:
            measured: Iterable[curves.Measured] = [
                curves.measure(blocks(), len(dataset.terms), bias=bias, largest=largest)
            ]
        else:
            measured = curves.measured_parts(dataset, bias=bias, largest=largest, num_threads=train.num_threads)
        curvature = curves.combine(measured, dataset.terms, bias=bias, largest=largest)
        frame = choose_frame(curvature, train.precondition)
        descent = plan_descent(curvature, frame, train, blocks, in_memory=in_memory)
        by_rows = descent.batch_size is not None or descent.gradient == "autograd"
        rows = read_parts(dataset, dtype if by_rows else torch.float64, device, blocks)
        generator = torch.Generator().manual_seed(train.seed)
        model = LNTXLinearModel(len(dataset.terms), bias=bias, dtype=dtype, generator=generator).to(device)
        naive = _naive_error(model, rows, train, descent, dataset)

        progress = TrainingLoop(model, generator, Checkpoints(checkpoint))
        history, stop = progress.history, None
        stopping = _stopping(train, descent, curvature, batches=descent.batch_size is not None)
        if descent.batch_size is not None and not progress.is_finishing:
            # Reserve epochs for steps on all rows, which reach the solution; batches only circle it.
            epochs = train.max_epochs - min(descent.finishing_epochs, train.max_epochs // 2)
            stop = progress.descend(
                mini_batches(model, rows, descent, train, generator, dataset.num_rows), stopping, epochs
            )
        needs_float64 = by_rows and dtype != torch.float64 and (descent.gradient == "moments" or _is_automatic(train))
        exact_rows = read_parts(dataset, torch.float64, device, blocks) if needs_float64 else rows
        moments = _moments(dataset, curvature, exact_rows, compiled=not in_memory and device.type == "cpu")
        if progress.is_polishing:
            stop = "converged"
        elif stop != "diverged" and (progress.is_finishing or len(history) <= train.max_epochs):
            if descent.batch_size is not None:
                stopping = _stopping(train, descent, curvature, batches=False)
            progress.finish()
            if descent.gradient == "moments":
                steps = by_moments(model, moments, descent, train)
            else:
                steps = full_batch(model, rows, descent, train, dataset.num_rows)
            stop = progress.descend(steps, stopping, train.max_epochs)
        if stop in ("converged", "stalled") and _is_automatic(train):
            progress.is_polishing = progress.is_polishing or not _has_settled(model, moments, train)
            if progress.is_polishing:
                descent, plain = exact_descent(curvature, descent), train.model_copy(update={"momentum": 0.0})
                stopping = Stopping(plain, curvature, exact=True, newton=True)
                steps = by_moments(model, moments, descent, plain, keeps_rest=True)
                stop = progress.descend(steps, stopping, train.max_epochs)
    final = history[-1]
    return (
        model.cpu(),
        Fit(
            weights=final.weights,
            bias=final.bias,
            dtype=train.dtype,
            device=device.type,
            epochs=len(history) - 1 + (stop == "diverged"),
            stop=stop or "max_epochs",
            last_move=stopping.last_move if math.isfinite(stopping.last_move) else None,
            learning_rate=descent.learning_rate,
            stable_limit=descent.stable_limit,
            momentum=train.momentum,
            batch_size=descent.batch_size,
            finishing_epochs=progress.finishing_epochs if descent.batch_size is not None else 0,
            gradient=descent.gradient,
            naive_gradient_error=naive,
            precondition=descent.precondition,
            condition_number=curves.condition(curvature.eigenvalues(curvature.coordinates("none"))),
            descent_condition_number=descent.condition_number,
            rows_sha256=tuple(reading.sha256 for reading in readings),
            history_sha256=history_digest(history),
            asked=train,
        ),
        history,
    )


def sums_over(dataset: Dataset, rows: Callable[[], Iterator[Part]], *, compiled: bool) -> PassSums:
    """Return how the sums over the rows are computed: from `rows`, or from the parts of the dataset, on all cores."""
    if not compiled:
        return lambda coefficients, rest: sums_of_rows(rows(), coefficients, rest)
    # Many rows need no rest: rounding of a weight is far below its standard error there.
    return lambda coefficients, _rest: add_up(
        pass_over(dataset, functools.partial(sums_of_part, coefficients=coefficients))
    )


def read_parts(
    dataset: Dataset, dtype: torch.dtype, device: torch.device, blocks: Callable[[], Iterator[Block]]
) -> Callable[[], Iterator[Part]]:
    """Return a function that iterates over the rows as tensors; they are kept if they fit into memory.

    blocks: reads the dataset.
    """

    def read() -> Iterator[Part]:
        row = 0
        for x, y, low, row_weights in blocks():
            if not in_memory:
                row += len(y)
                report_progress(row, dataset.num_rows, "rows of this pass")
            yield Part(
                torch.from_numpy(x).to(device, dtype),
                torch.from_numpy(y).to(device, dtype).unsqueeze(1),
                # The rounding of float32 is far larger than `low`.
                None if low is None or dtype == torch.float32 else torch.from_numpy(low).to(device),
                None if row_weights is None else torch.from_numpy(row_weights).to(device, dtype).unsqueeze(1),
            )

    in_memory = fits_in_memory(dataset)
    if not in_memory:
        return read
    parts = list(read())
    return lambda: iter(parts)


def refuse_beyond_float32(curvature: curves.Curvature, train: Train) -> None:
    """Raise BadInput if values that were measured for float64 are too large for float32."""
    if train.dtype == "float32" and curvature.largest >= LARGEST_FLOAT32:
        raise BadInput(
            f"values reach {curvature.largest:g}, beyond {LARGEST_FLOAT32:g}: rescale, or use --train.dtype float64"
        )


def _naive_error(
    model: LNTXLinearModel, rows: Callable[[], Iterator[Part]], train: Train, descent: Descent, dataset: Dataset
) -> float | None:
    """Return the gradient error of the same loop in plain torch; None if it does not matter for these settings."""
    plain = train.dtype == "float32" and train.precondition == "none" and descent.batch_size is None
    if not plain or dataset.num_rows <= _NAIVE_IS_FINE or dataset.weight is not None:
        return None
    return naive_error(model, rows())


def _moments(
    dataset: Dataset, curvature: curves.Curvature, rows: Callable[[], Iterator[Part]], *, compiled: bool
) -> Moments:
    return Moments(curvature, rows, sums_over(dataset, rows, compiled=compiled))


def _is_automatic(train: Train) -> bool:
    """Whether the way to the solution is left to the data."""
    return train.gradient == train.precondition == train.learning_rate == train.tolerance == "auto"


def _has_settled(model: LNTXLinearModel, moments: Moments, train: Train) -> bool:
    """Whether each weight has reached the solution, relative to its own size."""
    coefficients = coefficients_of(model)
    left = moments.way_to_solution(coefficients).abs()
    return bool((left <= _SETTLED[train.dtype] * coefficients.abs()).all())


def _stopping(train: Train, descent: Descent, curvature: curves.Curvature, *, batches: bool) -> Stopping:
    if batches:
        return Stopping(train, curvature, batches=True)
    exact = descent.gradient == "moments"
    return Stopping(train, curvature, exact=exact, compensates=not exact)


def find_device(train: Train) -> torch.device:
    """Return the device for training.

    Raises: BadInput: there is no such device.
    """
    if train.device == "cuda" and not torch.cuda.is_available():
        raise BadInput("train.device is cuda, but torch finds no CUDA device here: use cpu or auto")
    return torch.device("cuda" if train.device == "cuda" else "cpu")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set torch's number of threads in this block: one thread keeps the order of sums and is fast for small work."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
