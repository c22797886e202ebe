"""Notice values of a table that look like mistakes: fill values, outliers, dates as numbers, a last row of totals, a
column that repeats the target.

Warns only; the values are used as they are. Sees each block of rows once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lntx.base.text import MAX_NAME, listed, quoted

_OUTLYING = 1e6
# What programs write for a missing value: netCDF, CF conventions, survey and weather data.
_FILL_VALUES = frozenset(
    [9.969209968386869e36, 9.96921e36, 1e20, 1e30, 1e35, 1e36, -1e30, -1e20, 1.7976931348623157e308, 2147483647.0]
    + [sign * 10.0**k for sign in (-1, 1) for k in (9, 12, 15)]
    + [sign * (10.0**k - 1) for sign in (-1, 1) for k in range(3, 10)]
    + [-2147483648.0, -32768.0, 32767.0, -888.0, -777.0, -99.0, -999.25]
)
_FEWEST_ROWS = 5
# A total is rounded to the digits of the values.
_TOTAL = 1e-3
# Rows of the first block that say how large ordinary values are.
_SAMPLE = 1000


@dataclass
class _Extreme:
    """The largest value of a column, or of its negative."""

    top: float = -np.inf
    count: int = 0
    row: int = 0
    other: float = -np.inf
    """The largest value below it."""

    def see(self, column: np.ndarray, largest: float, rows: np.ndarray, *, in_detail: bool) -> None:
        """Take in a block. in_detail: count the value, and look for the one below it."""
        if largest < self.top:
            self.other = max(self.other, largest)
            return
        if largest > self.top:
            self.other, self.count = max(self.other, self.top), 0
            self.top = largest
        if in_detail:
            places = column == largest
            if self.count == 0:
                self.row = int(rows[np.argmax(places)])
            self.count += int(places.sum())
            self.other = max(self.other, float(column[~places].max(initial=-np.inf)))


class Suspicions:
    """What looks like a mistake in the columns seen so far. target: name of the target."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._extremes: dict[str, tuple[_Extreme, _Extreme]] = {}
        self._ordinary: dict[str, float] = {}
        self._twins: set[str] | None = None
        self._dates: set[str] | None = None
        self._sums: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._last_row = 0
        self._num_rows = 0

    def see(self, block: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        """Take in a block of rows. rows: numbers of the rows in the table, from 1."""
        count = len(block[self._target])
        if not count:
            return
        self._num_rows += count
        others = [name for name in block if name != self._target] if self._twins is None else self._twins
        self._twins = {name for name in others if np.array_equal(block[name], block[self._target])}
        self._dates = {name for name in (block if self._dates is None else self._dates) if _are_dates(block[name])}
        self._last_row = int(rows[-1])
        for name, column in block.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(column.sum())
            self._last[name] = float(column[-1])
            high, low = self._extremes.setdefault(name, (_Extreme(), _Extreme()))
            largest, smallest = float(column.max()), float(column.min())
            size = max(abs(largest), abs(smallest))
            if name not in self._ordinary:
                sizes = np.unique(np.abs(column[:_SAMPLE]))
                self._ordinary[name] = float(sizes[-2]) if len(sizes) > 1 else 0.0
            outlies = size > _OUTLYING * self._ordinary[name]
            high.see(column, largest, rows, in_detail=outlies or largest in _FILL_VALUES)
            low.see(-column, -smallest, rows, in_detail=outlies or smallest in _FILL_VALUES)

    def notes(self) -> Iterator[str]:
        """Yield a sentence for each suspicion."""
        for name, (high, low) in self._extremes.items():
            for extreme, opposite, sign in ((high, low, 1.0), (low, high, -1.0)):
                why = self._why(extreme, opposite, sign)
                if why is not None:
                    rows = f"row {extreme.row:,}" if extreme.count == 1 else f"{extreme.count:,} rows"
                    first = "" if extreme.count == 1 else f", first in row {extreme.row:,}"
                    yield f"{quoted(name, MAX_NAME)} is {sign * extreme.top:g} in {rows}{first}: {why}"
        if self._num_rows >= _FEWEST_ROWS:
            for name in sorted(self._dates or ()):
                yield f"{quoted(name, MAX_NAME)} looks like dates written 20240131: these numbers are no days"
            totals = [name for name, value in self._last.items() if _is_total(value, self._sums[name])]
            if len(totals) > 1 or (totals and len(self._last) == 1):
                yield (
                    f"row {self._last_row:,} is the sum of all others in {listed(totals)}: leave a row of totals out "
                    "(data.skip_footer for a CSV file)"
                )
        for name in sorted(self._twins or ()) if self._num_rows >= _FEWEST_ROWS else ():
            yield f"{quoted(name, MAX_NAME)} repeats the target {quoted(self._target, MAX_NAME)} in every row"

    def _why(self, extreme: _Extreme, opposite: _Extreme, sign: float) -> str | None:
        if self._num_rows < _FEWEST_ROWS or not extreme.count or extreme.count * 2 > self._num_rows:
            return None
        rest = max(abs(extreme.other), abs(opposite.top))
        spread = extreme.other + opposite.top
        if sign * extreme.top in _FILL_VALUES and extreme.top - extreme.other > spread:
            return "a usual mark of a missing value, far from all others"
        if abs(extreme.top) > _OUTLYING * rest > 0:
            return f"more than {_OUTLYING:,.0f} times as large as any other value"
        return None


def _are_dates(column: np.ndarray) -> bool:
    """Return whether all values are dates from 1900 to 2100, written as year, month and day in one number."""
    if not ((column >= 19000101) & (column <= 21001231)).all():
        return False
    month, day = column // 100 % 100, column % 100
    return bool(((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all())


def _is_total(last: float, total: float) -> bool:
    """Return whether the last value of a column is the sum of all others. total: with the last one."""
    return last != 0 and abs(total - 2 * last) <= _TOTAL * abs(last)
