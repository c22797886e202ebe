"""Find columns that depend on others, in the R of a QR factorisation, and refuse them or too few rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from lntx.base.errors import BadInput
from lntx.base.text import MAX_NAME, quoted

_LISTED = 5
# A column this close to a linear combination of others, relative to its length, is one up to rounding.
_DEPENDENT = 1e-14
# A column whose part in a combination is below this, relative to the lengths, contributes only rounding.
_NO_SHARE = 1e-6

BIAS = "the bias"
"""Name of the column of ones."""


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """A column that is a linear combination of others."""

    name: str
    """Name of the column."""

    shares: Mapping[str, float]
    """Coefficients of the columns in the combination; empty if the column is 0 in every row."""


def dependences(factor: np.ndarray, names: Sequence[str]) -> list[Dependence]:
    """Return the columns that depend on those before them, up to rounding.

    factor: R of their QR factorisation, float64, shape (p, p), or fewer rows if there are fewer. names: one per column.
    """
    lengths = np.linalg.norm(factor, axis=0)
    every, independent = [], [*range(0)]
    for j, name in enumerate(names):
        left = float(np.linalg.norm(factor[j:, j])) if j < len(factor) else 0.0
        if left > _DEPENDENT * lengths[j]:
            independent.append(j)
            continue
        shares: dict[str, float] = {}
        if lengths[j] > 0:
            solution = np.linalg.lstsq(
                factor[:, independent] / lengths[independent], factor[:, j] / lengths[j], rcond=None
            )[0]
            shares = {
                names[k]: float(share * lengths[j] / lengths[k])
                for k, share in zip(independent, solution, strict=True)
                if abs(share) > _NO_SHARE
            }
        every.append(Dependence(name=name, shares=shares))
    return every


def refuse(dependent: Sequence[Dependence]) -> NoReturn:
    """Raise BadInput with one line per column."""
    raise BadInput(*map(describe, dependent), advice={"data.dependent": "drop"})


def describe(dependence: Dependence) -> str:
    """Return what a column depends on, as a sentence without its full stop."""
    feature, shares = f"feature {quoted(dependence.name, MAX_NAME)}", dependence.shares
    others = [quoted(name, MAX_NAME) for name in shares if name != BIAS]
    if not shares:
        return f"{feature} is 0 in every row"
    if not others:
        return f"{feature} is constant ({shares[BIAS]:.12g}), and so is the bias"
    if len(shares) == 1 and abs(next(iter(shares.values())) - 1) < 1e-9:
        return f"{feature} duplicates {others[0]}"
    parts = [*others, BIAS] if BIAS in shares else others
    listed = ", ".join(parts[:_LISTED]) + (f" and {len(parts) - _LISTED} more" if len(parts) > _LISTED else "")
    return f"{feature} is, to 14 digits, a linear combination of {listed}"


def refuse_too_few(num_rows: int, num_weights: int, *, bias: bool) -> None:
    """Refuse fewer rows than weights. bias: whether the weights include a bias.

    Raises: BadInput: there are fewer rows than weights.
    """
    if num_rows < num_weights:
        rows = "1 row is" if num_rows == 1 else f"{num_rows} rows are"
        raise BadInput(f"{rows} too few for {num_weights} weights{' (bias included)' if bias else ''}: add rows")
