"""Check the path of full-batch descent: the weights and loss of every epoch against the closed form.

Gradient descent recovers from most faults by its end, but its path shows them. Computed by FLINT (Johansson, Arb, 2017)
from exact sums over the rows, in 60 digits, without torch. Trains nothing, and reads no file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import flint
import numpy as np
from flint import acb_mat, arb, arb_mat, fmpq_mat

from lntx.canary.oracle.path_check import Departure, PathCheck
from lntx.canary.oracle.sums import mean_products
from lntx.training.gradients import FLOAT32_ROWS
from lntx.training.result import Epoch

_BITS = 200
# Share of y² that 60 digits distinguish from zero if features are nearly collinear.
_NOTHING = 1e-40
# In float32 the rows themselves are rounded.
_SAME_RATE = {"float64": 1e-9, "float32": 1e-6}
# The bounds are of first order in the rounding.
_HIGHER_ORDERS = 1.1


def follow(
    history: Sequence[Epoch],
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    features: Sequence[str],
    learning_rate: float,
    stable_limit: float,
    momentum: float,
    dtype: Literal["float64", "float32"],
) -> PathCheck:
    """Compare a history with w_k = w* + (I − lr·H)^k (w_0 − w*), H = 2XᵀX/N, or its equivalent with momentum.

    history: from epoch 0. blocks: the expected training rows, x, shape (n, d), and y, shape (n,), in the blocks of
    training. features: names of the weights. learning_rate, stable_limit: as training used them.

    The recurrence w_{k+1} = w_k − lr·H(w_k − w*) + momentum·(w_k − w_{k−1}) (Polyak, 1964) is the closed form, step by
    step. Rounding may cause a deviation of at most `_bounds`.
    """
    has_bias = history[0].bias is not None
    names = [*features, *(["bias"] if has_bias else [])]
    with flint.ctx.workprec(_BITS):
        return _follow(
            history,
            _sum(blocks, len(names) + 1, has_bias=has_bias, dtype=dtype),
            names=names,
            learning_rate=learning_rate,
            stable_limit=stable_limit,
            momentum=momentum,
            dtype=dtype,
        )


def _follow(
    history: Sequence[Epoch],
    sums: _Sums,
    *,
    names: Sequence[str],
    learning_rate: float,
    stable_limit: float,
    momentum: float,
    dtype: Literal["float64", "float32"],
) -> PathCheck:
    path, losses = _closed_form(sums, history[0].coefficients, learning_rate, momentum, len(history) - 1)
    allowed, allowed_losses = _bounds(sums, path, losses, learning_rate, momentum, dtype)
    inverse = sums.features.inv()
    solution = inverse * sums.slope
    spread = _residual_sd(sums, solution)
    worst, departure = 0.0, None
    for k, epoch in enumerate(history[1:], start=1):
        actual = [*epoch.coefficients, math.nan if epoch.loss is None else epoch.loss]
        expected = [*path[k].entries(), losses[k - 1]]
        limits = [*allowed[k], allowed_losses[k - 1]]
        ratios = [_ratio(*pair) for pair in zip(actual, expected, limits, strict=True)]
        worst = min(max(worst, *ratios), 1e300)
        if worst > 1:
            j = int(np.argmax(ratios))
            departure = Departure(
                epoch=k,
                what=[*names, "loss"][j],
                found=actual[j] if math.isfinite(actual[j]) else None,
                expected=float(expected[j]),
                allowed=limits[j],
            )
            break
    size = float(np.abs(_floats(path)).max()) or 1.0
    diagonal = np.array([float(inverse[i, i]) for i in range(len(names))])
    return PathCheck(
        epochs=len(history) - 1,
        departure=departure,
        worst=worst,
        visible=2 * float(allowed[1].max()) / size if len(allowed) > 1 else 0.0,
        solution=tuple(float(value) for value in solution.entries()),
        rate_is_right=_rate_is_right(sums, learning_rate, stable_limit, momentum, dtype),
        loss=float(losses[-1]),
        allowed_loss=float(allowed_losses[-1]),
        residual_sd=spread,
        standard_errors=None if spread is None else tuple((spread * np.sqrt(diagonal / sums.num_rows)).tolist()),
    )


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Means over the rows of products of columns: the p columns that have weights, and y."""

    num_rows: int
    """Number of rows, N."""

    features: arb_mat
    """XᵀX/N, shape (p, p)."""

    slope: arb_mat
    """Xᵀy/N, shape (p, 1)."""

    target: arb
    """yᵀy/N."""

    magnitudes: np.ndarray
    """The same means for the absolute values of all columns, y last, float64, shape (p + 1, p + 1)."""

    terms: int
    """Number of rows whose gradients are summed at once, plus the number of block sums that are added."""


def _sum(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    num_columns: int,
    *,
    has_bias: bool,
    dtype: Literal["float64", "float32"],
) -> _Sums:
    sizes: list[int] = []
    magnitudes = np.zeros((num_columns, num_columns))

    def columns() -> Iterator[np.ndarray]:
        for x, y in blocks:
            ones = [np.ones(len(y))] if has_bias else []
            # Rounded to the dtype of training.
            block = np.column_stack([x, *ones, y]).astype(dtype).astype(np.float64)
            np.add(magnitudes, np.abs(block).T @ np.abs(block), out=magnitudes)
            sizes.append(len(y))
            yield block

    exact, num_rows = mean_products(columns(), num_columns)
    at_once = min(max(sizes), FLOAT32_ROWS) if dtype == "float32" else max(sizes)
    p = num_columns - 1
    return _Sums(
        num_rows=num_rows,
        features=arb_mat(fmpq_mat(p, p, [exact[i, j] for i in range(p) for j in range(p)])),
        slope=arb_mat(fmpq_mat(p, 1, [exact[i, p] for i in range(p)])),
        target=arb(exact[p, p]),
        magnitudes=magnitudes / num_rows,
        terms=at_once + len(sizes),
    )


def _closed_form(
    sums: _Sums, start: Sequence[float], learning_rate: float, momentum: float, epochs: int
) -> tuple[list[arb_mat], list[arb]]:
    """Return the weights at the start and after each epoch, and the loss at each of them."""
    rate, inertia = 2 * arb(learning_rate), arb(momentum)
    now = before = arb_mat(len(start), 1, list(start))
    path, losses = [now], []
    for epoch in range(epochs + 1):
        half_gradient = sums.features * now - sums.slope
        losses.append((now.transpose() * (half_gradient - sums.slope))[0, 0] + sums.target)
        if epoch == epochs:
            break
        # Take the middle of the ball: with 60 digits its radius, which grows with each step, is not needed.
        now, before = (now - half_gradient * rate + (now - before) * inertia).mid(), now
        path.append(now)
    return path, losses


def _rate_is_right(
    sums: _Sums, learning_rate: float, stable_limit: float, momentum: float, dtype: Literal["float64", "float32"]
) -> bool:
    if not 0 < learning_rate < stable_limit:
        return False
    eigenvalues = [float((2 * value).real) for value in acb_mat(sums.features).eig(multiple=True)]
    largest = 2 * (1 + momentum) / stable_limit
    smallest = 2 * (1 + momentum) / learning_rate - largest
    tolerance = _SAME_RATE[dtype] * largest
    return abs(largest - max(eigenvalues)) <= tolerance and abs(smallest - min(eigenvalues)) <= tolerance


def _residual_sd(sums: _Sums, solution: arb_mat) -> float | None:
    freedom = sums.num_rows - solution.nrows()
    mean_square = float(sums.target - (sums.slope.transpose() * solution)[0, 0])
    if freedom <= 0 or mean_square <= _NOTHING * float(sums.target):
        return None
    return math.sqrt(mean_square * sums.num_rows / freedom)


def _floats(path: Sequence[arb_mat]) -> np.ndarray:
    """Return the path in float64, shape (epochs + 1, p)."""
    return np.array([[float(value) for value in weights.entries()] for weights in path])


def _bounds(
    sums: _Sums,
    path: Sequence[arb_mat],
    exact_losses: Sequence[arb],
    learning_rate: float,
    momentum: float,
    dtype: Literal["float64", "float32"],
) -> tuple[np.ndarray, np.ndarray]:
    """Return bounds of the rounding errors of the weights, shape (epochs + 1, p), and losses, shape (epochs + 1,).

    The error of a sum of n terms in any order is at most γ_n = n·u / (1 − n·u) times the sum of the terms' magnitudes
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, §3.1 and §4.2). The error of a step propagates as the
    impulse response of the recurrence, in each eigendirection of the Hessian.
    """
    unit = float(np.finfo(dtype).eps) / 2
    weights = _floats(path)
    epochs, p = len(weights) - 1, weights.shape[1]
    forward = _gamma(p + 6, unit)
    backward = _gamma(sums.terms + 8, unit)
    disturbance, loss_bounds = np.zeros(epochs), np.zeros(epochs + 1)
    lengths = np.sqrt(sums.magnitudes.diagonal()[:p])
    for k in range(epochs + 1):
        reach = sums.magnitudes @ np.append(np.abs(weights[k]), 1.0)
        # Root mean squares over the rows: of |x|·|w| + |b| + |y|, and of the computed residual at most.
        size = math.sqrt(float(np.append(np.abs(weights[k]), 1.0) @ reach))
        loss = max(float(exact_losses[k]), 0.0)
        residual = math.sqrt(loss) + forward * size
        gradient = 2 * (forward * reach[:p] + backward * lengths * residual)
        loss_bounds[k] = (2 * math.sqrt(loss) + forward * size) * forward * size + backward * residual**2
        if k == epochs:
            break
        moved, moved_before = np.abs(weights[k + 1] - weights[k]), np.abs(weights[k] - weights[max(k - 1, 0)])
        updates = (1 + momentum) * unit * np.maximum(np.abs(weights[k]), np.abs(weights[k + 1]))
        velocity = 4 * unit * (moved + momentum * moved_before)
        disturbance[k] = np.linalg.norm(learning_rate * gradient + updates + velocity)
    eigenvalues, directions = np.linalg.eigh([[2 * float(value) for value in row] for row in sums.features.tolist()])
    response = _impulse_response(learning_rate * eigenvalues, momentum, epochs)
    along = np.zeros((epochs + 1, p))
    for i in range(p):
        along[1:, i] = np.convolve(np.abs(response[i]), disturbance)[:epochs]
    bounds = along @ np.abs(directions).T
    # The loss is computed at weights that contain rounding errors.
    moved_losses = np.array(
        [
            float(2 * math.sqrt(max(float(loss), 0.0)) * (lengths @ bound) + (lengths @ bound) ** 2)
            for loss, bound in zip(exact_losses, bounds, strict=True)
        ]
    )
    return _HIGHER_ORDERS * bounds, _HIGHER_ORDERS * (loss_bounds + moved_losses)


def _impulse_response(steps: np.ndarray, momentum: float, epochs: int) -> np.ndarray:
    """Return what remains of a unit disturbance after 0, 1, … epochs, by eigendirection, shape (p, epochs).

    steps: learning rate times eigenvalue, shape (p,).
    """
    response = np.zeros((len(steps), max(epochs, 2)))
    response[:, 0], response[:, 1] = 1.0, 1 + momentum - steps
    for k in range(2, epochs):
        response[:, k] = (1 + momentum - steps) * response[:, k - 1] - momentum * response[:, k - 2]
    return response[:, :epochs]


def _gamma(count: int, unit: float) -> float:
    return count * unit / (1 - count * unit)


def _ratio(actual: float, expected: arb, allowed: float) -> float:
    distance = float(abs(actual - expected)) if math.isfinite(actual) else math.inf
    return distance / allowed if allowed > 0 else (math.inf if distance > 0 else 0.0)
