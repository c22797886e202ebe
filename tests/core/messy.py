"""Tables as people ship them: a clean table, spoilt in some of the ways in which files are spoilt."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

NUM_ROWS = 60


@dataclass
class Messy:
    """A table of text: columns by name, in order; names may be empty or occur twice."""

    draw: random.Random
    columns: list[tuple[str, list[str]]] = field(default_factory=list)
    delimiter: str = ","
    encoding: str = "utf-8"
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    has_header: bool = True

    def add(self, name: str, values: list[str]) -> None:
        self.columns.insert(self.draw.randrange(len(self.columns) + 1), (name, values))

    def write(self, path: Path) -> Path:
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self.delimiter, lineterminator="\n")
        if self.has_header:
            writer.writerow([name for name, _ in self.columns])
        writer.writerows(zip(*[values for _, values in self.columns], strict=True))
        whole = (
            "".join(f"{line}\n" for line in self.before) + text.getvalue() + "".join(f"{line}\n" for line in self.after)
        )
        if self.encoding == "latin-1":
            whole = whole.replace("€", "£")
        path.write_bytes(whole.encode(self.encoding))
        return path


def _numbers(draw: random.Random) -> list[float]:
    return [round(draw.gauss(0, 100), 2) for _ in range(NUM_ROWS)]


def _unnamed(table: Messy) -> None:
    for _ in range(table.draw.randint(1, 2)):
        table.columns.insert(0, ("", [str(k + 1) for k in range(NUM_ROWS)]))


def _odd_names(table: Messy) -> None:
    for name in table.draw.sample(
        ["-x", "--data.exclude", "a b", "it's", 'say "x"', "$(id)", "größe", "x,y", "n" * 90], 3
    ):
        table.add(name, [table.draw.choice(["p", "q", "r"]) for _ in range(NUM_ROWS)])


def _unique_text(table: Messy) -> None:
    table.add("serial", [f"unit {k}" for k in range(NUM_ROWS)])


def _empty(table: Messy) -> None:
    table.add("empty", [""] * NUM_ROWS)


def _mostly_missing(table: Messy) -> None:
    table.add("rare", ["" if k % 20 else str(k) for k in range(NUM_ROWS)])


def _dependent(table: Messy) -> None:
    makers = [table.draw.choice("abc") for _ in range(NUM_ROWS)]
    table.add("maker", makers)
    table.add("model", [f"{maker}{table.draw.randint(1, 2)}" for maker in makers])


def _twice(table: Messy) -> None:
    numbers = _numbers(table.draw)
    table.add("cm", [repr(number) for number in numbers])
    table.add("mm", [repr(round(10 * number, 1)) for number in numbers])


def _dates(table: Messy) -> None:
    form = table.draw.choice(["{y}-{m:02}-{d:02}", "{y}/{m}/{d}", "{d:02}/{m:02}/{y}", "{m}/{d}/{y}", "{d}.{m}.{y}"])
    days = [(2020 + k % 3, 1 + k % 12, 1 + (7 * k) % 28) for k in range(NUM_ROWS)]
    table.add("day", [form.format(y=y, m=m, d=d) for y, m, d in days])


def _money(table: Messy) -> None:
    form = table.draw.choice(["${:,.2f}", "€{:.2f}", "{:,.0f} USD", "{:.1f}%", "{:,.2f}"])
    table.add("money", [form.format(abs(number) * 50) for number in _numbers(table.draw)])


def _accounting(table: Messy) -> None:
    table.add("profit", [f"({-number})" if number < 0 else f"{number}" for number in _numbers(table.draw)])


def _gaps(table: Messy) -> None:
    mark = table.draw.choice(["", "-", "#DIV/0!", "?", "n/k", "NA"])
    table.add("gaps", [mark if k % 9 == 4 else repr(number) for k, number in enumerate(_numbers(table.draw))])


def _total(table: Messy) -> None:
    for k, (_, values) in enumerate(table.columns):
        values[-1] = "Total" if k == 0 else values[-1]


def _text(table: Messy) -> None:
    for j in range(table.draw.choice([1, 3, 30])):
        table.add(f"text {j}", [table.draw.choice(["yes", "no", "maybe"][: 2 + j % 2]) for _ in range(NUM_ROWS)])


def _constant(table: Messy) -> None:
    table.add("same", [table.draw.choice(["1", "EUR"])] * NUM_ROWS)


def _large(table: Messy) -> None:
    table.add("large", ["1e300" if k == 7 else repr(number) for k, number in enumerate(_numbers(table.draw))])


def _mixed(table: Messy) -> None:
    table.add("mixed", [table.draw.choice(["true", "1", "2.5"]) for _ in range(NUM_ROWS)])


def _dialect(table: Messy) -> None:
    table.delimiter = table.draw.choice([";", "\t", "|", " "])
    if table.delimiter == ";" and table.draw.random() < 0.5:
        table.columns = [(name, [value.replace(".", ",") for value in values]) for name, values in table.columns]


def _encoding(table: Messy) -> None:
    table.add("größe", [table.draw.choice(["groß", "klein"]) for _ in range(NUM_ROWS)])
    table.encoding = table.draw.choice(["cp1252", "latin-1", "utf-8-sig", "utf-16"])


def _lines_before(table: Messy) -> None:
    table.before = table.draw.choice([["# made by a logger", "# unit: mm"], ["Report of May"], ["Sheet 1", ""]])


def _lines_after(table: Messy) -> None:
    table.after = table.draw.choice([["Source: an office, 2024"], ["", "* provisional", "** estimated"]])


def _headerless(table: Messy) -> None:
    table.has_header = False
    table.columns = [("y", dict(table.columns)["y"])] + [column for column in table.columns if column[0] != "y"]
    # What is asked for is the first value then.
    table.columns[0] = (table.columns[0][1][0], table.columns[0][1])


MESSES: tuple[Callable[[Messy], None], ...] = (
    _unnamed, _odd_names, _unique_text, _empty, _mostly_missing, _dependent, _twice, _dates, _money, _accounting, _gaps,
    _text, _constant, _large, _mixed, _total, _dialect, _encoding, _lines_before,
    _lines_after,
)  # fmt: skip
"""Ways to spoil a table; the last five change the file as a whole."""


def messy_table(seed: int, most: int = 6) -> tuple[Messy, str]:
    """Draw a table with one to `most` messes. Returns: the table, and the name of its target."""
    draw = random.Random(seed)
    table = Messy(draw)
    x, z = _numbers(draw), _numbers(draw)
    noise = [draw.gauss(0, 1) for _ in range(NUM_ROWS)]
    table.columns = [("x", [*map(repr, x)]), ("z", [*map(repr, z)])]
    table.add("y", [repr(round(2 * a - b + c, 3)) for a, b, c in zip(x, z, noise, strict=True)])
    for mess in sorted(draw.sample(MESSES, draw.randint(1, most)), key=MESSES.index):
        mess(table)
    target = "y"
    if (
        draw.random() < 0.05
        and not table.before
        and not table.after
        and table.delimiter == ","
        and len(table.columns) == 3
    ):
        _headerless(table)
        target = table.columns[0][0]
    return table, target
