"""Turn the values of a table's columns into float64, and count what cannot be turned.

A column is a number (integers, floats, decimals, true/false as 1/0, or the text of a number in a CSV file), or a
category, which becomes a column of 0 and 1 for each of its levels but the first. Nothing is rounded silently.
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lntx.config.schema import MAX_MAGNITUDE
from lntx.data.tables import Csv, Table
from lntx.errors import BadInput
from lntx.text import MAX_NAME, quoted

# Integers beyond this may not be representable in float64.
_EXACT = 2.0**53

# Integers with fewer digits are always exact in float64; no float64 integer has more digits than the maximum.
_CERTAIN_DIGITS, _MOST_DIGITS = 16, 400

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(?i:inf|infinity|nan)$"
_COMMA_NUMBER = r"^[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.+Z-]*)?$|^[0-9]{1,2}[./][0-9]{1,2}[./][0-9]{2,4}$"

_MOST_TOLD = 12

# What is wrong, and what to do. {column} is its quoted name.
_OUT = "leave it out with --data.exclude {column}"
_KINDS = {
    "missing": ("has no value", "fill it, or leave such rows out with --data.missing drop"),
    "text": ("is text", "make it a category with --data.categories {column}, {nulls}or " + _OUT),
    "comma": ("has a comma", "if it is a decimal comma, read it with --data.decimal ,; if not, remove it"),
    "thousands": ("has a comma", "remove it"),
    "date": ("is a date or a time", "turn it into a number, such as days since a day, or " + _OUT),
    "type": ("is neither a number nor text", _OUT),
    "mixed": ("mixes numbers and true/false", "write 1 and 0, or " + _OUT),
    "infinite": ("is infinite", "correct it, {nulls}or " + _OUT),
    "large": (f"is beyond {MAX_MAGNITUDE:g}", "correct or rescale it, {nulls}or " + _OUT),
    "rounded": ("has a whole number beyond the digits of float64", "subtract an offset, or " + _OUT),
    "constant": ("is the same in every row, as the bias is", _OUT + ", or fit without a bias"),
    "levels": ("has too many levels for a category", _OUT),
    "level": ("has one level only", _OUT),
    "unknown": ("has a level that the model was not fitted on", ""),
}
_PREDICTING = {"missing": "fill it, or drop the row", "unknown": "correct it, or fit again with such rows"}


@dataclass
class _Count:
    rows: int
    first: int
    example: str


class Problems:
    """What is wrong with a table, by column, to be told at once.

    target: the column that cannot be left out; None where nothing is fitted.
    """

    def __init__(self, table: Table, target: str | None) -> None:
        self._table, self._target = table, target
        self._found: dict[tuple[str, str], _Count] = {}
        # Columns with true and false, and columns with numbers: which one is both shows at the end.
        self._truths: dict[str, _Count] = {}
        self._numbers: set[str] = set()

    def add(self, column: str, kind: str, rows: np.ndarray, first_row: int, values: Any = None) -> None:
        """Note a problem. rows: whether each row of a batch has it. values: numbers, the first of which is told."""
        places = np.flatnonzero(rows)
        if not len(places):
            return
        count = self._found.get((column, kind))
        if count is None:
            place = int(places[0])
            example = "" if values is None else f" ({float(values[place]):g})"
            count = self._found[column, kind] = _Count(0, first_row + place, example)
        count.rows += len(places)

    def add_column(self, column: str, kind: str) -> None:
        """Note a problem of a column as a whole, unless it has another: the rest may follow from that."""
        if column not in {*(name for name, _ in self._found), *(self._numbers & self._truths.keys())}:
            self._found[column, kind] = _Count(0, 0, "")

    def note_truths(self, column: str, truths: np.ndarray, has_numbers: bool, first_row: int) -> None:
        """Note which rows of a batch are true or false, and whether others are numbers."""
        if has_numbers:
            self._numbers.add(column)
        places = np.flatnonzero(truths)
        if len(places):
            count = self._truths.setdefault(column, _Count(0, first_row + int(places[0]), ""))
            count.rows += len(places)

    def __bool__(self) -> bool:
        return bool(self._found or self._numbers & self._truths.keys())

    def refuse(self) -> NoReturn:
        """Tell every problem, the commonest first. Raises: BadInput."""
        for column in self._numbers & self._truths.keys():
            self._found[column, "mixed"] = self._truths[column]
        ordered = sorted(self._found.items(), key=lambda item: -item[1].rows)
        lines = [self._line(*where, count) for where, count in ordered[:_MOST_TOLD]]
        if len(ordered) > _MOST_TOLD:
            lines.append(f"… and {len(ordered) - _MOST_TOLD} more problems")
        raise BadInput(f"{self._table.where}: {lines[0]}", *lines[1:])

    def _line(self, column: str, kind: str, count: _Count) -> str:
        name = quoted(column, MAX_NAME)
        what, remedy = _KINDS[kind]
        if self._target is None:
            remedy = _PREDICTING.get(kind, "the model was fitted on numbers there: correct it")
        elif column == self._target and "--data.exclude" in remedy:
            remedy = "correct it (separators of thousands are no part of a number), or choose another target"
        nulls = "" if self._table.csv is None else "take the word for a missing value with --data.nulls, "
        advice = remedy.format(column=name, nulls=nulls)
        rows = "" if count.rows == 0 else f" in row {count.first}{count.example}"
        if count.rows > 1:
            rows = f" in {count.rows:,} rows, first in row {count.first}{count.example}"
        return f"column {name} {what}{rows}: {advice}"


def numbers(
    column: pa.Array, name: str, csv: Csv | None, problems: Problems, first_row: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a batch of a column, float64, and whether each is missing, both of shape (n,).

    csv: how its text is written, for a CSV file. first_row: number of the first row, from 1. A missing value or one
    with a problem is 0.
    """
    kind = column.type
    if csv is not None:
        values, missing = _from_text(column, name, csv, problems, first_row)
    else:
        missing = column.is_null().to_numpy(zero_copy_only=False)
        if pa.types.is_boolean(kind):
            values = pc.fill_null(column, False).cast(pa.uint8()).to_numpy(zero_copy_only=False).astype(np.float64)
        elif pa.types.is_integer(kind):
            values = _from_integers(pc.fill_null(column, 0), name, problems, first_row)
        elif pa.types.is_floating(kind):
            values = pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False).copy()
        elif pa.types.is_decimal(kind):
            values = _from_decimals(column, name, problems, first_row)
        else:
            inner = kind.value_type if pa.types.is_dictionary(kind) else kind
            what = "text" if _is_text(inner) else "date" if pa.types.is_temporal(inner) else "type"
            if pa.types.is_dictionary(kind) and (pa.types.is_integer(inner) or pa.types.is_floating(inner)):
                what = "text"
            if not pa.types.is_null(kind):
                problems.add(name, what, ~missing, first_row)
            return np.zeros(len(column)), missing
    nan = np.isnan(values)
    missing |= nan
    infinite = np.isinf(values)
    problems.add(name, "infinite", infinite, first_row, values)
    large = ~infinite & (np.abs(values) >= MAX_MAGNITUDE)
    problems.add(name, "large", large, first_row, values)
    values[nan | infinite | large] = 0.0
    return values, missing


def labels(
    column: pa.Array, name: str, csv: Csv | None, problems: Problems, first_row: int
) -> tuple[list[str | None], np.ndarray]:
    """Return the values of a batch of a category as text, and whether each is missing. Numbers that are equal give the
    same text, and so do true and false however they are written.
    """
    if csv is not None:
        text = pc.utf8_trim_whitespace(column)
        missing = pc.is_in(text, pa.array(csv.nulls)).to_numpy(zero_copy_only=False)
    else:
        plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        kind = plain.type
        missing = plain.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
        text = pa.nulls(len(plain), pa.string())
        try:
            if isinstance(kind, pa.BaseExtensionType):
                problems.add(name, "type", ~missing, first_row)
            elif pa.types.is_temporal(kind):
                # Their text has no unit: another unit would pass for the same level.
                problems.add(name, "date", ~missing, first_row)
            elif pa.types.is_floating(kind) or pa.types.is_decimal(kind):
                text = pa.array(
                    [None if value is None else _spelled(value) for value in plain.to_pylist()], pa.string()
                )
            elif not pa.types.is_null(kind):
                text = plain.cast(pa.string())
        except pa.ArrowException:
            problems.add(name, "type", ~missing, first_row)
    lower = pc.utf8_lower(text)
    is_truth = pc.is_in(lower, pa.array(["true", "false"]))
    texts: list[str | None] = pc.if_else(is_truth, lower, text).to_pylist()
    return texts, missing


def _indicators(
    values: Sequence[str | None], levels: Sequence[str], name: str, gaps: np.ndarray, problems: Problems, first_row: int
) -> list[np.ndarray]:
    """Return a column of 0 and 1 for each level but the first."""
    places = {level: k for k, level in enumerate(levels)}
    codes = np.array([places.get(value, -1) if value is not None else -1 for value in values], dtype=np.int64)
    problems.add(name, "unknown", (codes < 0) & ~gaps, first_row)
    return [(codes == k).astype(np.float64) for k in range(1, len(levels))]


def _spelled(number: float | decimal.Decimal) -> str:
    """Return the shortest text of a number: the same for 2, 2.0 and 2.00, and for 0 and -0."""
    if isinstance(number, decimal.Decimal):
        return f"{number.normalize() + 0:f}"
    return str(int(number)) if abs(number) < _EXACT and number == int(number) else repr(number)


def terms_of(columns: Sequence[str], levels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the names of the terms that columns become: a category's are called `column=level`."""
    return tuple(
        term
        for column in columns
        for term in ([f"{column}={level}" for level in levels[column][1:]] if column in levels else [column])
    )


def read_terms(
    batch: Sequence[pa.Array],
    columns: Sequence[str],
    levels: Mapping[str, Sequence[str]],
    table: Table,
    problems: Problems,
    first_row: int,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the terms that the columns of a batch become, and the missing values, shape (n, len(columns)).

    batch: the columns, in that order.
    """
    read: list[tuple[Any, np.ndarray]] = []
    for array, name in zip(batch, columns, strict=True):
        convert = labels if name in levels else numbers
        read.append(convert(array, name, table.csv, problems, first_row))
    gaps: np.ndarray = np.stack([missing for _, missing in read], axis=1)
    has_gap = np.asarray(gaps.any(axis=1))
    terms: list[np.ndarray] = []
    for name, (values, _) in zip(columns, read, strict=True):
        if isinstance(values, list):
            # A row with a gap is not used: its levels need not be known.
            terms += _indicators(values, levels[name], name, has_gap, problems, first_row)
        else:
            terms.append(values)
    return terms, gaps


def _is_text(kind: pa.DataType) -> bool:
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(kind) for check in checks)


def _from_text(
    column: pa.Array, name: str, csv: Csv, problems: Problems, first_row: int
) -> tuple[np.ndarray, np.ndarray]:
    text = pc.utf8_trim_whitespace(column)
    missing = pc.is_in(text, pa.array(csv.nulls)).to_numpy(zero_copy_only=False)
    if csv.decimal != ".":
        # A point has no meaning there: it is left to be refused.
        spelled = pc.replace_substring(text, csv.decimal, ".")
        text = pc.if_else(pc.match_substring(text, "."), pa.scalar("?"), spelled)
    filled = pc.if_else(pa.array(missing), pa.scalar("0"), text)
    try:
        values = pc.cast(filled, pa.float64()).to_numpy(zero_copy_only=False).copy()
        problems.note_truths(name, np.zeros(0, dtype=bool), bool((~missing).any()), first_row)
    except pa.ArrowInvalid:
        filled, values = _readable_numbers(filled, missing, name, csv, problems, first_row)
    large = np.flatnonzero(np.abs(values) >= _EXACT)
    rounded = np.zeros(len(values), dtype=bool)
    rounded[[j for j in large if _is_rounded(filled[int(j)].as_py())]] = True
    problems.add(name, "rounded", rounded, first_row)
    return values, missing


def _readable_numbers(
    text: pa.Array, missing: np.ndarray, name: str, csv: Csv, problems: Problems, first_row: int
) -> tuple[pa.Array, np.ndarray]:
    """Read what can be read of text, one value of which is no number; the rest becomes 0."""

    def matches(pattern: str) -> np.ndarray:
        matching: np.ndarray = pc.match_substring_regex(text, pattern).to_numpy(zero_copy_only=False)
        return matching

    is_number = matches(_NUMBER)
    is_true, is_false = matches("^(?i:true)$"), matches("^(?i:false)$")
    is_truth = is_true | is_false
    problems.note_truths(name, is_truth, bool((is_number & ~missing).any()), first_row)
    left = ~(is_number | is_truth)
    for kind, pattern in (("comma", _COMMA_NUMBER), ("date", _DATE)):
        if kind == "comma" and csv.decimal == ",":
            continue
        matching = left & matches(pattern)
        problems.add(name, "thousands" if kind == "comma" and csv.delimiter == "," else kind, matching, first_row)
        left &= ~matching
    problems.add(name, "text", left, first_row)
    readable = pc.if_else(pa.array(is_number), text, pa.scalar("0"))
    values = pc.cast(readable, pa.float64()).to_numpy(zero_copy_only=False).copy()
    values[is_true] = 1.0
    return readable, values


def _from_integers(column: pa.Array, name: str, problems: Problems, first_row: int) -> np.ndarray:
    whole = column.to_numpy(zero_copy_only=False)
    values: np.ndarray = whole.astype(np.float64)
    # Rounding to float64 can give 2^63 or 2^64, which overflow the integer type in the conversion back.
    inside = (values < 2.0**63) | ((whole.dtype.kind == "u") & (values < 2.0**64))
    same = np.zeros(len(values), dtype=bool)
    same[inside] = values[inside].astype(whole.dtype) == whole[inside]
    problems.add(name, "rounded", ~same, first_row)
    return values


def _from_decimals(column: pa.Array, name: str, problems: Problems, first_row: int) -> np.ndarray:
    exact = [decimal.Decimal(0) if number is None else number for number in column.to_pylist()]
    rounded = [abs(value) >= _EXACT and value == int(value) and int(float(value)) != int(value) for value in exact]
    problems.add(name, "rounded", np.array(rounded, dtype=bool), first_row)
    # pyarrow's cast of decimals is wrong in the last bits; Python's is exact.
    return np.array([float(value) for value in exact], dtype=np.float64)


def _is_rounded(text: str) -> bool:
    """Return whether text is an integer, given to all digits, that float64 cannot hold; 1e23 gives only one digit."""
    if sum(sign.isdigit() for sign in text.lower().split("e")[0]) < _CERTAIN_DIGITS or len(text) > _MOST_DIGITS:
        return False
    try:
        exact = decimal.Decimal(text.strip())
        return exact == exact.to_integral_value() and decimal.Decimal(float(exact)) != exact
    except (decimal.InvalidOperation, OverflowError):
        return False
