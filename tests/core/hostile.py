"""Tables on which a certificate of least squares could lie, by kind, and their exact answer in rationals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

Table = tuple[np.ndarray, np.ndarray]
"""x, shape (n, d), and y, shape (n,); float64."""

UNIT = Fraction(1, 2**53)


def _noise(draw: np.random.Generator, n: int, sd: float = 0.1) -> np.ndarray:
    return draw.normal(0, sd, n)


def _plain(draw: np.random.Generator, d: int = 2) -> Table:
    n = int(draw.integers(d + 3, 60))
    x = np.round(draw.uniform(1, 10, (n, d)), 2)
    return x, np.round(x @ draw.uniform(-5, 5, d) + 2 + _noise(draw, n), 3)


def _large(draw: np.random.Generator) -> float:
    return float(draw.choice([-1, 1]) * draw.choice([-9999, 99999, 1e8, 1e12, 3e14, 1e20, 9.96921e36, 1e60]))


def _flagged_outlier(draw: np.random.Generator) -> Table:
    x, y = _plain(draw, int(draw.integers(1, 4)))
    flag = np.zeros(len(y))
    place = int(draw.integers(len(y)))
    flag[place], y[place] = 1, _large(draw)
    return np.column_stack([flag, x]), y


def _inexact_flag(draw: np.random.Generator) -> Table:
    """The weight of the flag is a third or so of the outlier: rounding it leaves a residual that is large too."""
    x, y = _flagged_outlier(draw)
    x[:, 0] *= draw.choice([3, 0.7])
    return x, y


def _outlier(draw: np.random.Generator) -> Table:
    x, y = _plain(draw)
    y[int(draw.integers(len(y)))] = _large(draw)
    return x, y


def _outlier_in_x(draw: np.random.Generator) -> Table:
    x, y = _plain(draw)
    x[int(draw.integers(len(y))), 0] = _large(draw) / 1e6
    return x, y


def _scaled_rows(draw: np.random.Generator) -> Table:
    x, y = _plain(draw, int(draw.integers(1, 4)))
    scale = 10.0 ** draw.uniform(-25, 25, len(y))
    return x * scale[:, None], y * scale


def _scaled_columns(draw: np.random.Generator) -> Table:
    x, y = _plain(draw, 3)
    return x * 10.0 ** draw.uniform(-30, 30, 3), y


def _blocks(draw: np.random.Generator) -> Table:
    left, right = _plain(draw, 1), _plain(draw, 1)
    scale = 10.0 ** float(draw.uniform(-20, 20))
    zero = np.zeros_like
    x = np.block([[left[0], zero(left[0])], [zero(right[0]), right[0]]])
    return x, np.concatenate([left[1], right[1] * scale])


def _one_ulp_apart(draw: np.random.Generator) -> Table:
    x, y = _plain(draw, 1)
    near = np.where(draw.integers(2, size=len(y)) > 0, np.nextafter(x[:, 0], np.inf), x[:, 0])
    return np.column_stack([x[:, 0], near]), y


def _near_columns(draw: np.random.Generator) -> Table:
    x, y = _plain(draw, 1)
    return np.column_stack([x[:, 0], x[:, 0] + _noise(draw, len(y), 10.0 ** float(draw.uniform(-12, -3)))]), y


def _large_offset(draw: np.random.Generator) -> Table:
    x, y = _plain(draw, 1)
    return np.round(x) + 2.0 ** int(draw.integers(20, 54)), y


def _offset_target(draw: np.random.Generator) -> Table:
    x, y = _plain(draw, 1)
    return x, np.round(y * 8) + 2.0 ** int(draw.integers(20, 54))


def _constant_target(draw: np.random.Generator) -> Table:
    x, y = _plain(draw)
    return x, 5.0 + _noise(draw, len(y), 10.0 ** float(draw.uniform(-15, -8)))


def _polynomial(draw: np.random.Generator) -> Table:
    degree, n = int(draw.integers(3, 16)), int(draw.integers(20, 50))
    x = np.round(draw.uniform(-1, 1, n), 3)
    return np.column_stack([x**k for k in range(1, degree + 1)]), np.round(np.sin(3 * x) + _noise(draw, n), 4)


def _one_spare_row(draw: np.random.Generator) -> Table:
    d = int(draw.integers(1, 6))
    return draw.normal(size=(d + 2, d)), draw.normal(size=d + 2)


def _tiny_numbers(draw: np.random.Generator) -> Table:
    x, y = _plain(draw)
    return x * 1e-90, y * 1e-90


def _denormal_rows(draw: np.random.Generator) -> Table:
    x, y = _plain(draw)
    x[::3] *= 5e-324 / 4
    return x, y


def _noise_free(draw: np.random.Generator) -> Table:
    x, _ = _plain(draw, 3)
    return x, x @ np.array([3.7, 0.0, -1.2])


def _zero_weights(draw: np.random.Generator) -> Table:
    x = draw.integers(1, 10, (int(draw.integers(8, 60)), 3)).astype(float)
    return x, 3 * x[:, 0]


def _unequal_weights(draw: np.random.Generator) -> Table:
    x, y = _plain(draw, 3)
    return x, x @ (10.0 ** draw.uniform(-12, 12, 3)) + _noise(draw, len(y), 1e-13)


def _many_flags(draw: np.random.Generator) -> Table:
    x, y = _plain(draw, 1)
    flags = np.eye(len(y))[:, : int(draw.integers(1, 4))]
    for k in range(flags.shape[1]):
        y[k] = _large(draw)
    return np.column_stack([flags, x]), y


def _weighted_rows(draw: np.random.Generator) -> Table:
    x, y = _plain(draw)
    weights = np.where(draw.integers(4, size=len(y)) == 0, 10.0 ** float(draw.uniform(3, 12)), 1.0)
    return x * weights[:, None], y * weights


def _cancelling_target(draw: np.random.Generator) -> Table:
    x, y = _plain(draw, 1)
    twin = x[:, 0] * float(10.0 ** draw.uniform(3, 14))
    return np.column_stack([x[:, 0], twin + y]), twin


KINDS: Mapping[str, Callable[[np.random.Generator], Table]] = {
    make.__name__.strip("_"): make
    for make in (
        _plain, _flagged_outlier, _inexact_flag, _outlier, _outlier_in_x, _scaled_rows, _scaled_columns, _blocks,
        _one_ulp_apart, _near_columns, _large_offset, _offset_target, _constant_target, _polynomial, _one_spare_row,
        _tiny_numbers, _denormal_rows, _noise_free, _zero_weights, _unequal_weights, _many_flags, _weighted_rows,
        _cancelling_target,
    )
}  # fmt: skip
"""What makes a table of each kind from a generator."""


@dataclass(frozen=True, kw_only=True)
class Exact:
    """The least-squares answer of a table with a bias, in rationals; the bias last."""

    weights: list[Fraction]
    rss: Fraction
    tss: Fraction
    variances: list[Fraction]
    """Diagonal of (XᵀX)⁻¹ times RSS / (N - p); empty without degrees of freedom."""

    bounds: list[Fraction]
    """What rounding each entry once can change each weight by, to first order."""


def solve(x: np.ndarray, y: np.ndarray) -> Exact | None:
    """Return the exact answer, or None if the columns are dependent."""
    rows = [[*map(Fraction, row), Fraction(1)] for row in x.tolist()]
    target = [*map(Fraction, y.tolist())]
    n, p = len(rows), len(rows[0])
    columns = [*zip(*rows, strict=True)]
    inverse = _inverted([[dot(left, right) for right in columns] for left in columns])
    if inverse is None:
        return None
    moments = [dot(column, target) for column in columns]
    weights = [dot(row, moments) for row in inverse]
    left = [value - dot(row, weights) for row, value in zip(rows, target, strict=True)]
    rss, mean = dot(left, left), sum(target, Fraction(0)) / n
    # The ones of the bias are no entries of the table.
    sizes = [abs(value) + sizes_of(row[:-1], weights[:-1]) for row, value in zip(rows, target, strict=True)]
    bounds = []
    for across in inverse:
        total = Fraction(0)
        for row, size, rest in zip(rows, sizes, left, strict=True):
            total += abs(dot(across, row)) * size + abs(rest) * sizes_of(across[:-1], row[:-1])
        bounds.append(UNIT * total)
    return Exact(
        weights=weights,
        rss=rss,
        tss=sum(((value - mean) ** 2 for value in target), Fraction(0)),
        variances=[inverse[j][j] * rss / (n - p) for j in range(p)] if n > p else [],
        bounds=bounds,
    )


def dot(left: Sequence[Fraction], right: Sequence[Fraction]) -> Fraction:
    """Return Σ a b."""
    return sum((a * b for a, b in zip(left, right, strict=True)), Fraction(0))


def sizes_of(left: Sequence[Fraction], right: Sequence[Fraction]) -> Fraction:
    """Return Σ |a b|."""
    return sum((abs(a * b) for a, b in zip(left, right, strict=True)), Fraction(0))


def _inverted(square: list[list[Fraction]]) -> list[list[Fraction]] | None:
    p = len(square)
    system = [[*row, *(Fraction(int(a == b)) for b in range(p))] for a, row in enumerate(square)]
    for c in range(p):
        pivot = next((r for r in range(c, p) if system[r][c]), None)
        if pivot is None:
            return None
        system[c], system[pivot] = system[pivot], system[c]
        system[c] = [value / system[c][c] for value in system[c]]
        for r in range(p):
            if r != c and system[r][c]:
                system[r] = [a - system[r][c] * b for a, b in zip(system[r], system[c], strict=True)]
    return [row[p:] for row in system]
