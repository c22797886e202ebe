"""The result of a proof: what was checked, what was not, and what is wrong. Checks nothing."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lntx.base.errors import BadInput, LntxError, WrongAnswer
from lntx.base.text import align
from lntx.proof.chain import Change
from lntx.proof.operators.rows import Judged, Phase, Place, Row, Unchecked, in_order, share_text
from lntx.proof.whereabouts import Whereabouts

if TYPE_CHECKING:
    import pandas as pd
    import torch

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

    call: int
    """Number of the call of an operator, from 1."""

    index: tuple[int, ...] | None
    """Index of the element that is furthest from the truth; None if no single element is wrong."""

    value: float | None
    """Its computed value."""

    true: float | None
    """Its true value."""

    bound: float | None
    """Largest distance between them that rounding allows."""

    module: str | None
    """Path of the module in the model, such as layers.3.attn, in backward that of the forward call; of a step of an
    optimiser, the name of the parameter; None outside a model."""

    file: str | None
    """File of the line of the program that was running, in backward that of the forward call; None if it is not
    known."""

    line: int | None
    """Number of that line."""


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
        self.whereabouts = Whereabouts()

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

    def require(self, *, calls: float = 0.0, products: float = 0.0) -> None:
        """Raise if too little was checked. calls, products: least shares of the calls that compute and of the
        multiply-adds, in 0..1.

        Raises: LntxError: with what was not checked.
        """
        for name, share, least in (
            ("calls that compute", self.checked_calls, calls),
            ("multiply-adds", self.checked_products, products),
        ):
            if share < least:
                missed = ", ".join(sorted(self.unchecked)[:10]) or "nothing was seen"
                message = f"{100 * share:.1f} % of the {name} were checked, {100 * least:g} % are required"
                raise LntxError(f"{message}; not checked: {missed} (proof.unchecked says why)")

    def raise_if_failed(self) -> None:
        """Raise WrongAnswer, with the reason, if the proof failed."""
        if not self.passed:
            raise WrongAnswer(self.reason or "")

    def to_json(self) -> str:
        """Return the verdict, what is wrong, the table, and what was not checked, as one JSON object."""
        rows = self.rows.to_dict("records")
        unchecked = {name: {"why": entry.why, "calls": entry.calls} for name, entry in self.unchecked.items()}
        values = {
            "passed": self.passed,
            "reason": self.reason,
            "wrong": [dataclasses.asdict(wrong) for wrong in self.wrong],
            "rows": rows,
            "unchecked": unchecked,
            "calls": self.calls,
            "checked_calls": self.checked_calls,
            "checked_products": self.checked_products,
            "sample": self.sample,
            "seed": self.seed,
        }
        return json.dumps(_finite(values), indent=1)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._verdict}>"

    @property
    def _verdict(self) -> str:
        return f"{'PASS' if self.passed else 'FAIL'}  {self.reason or f'{self.calls} calls, none over its bound'}"

    def in_order(self) -> list[Row]:
        """Return the rows by phase, the operators of most calls first."""
        return in_order(self.table.values())

    def __str__(self) -> str:
        """The table, what was not checked, and the verdict."""
        lines = align([HEAD, *(row_words(row) for row in self.in_order())])
        lines += [
            f"not checked: {entry.operator}, {entry.calls} calls: {entry.why}" for entry in self.unchecked.values()
        ]
        lines.append(
            f"checked: {100 * self.checked_calls:.1f} % of the calls that compute, "
            f"{100 * self.checked_products:.1f} % of the multiply-adds; sample {self.sample}, seed {self.seed}"
        )
        if self.wrong and self.wrong[0].file is not None:
            lines.append(f"first seen at {self.wrong[0].file}, line {self.wrong[0].line}")
        lines.append(self._verdict)
        return "\n".join(lines)

    def add(
        self,
        phase: Phase,
        operator: str,
        dtype: str,
        judged: Judged,
        products: int = 0,
        parameter: torch.Tensor | None = None,
    ) -> None:
        """Take in one judged call. parameter: the one that a step of an optimiser wrote."""
        self._products[0] += products
        key = (phase, operator, dtype)
        self.table.setdefault(key, Row(phase=phase, operator=operator, dtype=dtype)).add(judged)
        if judged.share > 1:
            assert judged.place is not None
            self.blame(
                phase, operator, dtype, _sentence(self.calls, operator, dtype, judged.place), judged.place, parameter
            )

    def changed(self, phase: Phase, change: Change) -> None:
        """Take in bits that changed between two operators."""
        message = (
            f"bits changed after {change.writer} wrote them and before {change.reader} read them: look at the memory, "
            "or for code that writes to tensors without torch"
        )
        self.blame(phase, "memory", "", message)

    def blame(
        self,
        phase: Phase,
        operator: str,
        dtype: str,
        message: str,
        place: Place | None = None,
        parameter: torch.Tensor | None = None,
    ) -> None:
        """Take in something wrong. message: what, without the phase. place: the element, if it is a single one.
        parameter: the one that a step of an optimiser wrote.
        """
        if len(self.wrong) == _KEPT_WRONG:
            return
        where = self.whereabouts.now()
        if parameter is not None:
            where = where._replace(module=self.whereabouts.parameter(parameter))
        wrong = Wrong(
            phase=phase,
            operator=operator,
            dtype=dtype,
            what=f"{phase}: {message}" + (f" (at {where})" if self.whereabouts.is_following and str(where) else ""),
            call=self.calls,
            index=None if place is None else place.index,
            value=None if place is None else place.got,
            true=None if place is None else place.true,
            bound=None if place is None else place.bound,
            module=where.module,
            file=where.file,
            line=where.line,
        )
        self.wrong.append(wrong)

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


def _finite(value: Any) -> Any:
    """Return a value with text in place of numbers that JSON has not."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
