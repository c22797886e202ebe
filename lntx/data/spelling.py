"""How values are written in text: signs of decimals and thousands, currencies, dates. Reads no files."""

from __future__ import annotations

import datetime
import functools
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from lntx.config.schema import Data

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(?i:inf|infinity|nan)$"

# What people write for the same sign.
_SPACES, _APOSTROPHES, _MINUS = "\u00a0\u202f\u2009", "\u2019", "\u2212"
_CURRENCIES = ("USD", "EUR", "GBP", "CHF", "JPY", "CNY", "INR", "kr", "Rs")
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
ORDERS = ("year-first", "day-first", "month-first")
"""Orders of dates in text."""
_TIME = r"(?:[T ](\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)? ?([AaPp][Mm])?(?: ?(Z|UTC|[+-]\d{2}:?\d{2}))?)?$"
_DATES = [
    (re.compile(pattern + _TIME), orders)
    for pattern, orders in (
        (r"^(?P<y>\d{4})([-/.])(?P<m>\d{1,2})\2(?P<d>\d{1,2})", ORDERS),
        (r"^(?P<y>\d{4})-(?P<m>\d{2})", ORDERS),
        (r"^(?P<y>\d{4})[- ]?Q(?P<q>[1-4])", ORDERS),
        (r"^(?P<d>\d{1,2})([-/.])(?P<m>\d{1,2})\2(?P<y>\d{4}|\d{2})", ("day-first",)),
        (r"^(?P<m>\d{1,2})([-/.])(?P<d>\d{1,2})\2(?P<y>\d{4}|\d{2})", ("month-first",)),
        (r"^(?P<d>\d{1,2})[ -](?P<m>[A-Za-z]{3,9})\.?,?[ -](?P<y>\d{4}|\d{2})", ORDERS),
        (r"^(?P<m>[A-Za-z]{3,9})\.? (?P<d>\d{1,2}),? (?P<y>\d{4})", ORDERS),
        (r"^(?P<m>[A-Za-z]{3,9})\.?[ -](?P<y>\d{4})", ORDERS),
    )
]  # fmt: skip
_EPOCH = datetime.datetime(1970, 1, 1)

Kind = Literal["number", "truth", "symbol", "unit", "thousands", "comma", "either", "date", "text"]

_TOTALS = re.compile(r"(grand |sub)?total|sum|average|mean|summe|gesamt|合计|总计|平均", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How a table's text is written."""

    delimiter: str = "auto"
    decimal: str = "."
    encoding: str = "utf-8"
    header: str = "auto"
    skip_lines: int = 0
    skip_footer: int = 0
    comment: str | None = None
    thousands: str | None = None
    symbols: tuple[str, ...] = ()
    dates: str = "refuse"
    nulls: tuple[str, ...] = tuple(pyarrow.csv.ConvertOptions().null_values)
    """Words that stand for a missing value."""

    @staticmethod
    def of(data: Data) -> Spelling:
        """Return what a configuration says of it."""
        same = (
            "delimiter",
            "decimal",
            "encoding",
            "header",
            "skip_lines",
            "skip_footer",
            "comment",
            "thousands",
            "dates",
        )
        nulls = (*Spelling.nulls, *(word.strip() for word in data.nulls or ()))
        return Spelling(**{key: getattr(data, key) for key in same}, symbols=data.symbols or (), nulls=nulls)

    @property
    def converts(self) -> bool:
        """Whether it makes numbers of text that is none, so that text in a table with types is read too."""
        return self.thousands is not None or bool(self.symbols) or self.dates != "refuse"

    def plain(self, text: pa.Array) -> pa.Array:
        """Return text with numbers as Python writes them; what is none stays something that is no number."""
        text = pc.replace_substring(text, _MINUS, "-")
        # Some accounting programs write the minus sign last.
        text = pc.replace_substring_regex(text, r"^([0-9][0-9.,]*)-$", r"-\1")
        if "()" in self.symbols:
            text = pc.replace_substring_regex(text, r"^\(([^()-]*)\)$", r"-\1")
        for symbol in self.symbols:
            if symbol != "()":
                quoted = rf"\Q{symbol}\E"
                text = pc.replace_substring_regex(text, rf"^([+-]?)[\s\pZ]*{quoted}[\s\pZ]*", r"\1")
                text = pc.replace_substring_regex(text, rf"[\s\pZ]*{quoted}$", "")
        if "()" in self.symbols:
            text = pc.replace_substring_regex(text, r"^\(([^()-]*)\)$", r"-\1")
        if self.thousands is not None:
            for sign in _SPACES if self.thousands == " " else _APOSTROPHES if self.thousands == "'" else "":
                text = pc.replace_substring(text, sign, self.thousands)
            sign, decimal = re.escape(self.thousands), re.escape(self.decimal)
            grouped = pc.match_substring_regex(text, rf"^[+-]?\d{{1,3}}({sign}\d{{2,3}})*{sign}\d{{3}}({decimal}\d*)?$")
            text = pc.if_else(grouped, pc.replace_substring(text, self.thousands, ""), text)
        if self.decimal != ".":
            # A point has no meaning there: it is left to be refused.
            spelled = pc.replace_substring(text, self.decimal, ".")
            text = pc.if_else(pc.match_substring(text, "."), pa.scalar("?"), spelled)
        return text

    def is_number(self, text: str) -> bool:
        """Return whether one value is a number."""
        return re.match(NUMBER, self.plain(pa.array([text.strip()]))[0].as_py()) is not None


@functools.lru_cache(maxsize=2**16)
def microseconds(text: str, order: str) -> int | None:
    """Return a date or time in microseconds since 1970-01-01 (UTC where it names a zone); None if text is no date.

    A quarter is its first day; a time without a date is of that day. order: of day, month and year where it is not
    plain.
    """
    if re.match(r"\d{1,2}:\d{2}", text):
        text = f"1970-01-01 {text}"
    for pattern, orders in _DATES:
        match = pattern.match(text) if order in orders else None
        if match is None:
            continue
        parts = match.groupdict()
        try:
            month = parts["m"] if "m" in parts else str(3 * int(parts["q"]) - 2)
            number = int(month) if month.isdigit() else _MONTHS.index(month[:3].lower()) + 1
            year = int(parts["y"])
            # As POSIX reads two digits.
            year += 0 if len(parts["y"]) > 2 else 2000 if year < 69 else 1900
            date = datetime.datetime(year, number, int(parts.get("d") or 1))
            hour, minute, second, part, half, zone = match.groups()[-6:]
            hours = int(hour or 0) if half is None else int(hour) % 12 + 12 * (half.lower() == "pm")
            date = date.replace(hour=hours, minute=int(minute or 0), second=int(second or 0))
        except ValueError:
            continue
        offset = 0
        if zone and zone[0] in "+-":
            offset = (int(zone[1:3]) * 60 + int(zone[-2:])) * (1 if zone[0] == "+" else -1)
        since = date - _EPOCH - datetime.timedelta(minutes=offset)
        return since // datetime.timedelta(microseconds=1) + int((part or "").ljust(6, "0")[:6])
    return None


def classify(text: str, spelling: Spelling) -> tuple[Kind, str]:
    """Return what a value that is not missing looks like, and the symbol, the sign or the order of a date in it."""
    if spelling.is_number(text):
        return "number", ""
    if text.lower() in ("true", "false"):
        return "truth", ""
    orders = [order for order in ORDERS if microseconds(text, order) is not None]
    if orders:
        return "date", " ".join(orders)
    bare = re.sub(f"[{_SPACES}]", " ", text.replace(_MINUS, "-").replace(_APOSTROPHES, "'"))
    for sign, pattern in (
        (",", r"^[+-]?\d{1,3}(,\d{2,3})+,\d{3}(\.\d*)?$|^[+-]?\d{1,3},\d{3}\.\d*$"),
        (".", r"^[+-]?\d{1,3}(\.\d{3})+,\d+$|^[+-]?\d{1,3}(\.\d{3}){2,}$"),
        (" ", r"^[+-]?\d{1,3}( \d{3})+([.,]\d*)?$"),
        ("'", r"^[+-]?\d{1,3}('\d{3})+([.,]\d*)?$"),
        ("_", r"^[+-]?\d{1,3}(_\d{3})+([.,]\d*)?$"),
    ):
        if re.match(pattern, bare):
            return "thousands", sign
    if re.match(r"^[+-]?\d{1,3},\d{3}$", bare):
        return "either", ","
    if re.match(r"^[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?$", bare) and spelling.decimal == ".":
        return "comma", ","
    if spelling.decimal == "," and re.match(r"^[+-]?\d{1,3}(\.\d{3})+$", bare):
        return "thousands", "."
    if bare[:1] == "(" and bare[-1:] == ")" and classify(bare[1:-1].strip(), spelling)[0] not in ("date", "text"):
        return "symbol", "()"
    signs = "".join(sign for sign in dict.fromkeys(bare) if unicodedata.category(sign) == "Sc") or None
    for symbol in filter(None, (signs, "%", *_CURRENCIES)):
        rest = re.sub(rf"^([+-]?)\s*{re.escape(symbol)}\s*|\s*{re.escape(symbol)}$", r"\1", bare, count=1)
        if rest != bare and (rest[:1].isdigit() or rest[:1] in "+-.(") and classify(rest, spelling)[0] != "text":
            return "symbol", symbol
    unit = re.match(r"^[+-]?[0-9][0-9.,]*\s?([A-Za-z°µ*²³/]{1,6})$", bare)
    return ("unit", unit[1]) if unit else ("text", "")


def is_total(value: str) -> bool:
    """Return whether a value names a row of totals or means."""
    return _TOTALS.fullmatch(value) is not None


@dataclass
class Profile:
    """What the text of a column looks like, value by value."""

    rows: int = 0
    """Rows with a value."""

    kinds: Counter[str] = field(default_factory=Counter)
    """Rows by kind."""

    details: dict[str, Counter[str]] = field(default_factory=dict)
    """By kind: rows by symbol, sign or order."""

    words: Counter[str] = field(default_factory=Counter)
    """Rows by value that is text; the first twenty values."""

    totals: Counter[str] = field(default_factory=Counter)
    """Rows by value that names a row of totals or means."""

    distinct: set[str] = field(default_factory=set)
    """Values, at most 1,001."""

    def add(self, text: pa.Array, missing: pa.Array, spelling: Spelling) -> None:
        """Take in a batch. text: trimmed. missing: whether each has no value."""
        values = text.filter(pc.invert(missing))
        self.rows += len(values)
        for entry in pc.value_counts(values).to_pylist():
            value, count = entry["values"], entry["counts"]
            if len(self.distinct) <= 1000:
                self.distinct.add(value)
            elif len(self.words) >= 20:
                # Any text: the rest of it tells nothing more.
                self.kinds["text"] += count
                continue
            self._add(value, count, spelling)

    def _add(self, value: str, count: int, spelling: Spelling) -> None:
        kind, detail = classify(value, spelling)
        self.kinds[kind] += count
        if is_total(value):
            self.totals[value] += count
        if kind == "symbol" and detail != "()" and "(" in value:
            self.details.setdefault(kind, Counter())["()"] += count
        if kind == "text" and (value in self.words or len(self.words) < 20):
            self.words[value] += count
        elif detail:
            self.details.setdefault(kind, Counter())[detail] += count
            rest = value.strip("() ").replace(detail, "").strip() if kind == "symbol" else ""
            if rest and classify(rest, spelling)[0] not in ("text", "number"):
                # What else is written there: the signs of thousands in $1,425.47.
                inner, sign = classify(rest, spelling)
                self.details.setdefault(inner, Counter())[sign] += count

    def has(self, kind: str) -> list[str]:
        """Return the details of a kind, the commonest first."""
        return [detail for detail, _ in self.details.get(kind, Counter()).most_common()]
