"""The curvature of the loss for gradient descent: Hessian, condition number, stable limit, coordinates.

Uses only x and the size of the target, and computes no solution. All figures come from one QR factorisation per block,
in torch; the exact solution (`least_squares`) uses different arithmetic.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from lntx.base.errors import BadInput
from lntx.config.schema import MAX_MAGNITUDE
from lntx.data.dataset import Block, Dataset, pass_over, read_blocks
from lntx.numerics.collinearity import BIAS, dependences, refuse, refuse_too_few

Precondition = Literal["none", "standardize", "qr"]

GOOD_CONDITION = 10.0
"""Condition number of the Hessian up to which plain descent needs about 180 epochs for 16 digits."""

_TOO_COARSE = 1e-2
# rms(y) / rms(x_j) is the size of a weight: weights and intermediate values must stay below MAX_MAGNITUDE.
_LARGEST_SCALE = 1e75


@dataclass(frozen=True, kw_only=True)
class Curvature:
    """Second moments of the columns of [x, 1] (with the ones only if a bias is learned), by the weights of the rows."""

    num_rows: int
    """Number of rows measured."""

    factor: torch.Tensor
    """R of the QR factorisation of [1, x] (of x without a bias), float64, shape (p, p)."""

    target_rms: float
    """Root mean square of y."""

    has_bias: bool
    """Whether the column of ones is included."""

    largest: float
    """Largest absolute value in x and y."""

    @property
    def bias_last(self) -> torch.Tensor:
        """The factor with its columns in the order of the coefficients: [x, 1]."""
        return self._bias_last(self.factor)

    @property
    def column_rms(self) -> torch.Tensor:
        """Root mean square of each column of [x, 1], shape (p,)."""
        return self._bias_last(torch.linalg.vector_norm(self.factor, dim=0)) / math.sqrt(self.num_rows)

    @functools.cached_property
    def scaled_condition(self) -> float:
        """Condition number of [x, 1] with its columns scaled to equal length."""
        singular = torch.linalg.svdvals(self.factor / torch.linalg.vector_norm(self.factor, dim=0))
        return float(singular[0] / singular[-1])

    @property
    def scales(self) -> torch.Tensor:
        """rms(y) / rms(column), shape (p,): smaller coefficients do not matter. If y is 0, rms(y) is replaced by 1."""
        return (self.target_rms or 1.0) / self.column_rms

    def coordinates(self, precondition: Precondition) -> torch.Tensor:
        """Return S, shape (p, p): weights = S · coordinates; the descent takes its steps in these coordinates.

        none: the weights themselves. standardize: features centred (if there is a bias) and scaled to unit
        standard deviation. qr: columns made orthonormal by the R of the data (Björck, Numerical Methods for Least
        Squares Problems, 1996, section 7.2).
        """
        r, root = self.factor, math.sqrt(self.num_rows)
        p = len(r)
        if precondition == "none":
            s = torch.eye(p, dtype=torch.float64)
        elif precondition == "qr":
            s = root * torch.linalg.solve_triangular(r, torch.eye(p, dtype=torch.float64), upper=True)
        elif self.has_bias:
            # With the ones first, r[0, j] / r[0, 0] is the mean of column j, and the rows below row 0 are centred.
            scale = root / torch.linalg.vector_norm(r[1:, 1:], dim=0)
            s = torch.eye(p, dtype=torch.float64)
            s[1:, 1:] = torch.diag(scale)
            s[0, 1:] = -r[0, 1:] / r[0, 0] * scale
        else:
            s = torch.diag(root / torch.linalg.vector_norm(r, dim=0))
        return self._bias_last(self._bias_last(s.T).T)

    def eigenvalues(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Return the eigenvalues of the Hessian 2/N · (XS)ᵀ(XS) of the mean squared error, largest first."""
        singular = torch.linalg.svdvals(self._bias_last(self.factor) @ coordinates)
        values: torch.Tensor = 2 * singular**2 / self.num_rows
        return values

    def _bias_last(self, columns: torch.Tensor) -> torch.Tensor:
        return torch.roll(columns, -1, dims=-1) if self.has_bias else columns


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is measured of some of the rows."""

    num_rows: int
    """Number of rows."""

    factor: torch.Tensor
    """R of their QR factorisation, float64, shape (p, p), or (num_rows, p) if they are fewer."""

    squares: float
    """Sum of the squares of y, by the weights of the rows."""

    sizes: np.ndarray
    """Largest absolute value of each column of x, and of y, last."""


def measure(blocks: Iterable[Block], num_terms: int, *, bias: bool, largest: float = MAX_MAGNITUDE) -> Measured:
    """Measure rows in one pass, which ends early at a value beyond `largest`: `combine` refuses it.

    blocks: x, shape (n, num_terms), and y, shape (n,).
    """
    p = num_terms + bias
    factor = torch.zeros((0, p), dtype=torch.float64)
    num_rows, squares = 0, 0.0
    sizes = np.zeros(num_terms + 1)
    columns = np.empty((0, p))
    for x, y, _, row_weights in blocks:
        sizes = np.maximum(sizes, [*np.maximum(x.max(axis=0), -x.min(axis=0)), max(y.max(), -y.min())])
        if not sizes.max() < largest:
            break
        # Column-major, as LAPACK takes it: torch would copy other arrays twice.
        if len(columns) != len(factor) + len(x):
            columns = np.empty((len(factor) + len(x), p), order="F")
        columns[: len(factor)] = factor.numpy()
        columns[len(factor) :, bias:] = x
        columns[len(factor) :, :bias] = 1.0
        if row_weights is not None:
            columns[len(factor) :] *= np.sqrt(row_weights)[:, None]
        factor = torch.linalg.qr(torch.from_numpy(columns), mode="r").R
        num_rows += len(x)
        # No BLAS: its sums depend on the number of threads.
        squares += float((y**2 if row_weights is None else row_weights * y**2).sum())
    return Measured(num_rows=num_rows, factor=factor, squares=squares, sizes=sizes)


def measured_parts(
    dataset: Dataset, *, bias: bool, largest: float = MAX_MAGNITUDE, num_threads: int = 1
) -> Iterator[Measured]:
    """Measure the parts of a dataset, in order, on all cores. num_threads: threads of torch for each."""
    work = functools.partial(_measure_part, bias=bias, largest=largest, num_threads=num_threads)
    return pass_over(dataset, work)


def _measure_part(part: Dataset, *, bias: bool, largest: float, num_threads: int) -> Measured:
    # A thread that is new to torch has as many threads as there are cores.
    torch.set_num_threads(num_threads)
    return measure(read_blocks(part, reuse=True), len(part.terms), bias=bias, largest=largest)


def combine(
    parts: Iterable[Measured], terms: tuple[str, ...], *, bias: bool, largest: float = MAX_MAGNITUDE
) -> Curvature:
    """Combine what was measured of all parts of the rows, in order.

    terms: names of the columns of x. largest: absolute values must stay between its inverse and this limit, so that
    their squares neither overflow nor underflow.

    Raises: BadInput: too few rows, values too large or too small, or a column (named in the message) that depends on
    others, or is constant although there is a bias.
    """
    first, *others = parts
    num_rows, factor, squares, sizes = first.num_rows, first.factor, first.squares, first.sizes
    for part in others:
        num_rows += part.num_rows
        factor = torch.linalg.qr(torch.vstack([factor, part.factor]), mode="r").R
        squares += part.squares
        sizes = np.maximum(sizes, part.sizes)
    p = len(terms) + bias
    _refuse_sizes((*terms, "the target"), sizes, largest)
    refuse_too_few(num_rows, p, bias=bias)
    if dependent := dependences(factor.numpy(), (BIAS, *terms) if bias else terms):
        refuse(dependent)
    combined = Curvature(
        num_rows=num_rows,
        factor=factor,
        target_rms=math.sqrt(squares / num_rows),
        has_bias=bias,
        largest=float(sizes.max()),
    )
    for name, scale in zip(terms, combined.scales.tolist(), strict=False):
        if not 1 / _LARGEST_SCALE < scale < _LARGEST_SCALE:
            raise BadInput(f"the target is {scale:.2g} times as large as {name}, beyond 1e-75 to 1e75: rescale one")
    return combined


def choose(curvature: Curvature) -> Precondition:
    """Return the simplest coordinates in which plain descent converges fast."""
    mild: tuple[Precondition, ...] = ("none", "standardize")
    # Standardised columns lose the leading digits that their values share with the mean.
    if curvature.scaled_condition**2 * torch.finfo(torch.float64).eps > _TOO_COARSE:
        return "qr"
    for precondition in mild:
        if condition(curvature.eigenvalues(curvature.coordinates(precondition))) <= GOOD_CONDITION:
            return precondition
    return "qr"


def condition(eigenvalues: torch.Tensor) -> float:
    """Return the condition number of a Hessian from its eigenvalues, largest first."""
    return min(float(eigenvalues[0] / eigenvalues[-1]), 1e300)


def stable_limit(eigenvalues: torch.Tensor, momentum: float) -> float:
    """Return the learning rate from which full-batch descent no longer converges: 2 (1 + momentum) / largest eigenvalue
    (Polyak, Some methods of speeding up the convergence of iteration methods, 1964).
    """
    return 2 * (1 + momentum) / float(eigenvalues[0])


def best_rate(eigenvalues: torch.Tensor, momentum: float) -> float:
    """Return the middle of the rates at which the errors along the largest and the smallest eigenvalue shrink equally.

    Without momentum it is the fastest rate (Polyak, 1964). With momentum both errors shrink by sqrt(momentum) per epoch
    if both eigenvalues are within (1 ± sqrt(momentum))² / rate; this rate is the centre of that range.
    """
    return 2 * (1 + momentum) / float(eigenvalues[0] + eigenvalues[-1])


def batch_rate(eigenvalues: torch.Tensor, *, largest_row: float, num_rows: int, batch_size: int) -> float:
    """Return the learning rate for random batches: half the inverse of the expected smoothness
    (Gower et al., SGD: General Analysis and Improved Rates, 2019, proposition 3.8, for b-nice sampling).

    largest_row: largest squared length of a row in the coordinates of the descent.
    """
    n, b = num_rows, batch_size
    smoothness = (n * (b - 1) * float(eigenvalues[0]) + (n - b) * 2 * largest_row) / (b * (n - 1))
    return 1 / (2 * smoothness)


def _refuse_sizes(names: tuple[str, ...], sizes: np.ndarray, largest: float) -> None:
    for name, size in zip(names, sizes.tolist(), strict=True):
        if not size < largest or 0 < size <= 1 / largest:
            advice = "rescale it" if largest == MAX_MAGNITUDE else "rescale it, or use --train.dtype float64"
            raise BadInput(f"{name} reaches {size:g}, beyond {1 / largest:g} to {largest:g}: {advice}")
