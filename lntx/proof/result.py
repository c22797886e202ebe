"""The result of a proof: what was checked, what was not, and what is wrong. Checks nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lntx.errors import BadInput
from lntx.proof.chain import Change
from lntx.proof.rows import Judged, Phase, Place, Row, Unchecked, in_order, share_text

if TYPE_CHECKING:
    import pandas as pd

HEAD = ("phase", "operator", "dtype", "calls", "elements", "largest share", "median")
"""Columns of the printed table."""

_KEPT_WRONG = 100


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """One thing that is wrong."""

    phase: Phase
    """Part of the step."""

    operator: str
    """The operator, the step, or the memory."""

    dtype: str
    """Format of the result; empty for the memory."""

    what: str
    """What is wrong, in one sentence."""


class Proof:
    """The result of a proof, complete at the end of its block.

    sample: number of elements of a large result to check; both ends are among them. seed: of their choice.
    """

    def __init__(self, *, sample: int = 16, seed: int | None = None) -> None:
        if sample < 2:
            raise BadInput(f"sample must be at least 2, got {sample}")
        self.sample = sample
        self.seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0] >> 1) if seed is None else seed
        self.wrong: list[Wrong] = []
        self.table: dict[tuple[Phase, str, str], Row] = {}
        self.unchecked: dict[str, Unchecked] = {}
        self.calls = 0
        self._products = [0, 0]

    @property
    def passed(self) -> bool:
        """Whether all that was checked is right, and something was checked."""
        return not self.wrong and bool(self.table)

    @property
    def reason(self) -> str | None:
        """What is wrong first, in one sentence: phase, operator, element, value, true value, bound; None if nothing."""
        if self.wrong:
            return self.wrong[0].what
        if self.table:
            return None
        if self.unchecked:
            return "no operator could be checked: what was seen has no formula"
        return "no operator was seen: put the step inside the block"

    @property
    def rows(self) -> pd.DataFrame:
        """One row per phase, operator and format."""
        import pandas as pd

        columns = ["phase", "operator", "dtype", "calls", "elements", "largest", "median", "strict"]
        return pd.DataFrame([[getattr(row, name) for name in columns] for row in self.in_order()], columns=columns)

    @property
    def operators(self) -> set[str]:
        """Names of all operators that were seen."""
        return {row.operator for row in self.table.values()} | set(self.unchecked)

    @property
    def checked_calls(self) -> float:
        """Share of the calls that compute which were checked."""
        seen = sum(row.calls for row in self.table.values())
        missed = sum(entry.calls for entry in self.unchecked.values())
        return seen / (seen + missed) if seen + missed else 0.0

    @property
    def checked_products(self) -> float:
        """Share of the multiply-adds of products, convolutions, attention and recurrent layers that were checked."""
        return self._products[0] / sum(self._products) if sum(self._products) else 1.0

    def in_order(self) -> list[Row]:
        """Return the rows by phase, the operators of most calls first."""
        return in_order(self.table.values())

    def __str__(self) -> str:
        """The table, what was not checked, and the verdict."""
        lines = [HEAD, *(row_words(row) for row in self.in_order())]
        widths = [max(len(line[k]) for line in lines) for k in range(len(HEAD))]
        lines_of_text = [
            "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        lines_of_text += [
            f"not checked: {entry.operator}, {entry.calls} calls: {entry.why}" for entry in self.unchecked.values()
        ]
        lines_of_text.append(
            f"checked: {100 * self.checked_calls:.1f} % of the calls that compute, "
            f"{100 * self.checked_products:.1f} % of the multiply-adds; sample {self.sample}, seed {self.seed}"
        )
        lines_of_text.append(
            f"{'PASS' if self.passed else 'FAIL'}  {self.reason or f'{self.calls} calls, none over its bound'}"
        )
        return "\n".join(lines_of_text)

    def add(self, phase: Phase, operator: str, dtype: str, judged: Judged, products: int = 0) -> None:
        """Take in one judged call."""
        self._products[0] += products
        key = (phase, operator, dtype)
        self.table.setdefault(key, Row(phase=phase, operator=operator, dtype=dtype)).add(judged)
        if judged.share > 1:
            assert judged.place is not None
            self.blame(phase, operator, dtype, _sentence(self.calls, operator, dtype, judged.place))

    def changed(self, phase: Phase, change: Change) -> None:
        """Take in bits that changed between two operators."""
        message = (
            f"bits changed after {change.writer} wrote them and before {change.reader} read them: look at the memory, "
            "or for code that writes to tensors without torch"
        )
        self.blame(phase, "memory", "", message)

    def blame(self, phase: Phase, operator: str, dtype: str, message: str) -> None:
        """Take in something wrong. message: what, without the phase."""
        if len(self.wrong) < _KEPT_WRONG:
            self.wrong.append(Wrong(phase=phase, operator=operator, dtype=dtype, what=f"{phase}: {message}"))

    def miss(self, operator: str, why: str, products: int = 0) -> None:
        """Take in one call that cannot be checked."""
        self.unchecked.setdefault(operator, Unchecked(operator=operator, why=why)).calls += 1
        self._products[1] += products


def row_words(row: Row) -> Sequence[str]:
    """Return a row of the table as words."""
    largest = share_text(row.largest) + (f" (strict {share_text(row.strict)})" if row.strict > row.largest else "")
    return row.phase, row.operator, row.dtype, str(row.calls), f"{row.elements:,}", largest, share_text(row.median)


def _sentence(call: int, operator: str, dtype: str, place: Place) -> str:
    slot = f"result {place.slot}" if place.slot.isdigit() else place.slot
    where = f"{slot}[{', '.join(map(str, place.index))}]"
    distance = abs(place.got - place.true)
    return (
        f"{operator} ({dtype}, call {call}): {where} is {place.got!r}, the true value is {place.true!r}; "
        f"rounding allows {place.bound:.2g}, it is {distance:.2g} away" + (f"; {place.note}" if place.note else "")
    )
