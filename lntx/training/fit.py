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
from lntx.training.result import Epoch, Fit, Stop, history_digest
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
        curvature = _measure(dataset, train, blocks, bias=bias)
        frame = choose_frame(curvature, train.precondition)
        descent = plan_descent(curvature, frame, train, blocks, in_memory=in_memory)
        by_rows = descent.batch_size is not None or descent.gradient == "autograd"
        rows = read_parts(dataset, dtype if by_rows else torch.float64, device, blocks)
        generator = torch.Generator().manual_seed(train.seed)
        model = LNTXLinearModel(len(dataset.terms), bias=bias, dtype=dtype, generator=generator).to(device)
        naive = _naive_error(model, rows, train, descent, dataset)
        loop = TrainingLoop(model, generator, Checkpoints(checkpoint))
        training = _Training(model, loop, train, curvature, descent, rows, dataset.num_rows)
        training.on_batches(generator)
        needs_float64 = by_rows and dtype != torch.float64 and (descent.gradient == "moments" or _is_automatic(train))
        exact_rows = read_parts(dataset, torch.float64, device, blocks) if needs_float64 else rows
        compiled = not in_memory and device.type == "cpu"
        moments = Moments(curvature, exact_rows, sums_over(dataset, exact_rows, compiled=compiled))
        training.on_all_rows(moments)
        training.to_the_solution(moments)
    history, descent, stopping = loop.history, training.descent, training.stopping
    return (
        model.cpu(),
        Fit(
            weights=history[-1].weights,
            bias=history[-1].bias,
            dtype=train.dtype,
            device=device.type,
            epochs=len(history) - 1 + (training.stop == "diverged"),
            stop=training.stop or "max_epochs",
            last_move=stopping.last_move if math.isfinite(stopping.last_move) else None,
            learning_rate=descent.learning_rate,
            stable_limit=descent.stable_limit,
            momentum=train.momentum,
            batch_size=descent.batch_size,
            finishing_epochs=loop.finishing_epochs if descent.batch_size is not None else 0,
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


class _Training:
    """The phases of a training, each of which goes on from the weights where the one before it stopped.

    A training that is resumed from a checkpoint leaves out the phases that it had finished.
    """

    def __init__(
        self,
        model: LNTXLinearModel,
        loop: TrainingLoop,
        train: Train,
        curvature: curves.Curvature,
        descent: Descent,
        rows: Callable[[], Iterator[Part]],
        num_rows: int,
    ) -> None:
        self._model, self._loop, self._train, self._curvature = model, loop, train, curvature
        self._rows, self._num_rows = rows, num_rows
        self.descent = descent
        """The settings of the steps; of the last phase, once it has begun."""
        self.stop: Stop | None = None
        """Why the last phase stopped; None if it did all its epochs."""
        self.stopping = self._stopping()
        """The stopping rules of the last phase."""

    def on_batches(self, generator: torch.Generator) -> None:
        """Step on batches, if there are any; epochs are left for steps on all rows: batches circle the solution."""
        if self.descent.batch_size is None:
            return
        max_epochs = self._train.max_epochs
        self.stopping = Stopping(self._train, self._curvature, batches=True)
        if not self._loop.is_finishing:
            steps = mini_batches(self._model, self._rows, self.descent, self._train, generator, self._num_rows)
            epochs = max_epochs - min(self.descent.finishing_epochs, max_epochs // 2)
            self.stop = self._loop.descend(steps, self.stopping, epochs)

    def on_all_rows(self, moments: Moments) -> None:
        """Step on all rows, or on sums over them."""
        max_epochs = self._train.max_epochs
        if self._loop.is_polishing:
            self.stop = "converged"
        elif self.stop != "diverged" and (self._loop.is_finishing or len(self._loop.history) <= max_epochs):
            self.stopping = self._stopping()
            self._loop.finish()
            if self.descent.gradient == "moments":
                steps = by_moments(self._model, moments, self.descent, self._train)
            else:
                steps = full_batch(self._model, self._rows, self.descent, self._train, self._num_rows)
            self.stop = self._loop.descend(steps, self.stopping, max_epochs)

    def to_the_solution(self, moments: Moments) -> None:
        """Take exact steps if the others have stopped elsewhere and the way is left to the data."""
        if self.stop not in ("converged", "stalled") or not _is_automatic(self._train):
            return
        self._loop.is_polishing = self._loop.is_polishing or not _has_settled(self._model, moments, self._train)
        if self._loop.is_polishing:
            plain = self._train.model_copy(update={"momentum": 0.0})
            self.descent = exact_descent(self._curvature, self.descent)
            self.stopping = Stopping(plain, self._curvature, exact=True, newton=True)
            steps = by_moments(self._model, moments, self.descent, plain, keeps_rest=True)
            self.stop = self._loop.descend(steps, self.stopping, self._train.max_epochs)

    def _stopping(self) -> Stopping:
        exact = self.descent.gradient == "moments"
        return Stopping(self._train, self._curvature, exact=exact, compensates=not exact)


def _measure(dataset: Dataset, train: Train, blocks: Callable[[], Iterator[Block]], *, bias: bool) -> curves.Curvature:
    largest = LARGEST_FLOAT32 if train.dtype == "float32" else MAX_MAGNITUDE
    measured: Iterable[curves.Measured]
    if fits_in_memory(dataset):
        measured = [curves.measure(blocks(), len(dataset.terms), bias=bias, largest=largest)]
    else:
        measured = curves.measured_parts(dataset, bias=bias, largest=largest, num_threads=train.num_threads)
    return curves.combine(measured, dataset.terms, bias=bias, largest=largest)


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


def _is_automatic(train: Train) -> bool:
    """Whether the way to the solution is left to the data."""
    return train.gradient == train.precondition == train.learning_rate == train.tolerance == "auto"


def _has_settled(model: LNTXLinearModel, moments: Moments, train: Train) -> bool:
    """Whether each weight has reached the solution, relative to its own size."""
    coefficients = coefficients_of(model)
    left = moments.way_to_solution(coefficients).abs()
    return bool((left <= _SETTLED[train.dtype] * coefficients.abs()).all())


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
