"""Turn the values of a table's columns into float64, and count what cannot be turned.

A column is a number (integers, floats, decimals, true/false as 1/0, or the text of a number in a CSV file), or a
category, which becomes a column of 0 and 1 for each of its levels but the first. Nothing is rounded silently.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lntx.config.schema import MAX_MAGNITUDE
from lntx.data.problems import Problems
from lntx.data.spelling import NUMBER, microseconds
from lntx.data.tables import Table

# Integers beyond this may not be representable in float64.
_EXACT = 2.0**53

# Integers with fewer digits are always exact in float64; no float64 integer has more digits than the maximum.
_CERTAIN_DIGITS, _MOST_DIGITS = 16, 400

_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def numbers(
    column: pa.Array, name: str, table: Table, problems: Problems, first_row: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a batch of a column, float64, and whether each is missing, both of shape (n,).

    first_row: number of the first row, from 1. A missing value or one with a problem is 0.
    """
    text = None
    if pa.types.is_dictionary(column.type):
        inner = column.type.value_type
        # A category is one, whatever its levels are.
        is_number = pa.types.is_integer(inner) or pa.types.is_floating(inner)
        column = column.dictionary_decode().cast(pa.string() if is_number else inner)
    if _is_text(column.type):
        text = pc.utf8_trim_whitespace(pc.fill_null(column.cast(pa.string()), ""))
        missing = _is_missing(text, table)
        if not table.is_text and not table.spelling.converts:
            problems.add(name, "text", ~missing, first_row, text)
            problems.profile(name, text, missing, first_row)
            return np.zeros(len(column)), missing
        values = _from_text(text, missing, name, table, problems, first_row)
    else:
        missing = column.is_null().to_numpy(zero_copy_only=False)
        values = _from_type(column, missing, name, table, problems, first_row)
    return _usable(values, missing, text, name, problems, first_row)


def _from_type(
    column: pa.Array, missing: np.ndarray, name: str, table: Table, problems: Problems, first_row: int
) -> np.ndarray:
    kind = column.type
    if pa.types.is_boolean(kind):
        truths: np.ndarray = pc.fill_null(column, False).cast(pa.uint8()).to_numpy(zero_copy_only=False)
        return truths.astype(np.float64)
    if pa.types.is_integer(kind):
        return _from_integers(pc.fill_null(column, 0), name, problems, first_row)
    if pa.types.is_floating(kind):
        values: np.ndarray = pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False)
        return values.copy()
    if pa.types.is_decimal(kind):
        return _from_decimals(column, name, problems, first_row)
    days = _days(column)
    if days is not None and table.spelling.dates != "refuse":
        problems.note_sort(name, "dates", ~missing, first_row)
        return np.where(missing, 0.0, days)
    if not pa.types.is_null(kind):
        problems.add(name, "type" if days is None else "date", ~missing, first_row)
    return np.zeros(len(column))


def _usable(
    values: np.ndarray, missing: np.ndarray, text: pa.Array | None, name: str, problems: Problems, first_row: int
) -> tuple[np.ndarray, np.ndarray]:
    """Take NaN for missing, and refuse what is too large."""
    nan = np.isnan(values)
    missing |= nan
    infinite = np.isinf(values)
    large = ~infinite & (np.abs(values) >= MAX_MAGNITUDE)
    if infinite.any() or large.any():
        problems.add(name, "infinite", infinite, first_row, values)
        problems.add(name, "large", large, first_row, values)
        if text is not None:
            problems.note_marks(name, text.filter(pa.array(infinite | large)).to_pylist())
        values[infinite | large] = 0.0
    values[nan] = 0.0
    return values, missing


def labels(
    column: pa.Array, name: str, table: Table, problems: Problems, first_row: int
) -> tuple[list[str | None], np.ndarray]:
    """Return the values of a batch of a category as text, and whether each is missing. Numbers that are equal give the
    same text, and so do true and false however they are written.
    """
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    kind = plain.type
    if _is_text(kind):
        text = pc.utf8_trim_whitespace(pc.fill_null(plain.cast(pa.string()), "")) if table.is_text else plain
        missing = _is_missing(text, table) if table.is_text else plain.is_null().to_numpy(zero_copy_only=False)
        text = text.cast(pa.string())
    else:
        missing = plain.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
        text = pa.nulls(len(plain), pa.string())
        try:
            if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
                text = pa.array(
                    [None if value is None else _spelled(value) for value in plain.to_pylist()], pa.string()
                )
            elif pa.types.is_duration(kind) or pa.types.is_time(kind):
                problems.add(name, "date", ~missing, first_row)
            elif (days := _days(plain)) is not None:
                # Not the text of Arrow, which depends on the unit.
                text = pa.array([None if gap else _date(day) for day, gap in zip(days.tolist(), missing, strict=True)])
            elif isinstance(kind, pa.BaseExtensionType):
                problems.add(name, "type", ~missing, first_row)
            elif not pa.types.is_null(kind):
                text = plain.cast(pa.string())
        except (pa.ArrowException, OverflowError):
            problems.add(name, "type", ~missing, first_row)
    lower = pc.utf8_lower(text)
    is_truth = pc.is_in(lower, pa.array(["true", "false"]))
    texts: list[str | None] = pc.if_else(is_truth, lower, text).to_pylist()
    return texts, missing


def _is_missing(text: pa.Array, table: Table) -> np.ndarray:
    missing: np.ndarray = pc.is_in(text, pa.array(table.spelling.nulls)).to_numpy(zero_copy_only=False)
    return missing


def _days(column: pa.Array) -> np.ndarray | None:
    """Return dates and times as days since 1970-01-01, spans as days; None if the column has others. Null gives any."""
    kind = column.type
    if getattr(kind, "extension_name", "") == "pandas.period":
        # Its storage counts months, quarters or others: pandas knows when they begin.
        column = pa.array(column.to_pandas().dt.to_timestamp())
        kind = column.type
    if pa.types.is_date(kind):
        column, unit = column.cast(pa.timestamp("s")), "s"
    elif pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time(kind):
        unit = kind.unit
    else:
        return None
    whole = column.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64()).cast(pa.int64())
    return _in_days(pc.fill_null(whole, 0).to_numpy(zero_copy_only=False), _PER_DAY[unit])


def _in_days(counts: np.ndarray, per_day: int) -> np.ndarray:
    days, rest = np.divmod(counts, per_day)
    in_days: np.ndarray = days + rest / per_day
    return in_days


def _date(day: float) -> str:
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(days=day)
    return moment.isoformat(" ").removesuffix(" 00:00:00")


def _indicators(
    values: Sequence[str | None],
    levels: Sequence[str],
    name: str,
    unused: np.ndarray,
    problems: Problems,
    first_row: int,
) -> list[np.ndarray]:
    """Return a column of 0 and 1 for each level but the first."""
    places = {level: k for k, level in enumerate(levels)}
    codes = np.array([places.get(value, -1) if value is not None else -1 for value in values], dtype=np.int64)
    problems.add(name, "unknown", (codes < 0) & ~unused, first_row)
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
    *,
    weight: str | None = None,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the terms that the columns of a batch become, and the missing values, shape (n, len(columns)).

    batch: the columns, in that order. weight: the column of the weights of the rows.
    """
    read: list[tuple[Any, np.ndarray]] = []
    for array, name in zip(batch, columns, strict=True):
        convert = labels if name in levels else numbers
        read.append(convert(array, name, table, problems, first_row))
    gaps: np.ndarray = np.stack([missing for _, missing in read], axis=1)
    unused = np.asarray(gaps.any(axis=1))
    if weight is not None:
        unused |= read[columns.index(weight)][0] == 0
    terms: list[np.ndarray] = []
    for name, (values, _) in zip(columns, read, strict=True):
        if isinstance(values, list):
            # The levels of a row that is not used need not be known.
            terms += _indicators(values, levels[name], name, unused, problems, first_row)
        else:
            terms.append(values)
    return terms, gaps


def _is_text(kind: pa.DataType) -> bool:
    checks = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(check(kind) for check in checks)


def _from_text(
    text: pa.Array, missing: np.ndarray, name: str, table: Table, problems: Problems, first_row: int
) -> np.ndarray:
    filled = pc.if_else(pa.array(missing), pa.scalar("0"), table.spelling.plain(text))
    for symbol in table.spelling.symbols:
        has_symbol = pc.match_substring(text, symbol[:1]).to_numpy(zero_copy_only=False)
        problems.note_sort(name, symbol, has_symbol & ~missing, first_row)
    problems.note_sort(name, "leading zeros", _matches(text, "^0[0-9]+$"), first_row)
    if table.spelling.thousands is None:
        _note_groups(filled, name, problems, first_row)
    try:
        values: np.ndarray = pc.cast(filled, pa.float64()).to_numpy(zero_copy_only=False).copy()
        problems.note_sort(name, "numbers", ~missing, first_row)
        if name in problems.profiles:
            problems.profile(name, text, missing, first_row)
    except pa.ArrowInvalid:
        filled, values = _readable_numbers(text, filled, missing, name, table, problems, first_row)
    large = np.flatnonzero(np.abs(values) >= _EXACT)
    rounded = np.zeros(len(values), dtype=bool)
    rounded[[j for j in large if _is_rounded(filled[int(j)].as_py())]] = True
    problems.add(name, "rounded", rounded, first_row)
    return values


def _matches(text: pa.Array, pattern: str) -> np.ndarray:
    matching: np.ndarray = pc.match_substring_regex(text, pattern).to_numpy(zero_copy_only=False)
    return matching


def _note_groups(text: pa.Array, name: str, problems: Problems, first_row: int) -> None:
    """Note numbers whose point may stand between thousands: 1.630, beside 824."""
    groups = _matches(text, r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$")
    if groups.any():
        hundreds = _matches(text, r"^[+-]?[1-9][0-9]{2}$")
        problems.note_sort(name, "groups", groups, first_row)
        problems.note_sort(name, "hundreds", hundreds, first_row)
        problems.note_sort(name, "others", ~groups & ~_matches(text, r"^[+-]?[0-9]{1,3}$"), first_row)


def _readable_numbers(
    text: pa.Array, plain: pa.Array, missing: np.ndarray, name: str, table: Table, problems: Problems, first_row: int
) -> tuple[pa.Array, np.ndarray]:
    """Read what can be read of text, one value of which is no number; the rest becomes 0. plain: numbers as Python
    writes them.
    """
    is_number = _matches(plain, NUMBER)
    is_true, is_false = _matches(plain, "^(?i:true)$"), _matches(plain, "^(?i:false)$")
    problems.note_sort(name, "numbers", is_number & ~missing, first_row)
    problems.note_sort(name, "truths", is_true | is_false, first_row)
    readable = pc.if_else(pa.array(is_number), plain, pa.scalar("0"))
    values = pc.cast(readable, pa.float64()).to_numpy(zero_copy_only=False).copy()
    values[is_true] = 1.0
    left = ~(is_number | is_true | is_false)
    order = table.spelling.dates
    if order != "refuse" and left.any():
        places = np.flatnonzero(left)
        moments = [microseconds(value, order) for value in text.take(pa.array(places)).to_pylist()]
        dated = [j for j, moment in zip(places.tolist(), moments, strict=True) if moment is not None]
        values[dated] = _in_days(np.array([moment for moment in moments if moment is not None]), _PER_DAY["us"])
        is_date = np.zeros(len(left), dtype=bool)
        is_date[dated] = True
        problems.note_sort(name, "dates", is_date, first_row)
        left &= ~is_date
    if left.any() or name in problems.profiles:
        problems.add(name, "text", left, first_row, text)
        problems.profile(name, text, missing, first_row)
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
