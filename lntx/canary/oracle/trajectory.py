"""The path of full-batch descent, known beforehand: every epoch's weights and loss against the closed form.

Gradient descent heals most faults by its end; its path does not. Computed from exact sums over the rows, in 50 digits;
of torch nothing is used. Trains nothing, and reads no file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow, localcontext
from typing import Literal

import numpy as np

from lntx.canary.oracle.eigenvalues import is_largest, is_smallest
from lntx.canary.oracle.whole_numbers import WholeNumberSums
from lntx.config.schema import Section
from lntx.numerics.gram import Gram
from lntx.training.gradients import FLOAT32_ROWS
from lntx.training.result import Epoch

# A context of its own: the interpreter's may trap what is done here.
_EXACT = Context(prec=50, Emin=-999999, Emax=999999, traps=[InvalidOperation, DivisionByZero, Overflow])
# Of y², what 50 digits can tell from nothing.
_NOTHING = Decimal("1e-40")
# In float32 the rows themselves are rounded.
_SAME_RATE = {"float64": 1e-9, "float32": 1e-6}
# The bounds are of first order in the rounding.
_HIGHER_ORDERS = 1.1

# Products of whole numbers that Python makes in a few seconds; no blind case has more.
_FEW_PRODUCTS = 2 * 10**7


class Departure(Section):
    """The first epoch that is not where descent would have been."""

    epoch: int
    """The epoch, from 1."""

    what: str
    """The feature whose weight it is, "bias" or "loss"."""

    found: float | None
    """Its value in training's history; none if it is not a finite number."""

    expected: float
    """Its value in the closed form."""

    allowed: float
    """Largest distance that rounding explains."""


class PathCheck(Section):
    """The outcome of following a training."""

    epochs: int
    """Epochs that were followed."""

    departure: Departure | None
    """Where training left the path; none if it stayed."""

    worst: float
    """Largest distance up to there, in the distance that rounding explains, at most 1e300; training stays below 1."""

    visible: float
    """Smallest error of the first step, relative to the size of the weights, that is certain to show: twice its
    bound. Bounds grow from epoch to epoch."""

    rate_is_right: bool
    """Whether the stable limit that training took is 2 · (1 + momentum) / λ_max(H), and its rate 2 · (1 + momentum) /
    (λ_max(H) + λ_min(H))."""

    loss: float
    """Mean squared error where the path ends."""

    allowed_loss: float
    """Largest distance from it that rounding explains."""

    residual_sd: float | None
    """sqrt(RSS / (N − p)) of w*; none where N = p, or where nothing is left of y but the last of 50 digits."""

    standard_errors: tuple[float, ...] | None
    """Of w*, the bias last; none where there is no residual_sd."""

    solution: tuple[float, ...]
    """w*, where the path leads: the least-squares solution on the rows as training has them, the bias last."""


def follow(
    history: Sequence[Epoch],
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    num_rows: int,
    features: Sequence[str],
    learning_rate: float,
    stable_limit: float,
    momentum: float,
    dtype: Literal["float64", "float32"],
) -> PathCheck:
    """Compare a history with w_k = w* + (I − lr·H)^k (w_0 − w*), H = 2XᵀX/N, and its like with momentum.

    history: epoch 0 first. blocks: the rows that should have been trained on, x, shape (n, d), and y, shape (n,), in
    the blocks that training takes. num_rows: how many there are. features: names of the weights.
    learning_rate, stable_limit: as training took them.

    The recurrence w_{k+1} = w_k − lr·H(w_k − w*) + momentum·(w_k − w_{k−1}) (Polyak, 1964) is the closed form, step by
    step. Rounding may lead away from it by what `_Bounds` adds up.
    """
    has_bias = history[0].bias is not None
    sums = _Sums(blocks, num_rows=num_rows, has_bias=has_bias, dtype=dtype)
    names = [*features, *(["bias"] if has_bias else [])]
    path, losses = _closed_form(sums, history[0].coefficients, learning_rate, momentum, len(history) - 1)
    allowed, allowed_losses = _bounds(sums, path, losses, learning_rate, momentum, dtype)
    solution, inverse = _solve(sums, len(names))
    spread = _residual_sd(sums, solution, len(names))
    worst, departure = 0.0, None
    for k, epoch in enumerate(history[1:], start=1):
        found = [*epoch.coefficients, math.nan if epoch.loss is None else epoch.loss]
        expected = [*path[k], losses[k - 1]]
        limits = [*allowed[k], allowed_losses[k - 1]]
        ratios = [_ratio(*pair) for pair in zip(found, expected, limits, strict=True)]
        worst = min(max(worst, *ratios), 1e300)
        if worst > 1:
            j = int(np.argmax(ratios))
            departure = Departure(
                epoch=k,
                what=[*names, "loss"][j],
                found=found[j] if math.isfinite(found[j]) else None,
                expected=float(expected[j]),
                allowed=limits[j],
            )
            break
    size = float(np.abs(sums.float_path(path)).max()) or 1.0
    return PathCheck(
        epochs=len(history) - 1,
        departure=departure,
        worst=worst,
        visible=2 * float(allowed[1].max()) / size if len(allowed) > 1 else 0.0,
        solution=tuple(float(value) for value in solution),
        rate_is_right=_rate_is_right(sums, len(names), learning_rate, stable_limit, momentum, dtype),
        loss=float(losses[-1]),
        allowed_loss=float(allowed_losses[-1]),
        residual_sd=spread,
        standard_errors=None if spread is None else tuple((spread * np.sqrt(inverse / sums.num_rows)).tolist()),
    )


class _Sums:
    """Sums over the rows, each divided by their number: exact products, and products of magnitudes."""

    def __init__(
        self,
        blocks: Iterable[tuple[np.ndarray, np.ndarray]],
        *,
        num_rows: int,
        has_bias: bool,
        dtype: Literal["float64", "float32"],
    ) -> None:
        gram: Gram | WholeNumberSums | None = None
        sizes: list[int] = []
        for x, y in blocks:
            ones = [np.ones(len(y))] if has_bias else []
            # As training has them: rounded to its dtype.
            columns = np.column_stack([x, *ones, y]).astype(dtype).astype(np.float64)
            if gram is None:
                few = num_rows * columns.shape[1] ** 2 <= _FEW_PRODUCTS
                # What the reference is made of cannot be held against it, where there is another.
                gram = WholeNumberSums(columns.shape[1]) if few else Gram(columns.shape[1])
                magnitudes = np.zeros((columns.shape[1],) * 2)
            gram.add(columns)
            magnitudes += np.abs(columns).T @ np.abs(columns)
            sizes.append(len(y))
        assert gram is not None
        self.num_rows = sum(sizes)
        # Rows whose gradients are added up at once, and the sums of blocks that are added to each other.
        self.terms = min(max(sizes), FLOAT32_ROWS if dtype == "float32" else max(sizes)) + len(sizes)
        exact, count = gram if isinstance(gram, WholeNumberSums) else gram.total(), len(magnitudes)
        entries = [[exact.fraction(i, j) / self.num_rows for j in range(count)] for i in range(count)]
        with localcontext(_EXACT):
            self.products = np.array([[Decimal(e.numerator) / Decimal(e.denominator) for e in row] for row in entries])
        self.magnitudes = magnitudes / self.num_rows

    def hessian(self, p: int) -> np.ndarray:
        """H = 2XᵀX/N, float64, shape (p, p)."""
        return 2 * self.products[:p, :p].astype(np.float64)

    def float_path(self, path: Sequence[np.ndarray]) -> np.ndarray:
        """The path as float64, shape (epochs + 1, p)."""
        return np.array(path).astype(np.float64)


def _closed_form(
    sums: _Sums, start: Sequence[float], learning_rate: float, momentum: float, epochs: int
) -> tuple[list[np.ndarray], list[Decimal]]:
    """The weights at the end of each epoch, the start included, and the loss at each of them."""
    p = len(start)
    hessian, slope = sums.products[:p, :p], sums.products[:p, p]
    with localcontext(_EXACT):
        rate, inertia = 2 * Decimal(learning_rate), Decimal(momentum)
        now = before = np.array([Decimal(value) for value in start])
        path, losses = [now], []
        for epoch in range(epochs + 1):
            half_gradient = hessian @ now - slope
            losses.append(now @ half_gradient - slope @ now + sums.products[p, p])
            if epoch == epochs:
                break
            now, before = now - rate * half_gradient + inertia * (now - before), now
            path.append(now)
    return path, losses


def _rate_is_right(
    sums: _Sums,
    p: int,
    learning_rate: float,
    stable_limit: float,
    momentum: float,
    dtype: Literal["float64", "float32"],
) -> bool:
    if not 0 < learning_rate < stable_limit:
        return False
    tolerance = _SAME_RATE[dtype]
    with localcontext(_EXACT):
        hessian = 2 * sums.products[:p, :p]
        largest = 2 * (1 + momentum) / stable_limit
        smallest = 2 * (1 + momentum) / learning_rate - largest
        return is_largest(hessian, largest, tolerance) and is_smallest(hessian, smallest, tolerance * largest)


def _residual_sd(sums: _Sums, solution: np.ndarray, p: int) -> float | None:
    freedom = sums.num_rows - p
    with localcontext(_EXACT):
        mean_square = sums.products[p, p] - sums.products[:p, p] @ solution
        if mean_square <= _NOTHING * sums.products[p, p]:
            return None
    return math.sqrt(max(float(mean_square), 0.0) * sums.num_rows / freedom) if freedom > 0 else None


def _solve(sums: _Sums, p: int) -> tuple[np.ndarray, np.ndarray]:
    """The solution of the normal equations, Decimal, shape (p,), and the diagonal of the inverse of XᵀX/N, float64."""
    with localcontext(_EXACT):
        identity = np.array([[Decimal(int(i == j)) for j in range(p)] for i in range(p)])
        rows = np.column_stack([sums.products[:p], identity])
        for i in range(p):
            rows[i] = rows[i] / rows[i, i]
            for j in range(p):
                if j != i:
                    rows[j] = rows[j] - rows[j, i] * rows[i]
    return rows[:, p], rows[:, p + 1 :].diagonal().astype(np.float64)


def _bounds(
    sums: _Sums,
    path: Sequence[np.ndarray],
    exact_losses: Sequence[Decimal],
    learning_rate: float,
    momentum: float,
    dtype: Literal["float64", "float32"],
) -> tuple[np.ndarray, np.ndarray]:
    """How far rounding may lead away: for the weights, shape (epochs + 1, p), and for the losses, shape
    (epochs + 1,).

    Sums of n terms in any order are off by γ_n = n·u / (1 − n·u) times the sum of the terms' magnitudes, at most
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, §3.1 and §4.2). What a step adds lives on as the
    impulse response of the recurrence, in each eigendirection of the Hessian.
    """
    unit = float(np.finfo(dtype).eps) / 2
    weights = sums.float_path(path)
    epochs, p = len(weights) - 1, weights.shape[1]
    forward = _gamma(p + 6, unit)
    backward = _gamma(sums.terms + 8, unit)
    disturbance, loss_bounds = np.zeros(epochs), np.zeros(epochs + 1)
    lengths = np.sqrt(sums.magnitudes.diagonal()[:p])
    for k in range(epochs + 1):
        reach = sums.magnitudes @ np.append(np.abs(weights[k]), 1.0)
        # Root mean squares over the rows: of |x|·|w| + |b| + |y|, and of the residual as it may be computed.
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
    eigenvalues, directions = np.linalg.eigh(sums.hessian(p))
    response = _impulse_response(learning_rate * eigenvalues, momentum, epochs)
    along = np.zeros((epochs + 1, p))
    for i in range(p):
        along[1:, i] = np.convolve(np.abs(response[i]), disturbance)[:epochs]
    bounds = along @ np.abs(directions).T
    # The loss is taken where rounding has led.
    moved_losses = np.array(
        [
            float(2 * math.sqrt(max(float(loss), 0.0)) * (lengths @ bound) + (lengths @ bound) ** 2)
            for loss, bound in zip(exact_losses, bounds, strict=True)
        ]
    )
    return _HIGHER_ORDERS * bounds, _HIGHER_ORDERS * (loss_bounds + moved_losses)


def _impulse_response(steps: np.ndarray, momentum: float, epochs: int) -> np.ndarray:
    """What is left of a unit disturbance after 0, 1, … epochs, by eigendirection: shape (p, epochs).

    steps: learning rate times eigenvalue, shape (p,).
    """
    response = np.zeros((len(steps), max(epochs, 2)))
    response[:, 0], response[:, 1] = 1.0, 1 + momentum - steps
    for k in range(2, epochs):
        response[:, k] = (1 + momentum - steps) * response[:, k - 1] - momentum * response[:, k - 2]
    return response[:, :epochs]


def _gamma(count: int, unit: float) -> float:
    return count * unit / (1 - count * unit)


def _ratio(found: float, expected: Decimal, allowed: float) -> float:
    with localcontext(_EXACT):
        distance = abs(float(Decimal(found) - expected)) if math.isfinite(found) else math.inf
    return distance / allowed if allowed > 0 else (math.inf if distance > 0 else 0.0)
