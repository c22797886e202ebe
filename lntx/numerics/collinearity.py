"""Report dependent columns and refuse them. They are found elsewhere (`curvature`, `least_squares`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from lntx.errors import BadInput
from lntx.text import MAX_NAME, quoted

_LISTED = 5

BIAS = "the bias"
"""Name of the column of ones."""


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """A column that is a linear combination of others."""

    name: str
    """Name of the column."""

    shares: Mapping[str, float]
    """Coefficients of the columns in the combination; empty if the column is 0 in every row."""


def refuse(dependences: Sequence[Dependence]) -> NoReturn:
    """Raise BadInput with one line per column."""
    raise BadInput(*(f"{_sentence(dependence)}: drop it" for dependence in dependences))


def _sentence(dependence: Dependence) -> str:
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
