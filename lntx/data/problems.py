"""What is wrong with the values of a table, and the settings that get further: told at once, by column."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from lntx.base.errors import BadInput
from lntx.base.text import MAX_NAME, example, quoted
from lntx.config.schema import MAX_MAGNITUDE
from lntx.data.spelling import Profile
from lntx.data.tables import Table

_MOST_LINES = 9
_MOST_PATTERNS = 4096
# More words than this beside numbers are values of their own, not marks of a missing value.
_MOST_MARKS = 5
MOST_LEVELS = 1000
"""Levels that a category may have."""

# Sorts of numbers that are no mistake, but may be meant otherwise.
_NOTED_SORTS = ("leading zeros", "groups", "hundreds", "others")
MAX_WEIGHT = 1e30
"""Largest weight of a row, and inverse of the smallest one: sums of weighted squares must not overflow."""

# What is wrong, and what to do; {out} says how the column is left out.
_KINDS = {
    "missing": ("has no value", "fill it, leave such rows out, or leave that column out"),
    "text": ("is text", "make it a category, or {out}"),
    "words": ("is a number in other rows, and text", "name that text as a mark of a missing value, or correct it"),
    "unique": ("is text that hardly repeats", "{out}"),
    "symbol": ("has a number with a symbol", "name the symbol, and it is left out of the numbers"),
    "unit": ("has a number with a unit", "name the unit, and it is left out of the numbers"),
    "comma": ("has a comma", "read it as a decimal comma, or correct it"),
    "thousands": ("has groups of digits", "name the sign between them, or correct it"),
    "either": ("has a comma that may be of decimals or of thousands", "say which of the two, or {out}"),
    "date": ("is a date or a time", "read it as a number of days, make it a category, or {out}"),
    "either date": ("is a date whose day and month may be either way", "say which comes first, or {out}"),
    "type": ("is neither a number nor text", "{out}"),
    "mixed": ("mixes numbers and true/false", "write 1 and 0, or {out}"),
    "mixed dates": ("mixes numbers and dates", "correct it, or {out}"),
    "mixed symbols": ("has symbols of different kinds, or % in some rows only", "correct it, or {out}"),
    "infinite": ("is infinite", "correct it, name it as a mark of a missing value, or {out}"),
    "large": (f"is beyond {MAX_MAGNITUDE:g}", "correct or rescale it, name it as a mark of a missing value, or {out}"),
    "rounded": ("has a whole number beyond the digits of float64", "subtract an offset, or {out}"),
    "constant": ("is the same in every row, as the bias is", "{out}, or fit without a bias"),
    "levels": ("has too many levels for a category", "{out}"),
    "level": ("has one level only", "{out}"),
    "negative": ("is negative, as no weight may be", "correct it, or {out}"),
    "weight": (f"is a weight beyond {1 / MAX_WEIGHT:g} to {MAX_WEIGHT:g}", "rescale it"),
    "unknown": ("has a level that the model was not fitted on", ""),
}
_PREDICTING = {"missing": "fill it, or drop the row", "unknown": "correct it, or fit again with such rows"}


@dataclass
class _Count:
    rows: int
    first: int
    example: str


class Gaps:
    """Which columns have no value in the same rows, so that it can be said what leaving a column out brings.

    num_required: number of the last columns that cannot be left out.
    """

    def __init__(self, columns: Sequence[str], *, num_required: int = 1) -> None:
        self.columns, self._num_required = columns, num_required
        self.counts = np.zeros(len(columns), dtype=np.int64)
        self.num_rows = self.dropped = 0
        self._patterns: Counter[bytes] = Counter()

    def add(self, missing: np.ndarray) -> None:
        """Take in a batch: whether each value is missing, shape (n, num_columns)."""
        self.num_rows += len(missing)
        rows = missing[missing.any(axis=1)]
        self.dropped += len(rows)
        if not len(rows):
            return
        self.counts += rows.sum(axis=0)
        if len(self._patterns) <= _MOST_PATTERNS:
            packed, counts = np.unique(np.packbits(rows, axis=1), axis=0, return_counts=True)
            for pattern, count in zip(packed, counts.tolist(), strict=True):
                self._patterns[pattern.tobytes()] += count

    def by_column(self) -> dict[str, int]:
        """Return the number of missing values of each column that has one."""
        return {name: int(count) for name, count in zip(self.columns, self.counts, strict=True) if count}

    def costly(self, needed: int, without: Iterable[str] = ()) -> list[str]:
        """Return the columns to leave out, those with most gaps first, until enough rows have every value.

        needed: rows, one fewer for each column that is left out; the rows that are left are also to be half of those
        that have a target. without: columns that are left out anyway.
        """
        out = [self.columns.index(name) for name in without]
        added: list[int] = []
        has_target = self.num_rows - int(self.counts[-1])
        width = -(-len(self.columns) // 8)
        patterns = np.frombuffer(b"".join(self._patterns), dtype=np.uint8).reshape(-1, width)
        counts = np.array([*self._patterns.values()])
        for j in np.argsort(-self.counts[: -self._num_required], kind="stable").tolist():
            if len(self._patterns) > _MOST_PATTERNS:
                left = self.num_rows if 2 * self.counts[j] <= self.num_rows else 0
            else:
                mask = np.ones(len(self.columns), dtype=bool)
                mask[[*out, *added]] = False
                missing = np.unpackbits(patterns, axis=1, count=len(self.columns)).astype(bool) & mask
                left = self.num_rows - int(counts[missing.any(axis=1)].sum())
            if (left >= needed - len(out) - len(added) and 2 * left >= has_target) or not self.counts[j]:
                break
            if j not in out:
                added.append(j)
        return [self.columns[j] for j in added]


class Problems:
    """What is wrong with a table, by column, to be told at once.

    target, weight: the columns that cannot be left out; no target where nothing is fitted.
    """

    def __init__(self, table: Table, target: str | None, weight: str | None = None) -> None:
        self._table, self._target = table, target
        self._roles = {name: role for name, role in ((target, "target"), (weight, "weight")) if name is not None}
        self._counts: dict[tuple[str, str], _Count] = {}
        self.profiles: dict[str, Profile] = {}
        # Text of numbers that cannot be used: marks of a missing value, perhaps.
        self._marks: dict[str, set[str]] = {}
        # By column and sort of value (numbers, truths, dates, each symbol): which columns mix sorts shows at the end.
        self._sorts: dict[str, dict[str, _Count]] = {}

    def add(self, column: str, kind: str, rows: np.ndarray, first_row: int, values: Any = None) -> None:
        """Note a problem. rows: whether each row of a batch has it. values: of the batch; the first is shown."""
        places = np.flatnonzero(rows)
        if not len(places):
            return
        count = self._counts.get((column, kind))
        if count is None:
            place = int(places[0])
            detail = "" if values is None else _example(values, place)
            count = self._counts[column, kind] = _Count(0, first_row + place, detail)
        count.rows += len(places)

    def add_column(self, column: str, kind: str, detail: str = "") -> None:
        """Note a problem of a column as a whole, unless it has another: the rest may follow from that."""
        if column not in {name for name, _ in self._all()}:
            self._counts[column, kind] = _Count(0, 0, detail)

    def note_marks(self, column: str, texts: Iterable[str]) -> None:
        """Note the text of numbers that cannot be used."""
        known = self._marks.setdefault(column, set())
        known.update(texts if len(known) <= _MOST_MARKS else ())

    def note_sort(self, column: str, sort: str, rows: np.ndarray, first_row: int) -> None:
        """Note which rows of a batch hold values of one sort."""
        places = np.flatnonzero(rows)
        if len(places):
            count = self._sorts.setdefault(column, {}).setdefault(sort, _Count(0, first_row + int(places[0]), ""))
            count.rows += len(places)

    def profile(self, column: str, text: pa.Array, missing: np.ndarray, first_row: int) -> None:
        """Take in the text of a column that is no number in some rows. Earlier batches had numbers."""
        if column not in self.profiles:
            self.profiles[column] = Profile(rows=first_row - 1, kinds=Counter(number=first_row - 1))
        self.profiles[column].add(text, pa.array(missing), self._table.spelling)

    def columns_with(self, *sorts: str, without: str = "") -> list[str]:
        """Return the columns that hold values of all these sorts, and none of another."""
        return [column for column, has in self._sorts.items() if without not in has and has.keys() >= {*sorts}]

    def _all(self) -> dict[tuple[str, str], _Count]:
        every = dict(self._counts)
        for column, sorts in self._sorts.items():
            plain = [sort for sort in ("numbers", "truths", "dates") if sort in sorts]
            symbols = [sort for sort in sorts if sort not in (*plain, "()", *_NOTED_SORTS)]
            if len(plain) > 1:
                every[column, "mixed" if "truths" in plain else "mixed dates"] = sorts[plain[1]]
            elif len(symbols) > 1 or (symbols == ["%"] and sorts["%"].rows < sorts["numbers"].rows):
                every[column, "mixed symbols"] = sorts[symbols[-1]]
        return every

    def __bool__(self) -> bool:
        return bool(self._all())

    def refuse(self, gaps: Gaps | None = None) -> NoReturn:
        """Tell every problem, the commonest first, and what to add. gaps: of the rows. Raises: BadInput."""
        every = {(column, self._kind(column, kind)): count for (column, kind), count in self._all().items()}
        ordered = sorted(every.items(), key=lambda item: -item[1].rows)
        lines = [self._line(*where, count) for where, count in ordered[:_MOST_LINES]]
        if len(ordered) > _MOST_LINES:
            lines.append(f"… and {len(ordered) - _MOST_LINES} more problems")
        advice = self._advice([where for where, _ in ordered], gaps) if self._target is not None else {}
        raise BadInput(f"{self._table.where}: {lines[0]}", *lines[1:], advice=advice)

    def _kind(self, column: str, kind: str) -> str:
        """Return what the text of a column is, now that all of it was seen."""
        profile = self.profiles.get(column)
        if kind != "text" or profile is None or self._target is None:
            return kind
        kinds, words = profile.kinds, profile.kinds["text"]
        if len(profile.has("unit")) > 1:
            # Several units are none.
            words += kinds["unit"]
        are_marks = len(profile.words) <= _MOST_MARKS and max(map(len, profile.words), default=0) <= MAX_NAME
        if 2 * words <= profile.rows and are_marks:
            for likely in ("date", "symbol", "unit", "thousands", "comma", "either"):
                if kinds[likely] and not (likely == "unit" and len(profile.has("unit")) > 1):
                    return "either date" if likely == "date" and len(self._orders(profile)) > 1 else likely
            return "words"
        if len(profile.distinct) == 1:
            return "level"
        return "unique" if hardly_repeats(len(profile.distinct), profile.rows) else "text"

    def _orders(self, profile: Profile) -> list[str]:
        every = [set(orders.split()) for orders in profile.has("date")]
        fitting = [
            order for order in ("day-first", "month-first", "year-first") if all(order in orders for orders in every)
        ]
        return ["year-first"] if "year-first" in fitting else fitting

    def _line(self, column: str, kind: str, count: _Count) -> str:
        what, remedy = _KINDS[kind]
        if self._target is None:
            remedy = _PREDICTING.get(kind, "the model was fitted on numbers there: correct it")
        elif column in self._roles:
            remedy = remedy.replace("make it a category, or {out}", "{out}").replace("make it a category, ", "")
        rows = "" if count.rows == 0 else f" in row {count.first}"
        if count.rows > 1:
            rows = f" in {count.rows:,} rows, first in row {count.first}"
        out = f"choose another {self._roles[column]}" if column in self._roles else "leave it out"
        return f"column {quoted(column, MAX_NAME)} {what}{rows}{count.example}: {remedy.format(out=out)}"

    def _advice(self, every: Sequence[tuple[str, str]], gaps: Gaps | None) -> dict[str, Any]:
        spelling, advice = self._table.spelling, dict[str, Any]()
        for column, kind in every:
            if kind in ("text", "date", "either date") and self._table.names.count(column) > 1:
                kind = "type"  # noqa: PLW2901 (it can only be left out)
            if column not in advice.get("data.exclude", ()):
                for key, value in self._settings(column, kind).items():
                    if isinstance(value, list):
                        advice[key] = [
                            *advice.get(key, []),
                            *(item for item in value if item not in advice.get(key, [])),
                        ]
                    else:
                        advice.setdefault(key, value)
        out = advice.get("data.exclude", [])
        if not self._roles.keys().isdisjoint(out):
            return {}
        if gaps is not None and any(kind == "missing" and column not in out for column, kind in every):
            costly = gaps.costly(len(gaps.columns), out)
            if costly:
                advice["data.exclude"] = out = [*out, *costly]
            if any(name not in out for name in gaps.by_column()):
                advice["data.missing"] = "drop"
        if advice.get("data.categories"):
            advice["data.categories"] = [name for name in advice["data.categories"] if name not in out]
        if advice.get("data.decimal") == "," and advice.get("data.thousands", spelling.thousands) == ",":
            # What may be either is a decimal where another column says so.
            is_sure = spelling.thousands or any("," in profile.has("thousands") for profile in self.profiles.values())
            del advice["data.decimal" if is_sure else "data.thousands"]
        return {key: value for key, value in advice.items() if value != []}

    def _settings(self, column: str, kind: str) -> dict[str, Any]:
        """Return what to add for one problem."""
        profile = self.profiles.get(column) or Profile()
        hidden = os.environ.get("LNTX_VALUES") == "hidden"
        out: dict[str, Any] = {"data.exclude": [column]}
        if kind == "missing":
            return {}
        if kind == "text":
            totals = {} if hidden or not profile.totals else {"data.nulls": [*profile.totals], "data.missing": "drop"}
            return {"data.categories": [column], **totals} if column not in self._roles else out
        if kind in ("infinite", "large"):
            marks = self._marks.get(column, set())
            is_few = 0 < len(marks) <= _MOST_MARKS and not hidden
            if not is_few:
                return out
            return {"data.nulls": sorted(marks), "data.missing": "drop"}
        settings: dict[str, Any]
        if kind in ("date", "either date"):
            orders = self._orders(profile) if profile.rows else ["year-first"]
            settings = {"data.dates": orders[0]} if orders and self._table.spelling.dates == "refuse" else {}
        elif kind in ("symbol", "unit", "thousands", "comma", "either", "words"):
            settings = _signs(profile)
        else:
            return out
        if (settings or kind == "words") and profile.words and not hidden:
            settings |= {"data.nulls": [*profile.words], "data.missing": "drop"}
        return settings or out


def _signs(profile: Profile) -> dict[str, Any]:
    """Return the signs with which the numbers of a column are written."""
    signs: dict[str, Any] = {}
    if profile.has("symbol") or len(profile.has("unit")) == 1:
        signs["data.symbols"] = [*profile.has("symbol"), *profile.has("unit")]
    if profile.has("comma") and 2 * profile.kinds["number"] <= profile.rows:
        signs["data.decimal"] = ","
    if profile.has("thousands"):
        signs["data.thousands"] = profile.has("thousands")[0]
        signs |= {"data.decimal": ","} if signs["data.thousands"] == "." else {}
    elif profile.has("either") and "data.decimal" not in signs:
        signs["data.thousands"] = ","
    return signs


def hardly_repeats(num_levels: int, num_rows: int) -> bool:
    """Return whether text tells rows apart instead of grouping them: fewer than two rows a level."""
    is_unique = num_levels == num_rows and num_levels >= 5
    return num_levels > MOST_LEVELS or is_unique or (2 * num_levels > num_rows and num_levels >= 10)


def _example(values: Any, place: int) -> str:
    value = values[place]
    return f" ({float(value):g})" if isinstance(values, np.ndarray) else example(value.as_py())


def refuse_too_few(
    table: Table, num_rows: int, num_terms: int, levels: Mapping[str, Sequence[str]], gaps: Gaps, *, bias: bool
) -> None:
    """Refuse fewer rows than weights, with what costs them. Raises: BadInput."""
    num_weights = num_terms + bias
    if num_rows >= num_weights and num_rows > 0:
        return
    which = ", ".join(f"{quoted(name, MAX_NAME)} in {count:,}" for name, count in gaps.by_column().items())
    out = gaps.costly(num_weights)
    if num_rows == 0:
        message = f"{table.where} has no rows" + (f" without a missing value: {which}" if which else "")
    else:
        rows = "1 row is" if num_rows == 1 else f"{num_rows} rows are"
        message = f"{rows} too few for {num_weights} weights{' (bias included)' if bias else ''}"
        message += f": rows without a value were left out: {which}" if which else ": add rows"
        if not out and levels:
            name = max(levels, key=lambda category: len(levels[category]))
            message += f", or leave out {quoted(name, MAX_NAME)}, a category of {len(levels[name])} levels"
            out = [name] if len(gaps.columns) > 2 else []
    raise BadInput(message, advice={"data.exclude": out} if out and len(out) < len(gaps.columns) - 1 else None)
