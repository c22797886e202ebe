"""Learn the weights: nn.Linear, nn.MSELoss, torch.optim.SGD, and the tutorial's loop.

Sees rows and settings; never the true weights, never the exact solution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from lntx import curvature as curves
from lntx.config import MAX_MAGNITUDE, Train
from lntx.dataset import Dataset, read_blocks
from lntx.descent import Descent, plan_descent
from lntx.errors import BadInput
from lntx.fitting import Epoch, Fit, Stop
from lntx.model import LNTXLinearModel
from lntx.residuals import rounding_error

Part = tuple[torch.Tensor, torch.Tensor]
"""x, shape (n, num_features), and y, shape (n, 1), of the training dtype."""

MEMORY_BYTES = 2**26
"""Rows that take more than this are read again each epoch."""

# torch adds up a float32 weight gradient row after row, 3.6 % off at 1e7 rows: sums are kept this short, and
# added to each other in float64.
_FLOAT32_ROWS = 4096

# Squares of larger values, and of their products with weights, leave float32.
_LARGEST_FLOAT32 = 1e15

# In units of the dtype's rounding. Smaller moves than the first are decided by rounding in the residuals.
_COMPENSATE_BELOW = 64
_STALL_BELOW = 1000
_STALL_EPOCHS = 50
_DIVERGED_GROWTH = 1e12


def fit(
    dataset: Dataset, train: Train, *, bias: bool, read_rows: int = 2**16
) -> tuple[LNTXLinearModel, Fit, list[Epoch]]:
    """Train a model on a dataset.

    bias: whether it has one (`train.bias` with auto settled). read_rows: rows decoded at a time; the result does
    not depend on it.

    Returns: the model, what there is to say of it, and its history, epoch 0 first.

    Raises: BadInput: what is known before the first step: dependent columns, too few rows, a learning rate over the
    stable limit, no such device.
    """
    device, dtype = _device(train), getattr(torch, train.dtype)
    # One thread: sums are then made in one order, and small work is quicker.
    with _one_thread():
        curvature = curves.measure(
            read_blocks(dataset, read_rows=read_rows),
            dataset.features,
            bias=bias,
            largest=_LARGEST_FLOAT32 if dtype == torch.float32 else MAX_MAGNITUDE,
        )
        descent = plan_descent(curvature, train, lambda: read_blocks(dataset, read_rows=read_rows))
        rows = _rows(dataset, dtype, device, read_rows)
        generator = torch.Generator().manual_seed(train.seed)
        model = LNTXLinearModel(len(dataset.features), bias=bias, dtype=dtype, generator=generator).to(device)
        scale = curvature.scales

        history = [_epoch(model, None)]
        moves: list[float] = []
        stop: Stop | None = None
        for loss in _descend(model, rows, descent, train, generator, dataset.num_rows, moves):
            last = history[-1]
            if not math.isfinite(loss) or not all(abs(value) < MAX_MAGNITUDE for value in _coefficients(model)):
                moves.append(math.inf)
                stop = "diverged"
                _set_coefficients(model, last)
                break
            history.append(_epoch(model, loss))
            moves.append(_move(last, history[-1], scale))
            stop = _stop(history, moves, train, compensates=descent.batch_size is None)
            if stop is not None:
                break
    final = history[-1]
    return (
        model.cpu(),
        Fit(
            weights=final.weights,
            bias=final.bias,
            dtype=train.dtype,
            device=device.type,
            epochs=len(moves),
            stop=stop or "max_epochs",
            last_move=moves[-1] if math.isfinite(moves[-1]) else None,
            learning_rate=descent.learning_rate,
            stable_limit=descent.stable_limit,
            momentum=train.momentum,
            batch_size=descent.batch_size,
            gradient="autograd",
            precondition=descent.precondition,
            condition_number=curves.condition(curvature.eigenvalues(curvature.coordinates("none"))),
            descent_condition_number=descent.condition_number,
            asked=train,
        ),
        history,
    )


def _descend(
    model: LNTXLinearModel,
    rows: Callable[[], Iterator[Part]],
    descent: Descent,
    train: Train,
    generator: torch.Generator,
    num_rows: int,
    moves: Sequence[float],
) -> Iterator[float]:
    """The loop: forward, loss, zero_grad, backward, step. Yields the mean loss of each epoch."""
    criterion = nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=descent.learning_rate, momentum=train.momentum)
    for _ in range(train.max_epochs):
        # The last steps are as small as the rounding of the residuals: from there on it is taken out of them.
        compensate = (
            descent.batch_size is None
            and bool(moves)
            and moves[-1] <= _COMPENSATE_BELOW * torch.finfo(getattr(torch, train.dtype)).eps
        )
        epoch_loss = 0.0
        for batch, batch_rows in _batches(rows, descent.batch_size, num_rows, generator):
            optimizer.zero_grad()
            # A short last batch counts for as much as it holds: the rate was derived for whole ones.
            weight = batch_rows / (descent.batch_size or num_rows)
            loss = _backward(model, criterion, batch, batch_rows, weight=weight, compensate=compensate)
            _precondition(model, descent.coordinates)
            optimizer.step()
            epoch_loss += loss * batch_rows / num_rows
        yield epoch_loss


def _backward(
    model: LNTXLinearModel,
    criterion: nn.MSELoss,
    batch: Iterator[Part],
    batch_rows: int,
    *,
    weight: float,
    compensate: bool,
) -> float:
    """Leave the gradient of the batch's mean squared error, times `weight`, in the parameters; return that error.

    Gradients of the batch's parts are added up in float64.
    """
    parameters = list(model.parameters())
    total_loss = 0.0
    totals = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in parameters]
    for x, y in _parts(batch):
        prediction = model(x)
        if compensate:
            # No gradient flows through the error: it belongs to the arithmetic, not to the model.
            with torch.no_grad():
                error = rounding_error(x, model.linear.weight[0], model.linear.bias, prediction)
            loss = criterion(prediction - y, -error)
        else:
            loss = criterion(prediction, y)
        loss.backward()
        share = len(x) / batch_rows
        total_loss += float(loss.detach()) * share
        for total, parameter in zip(totals, parameters, strict=True):
            total.add_(_gradient(parameter).double() * share)
            parameter.grad = None
    for total, parameter in zip(totals, parameters, strict=True):
        parameter.grad = (total * weight).to(parameter.dtype)
    return total_loss


def _precondition(model: LNTXLinearModel, coordinates: torch.Tensor) -> None:
    """Turn the gradient in the weights into the step that descent takes in the coordinates: S Sᵀ · gradient."""
    parameters = list(model.parameters())
    gradient = torch.cat([_gradient(parameter).reshape(-1).double().cpu() for parameter in parameters])
    step = coordinates @ (coordinates.T @ gradient)
    # The weights come first, the bias, if any, last.
    for parameter, part in zip(parameters, step.tensor_split([parameters[0].numel()]), strict=False):
        _gradient(parameter).copy_(part.reshape(parameter.shape))


def _gradient(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def _batches(
    rows: Callable[[], Iterator[Part]], batch_size: int | None, num_rows: int, generator: torch.Generator
) -> Iterator[tuple[Iterator[Part], int]]:
    """Batches of an epoch and their sizes: all rows in parts, or shuffled rows (within each part) in batches."""
    if batch_size is None:
        yield rows(), num_rows
        return
    for x, y in rows():
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for indices in torch.split(order, batch_size):
            yield iter([(x[indices], y[indices])]), len(indices)


def _parts(batch: Iterator[Part]) -> Iterator[Part]:
    for x, y in batch:
        size = _FLOAT32_ROWS if x.dtype == torch.float32 else len(x)
        yield from zip(torch.split(x, size), torch.split(y, size), strict=True)


def _rows(dataset: Dataset, dtype: torch.dtype, device: torch.device, read_rows: int) -> Callable[[], Iterator[Part]]:
    def read() -> Iterator[Part]:
        for x, y in read_blocks(dataset, read_rows=read_rows):
            yield torch.from_numpy(x).to(device, dtype), torch.from_numpy(y).to(device, dtype).unsqueeze(1)

    if dataset.num_rows * (len(dataset.features) + 1) * dtype.itemsize > MEMORY_BYTES:
        return read
    parts = list(read())
    return lambda: iter(parts)


def _stop(history: Sequence[Epoch], moves: Sequence[float], train: Train, *, compensates: bool) -> Stop | None:
    first, last = history[1].loss, history[-1].loss
    assert first is not None
    assert last is not None
    if last > _DIVERGED_GROWTH * max(first, torch.finfo(torch.float32).tiny):
        return "diverged"
    if train.tolerance != "auto":
        return "converged" if train.tolerance > 0 and moves[-1] <= train.tolerance else None
    eps = torch.finfo(getattr(torch, train.dtype)).eps
    # Where there is compensation, the last epoch must have had it: it has, if the one before moved this little.
    compensated = not compensates or (len(moves) > 1 and moves[-2] <= _COMPENSATE_BELOW * eps)
    if moves[-1] <= eps and compensated:
        return "converged"
    recent, earlier = moves[-_STALL_EPOCHS:], moves[-2 * _STALL_EPOCHS : -_STALL_EPOCHS]
    if earlier and 0.9 * max(earlier) < max(recent) <= _STALL_BELOW * eps:
        return "stalled"
    return None


def _move(before: Epoch, after: Epoch, scale: torch.Tensor) -> float:
    """Largest change of a coefficient, relative to its size or to rms(y) / rms(x_j), whichever is larger."""
    old, new = (torch.tensor(_with_bias(epoch), dtype=torch.float64) for epoch in (before, after))
    reach = torch.maximum(new.abs(), scale).clamp_min(torch.finfo(torch.float64).tiny)
    return float(((new - old).abs() / reach).max())


def _with_bias(epoch: Epoch) -> tuple[float, ...]:
    return epoch.weights if epoch.bias is None else (*epoch.weights, epoch.bias)


def _coefficients(model: LNTXLinearModel) -> list[float]:
    return [value for parameter in model.parameters() for value in parameter.detach().reshape(-1).tolist()]


def _set_coefficients(model: LNTXLinearModel, epoch: Epoch) -> None:
    """Put a model back to the end of an epoch."""
    with torch.no_grad():
        for parameter, values in zip(model.parameters(), (epoch.weights, [epoch.bias]), strict=False):
            parameter.copy_(torch.tensor(values, dtype=torch.float64).reshape(parameter.shape))


def _epoch(model: LNTXLinearModel, loss: float | None) -> Epoch:
    return Epoch(weights=model.weights, bias=model.bias, loss=loss)


def _device(train: Train) -> torch.device:
    if train.device == "cuda" and not torch.cuda.is_available():
        raise BadInput("train.device is cuda, but torch finds no CUDA device here: use cpu or auto")
    return torch.device("cuda" if train.device == "cuda" else "cpu")


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
