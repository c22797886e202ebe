"""Make a dataset of a user's table: choose the columns, drop or refuse rows with gaps, expand categories.

`tables` opens the table, `columns` converts values. All problems of a table are told in one message.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lntx.config.schema import Data
from lntx.data.columns import Problems, labels, numbers, read_terms, terms_of
from lntx.data.dataset import write_dataset
from lntx.data.suspicions import Suspicions
from lntx.data.tables import Csv, Source, Table, look_at, open_table, readable
from lntx.errors import BadInput
from lntx.files import state_of
from lntx.text import MAX_NAME, for_message, listed, quoted

_MOST_LEVELS = 1000
# Fewer rows rise by one too often by chance.
_NUMBERED_ROWS = 10


def wanted_columns(data: Data) -> tuple[str, ...]:
    """Return the features and, last, the target of the user's table; reads only the header.

    Raises: BadInput: a column is missing or occurs twice; there is no feature.
    """
    assert data.path is not None
    return _wanted(open_table(data.path, Csv.of(data)), data)


def _wanted(table: Table, data: Data) -> tuple[str, ...]:
    assert data.target is not None
    excluded = data.exclude or ()
    features = data.features or tuple(
        name for name in table.names if name not in {data.target, *excluded, *table.index}
    )
    columns = (*features, data.target)
    table.places((*columns, *excluded, *(data.categories or ())))
    if not features:
        raise BadInput(f"{table.where} has no column beside the target {quoted(data.target, MAX_NAME)}")
    if data.polynomial is not None and len(features) > 1:
        raise BadInput(
            f"data.polynomial takes the powers of one feature, and {table.where} has {len(features)}: name it"
        )
    for name in data.categories or ():
        if name not in features:
            raise BadInput(f"data.categories names {quoted(name, MAX_NAME)}, which is not among the features")
    return columns


def import_table(data: Data, source: Source, path: Path, *, bias: bool = True) -> str:
    """Copy the columns that `data` names from the user's table to a dataset.

    bias: whether the model has one, beside which a constant column is refused.

    Returns: the digest of the dataset's file.

    Raises: BadInput: columns are missing, or hold what cannot be used; the files changed meanwhile.
    """
    table = open_table(source.path, Csv.of(data))
    columns = _wanted(table, data)
    drops = data.missing == "drop"
    levels: dict[str, tuple[str, ...]] = {}
    if data.categories:
        levels = _levels(table, columns, data.categories, drops=drops)
    rows = _Rows(table, columns, levels, drops=drops, watched=data.features is None and len(columns) > 2)
    terms = terms_of(columns[:-1], levels)
    twice = [name for name in (*terms, columns[-1]) if [*terms, columns[-1]].count(name) > 1]
    if twice:
        raise BadInput(f"{table.where}: {quoted(twice[0], MAX_NAME)} is a column and a level of a category: rename one")
    num_rows, sha256 = write_dataset(
        path,
        rows,
        features=terms,
        target=columns[-1],
        types=dict.fromkeys((*terms, columns[-1]), np.dtype(np.float64)),
        repetitive=frozenset(terms) - frozenset(columns),
        degree=data.polynomial or 1,
        columns=columns[:-1],
        levels=levels,
        notes=rows.notes,
    )
    if bias:
        rows.note_constants()
    if rows.problems:
        rows.problems.refuse()
    if num_rows == 0:
        raise BadInput(_no_rows(table, rows.gaps))
    state: list[int] = []
    for file in source.files:
        with readable(file):
            state += state_of(file)
    if tuple(state) != source.state:
        raise BadInput(f"{for_message(source.path)} changed while it was read: run again when it is complete")
    return sha256


def _no_rows(table: Table, gaps: Mapping[str, int]) -> str:
    which = ", ".join(f"{quoted(name, MAX_NAME)} in {count:,}" for name, count in gaps.items() if count)
    return f"{table.where} has no rows" + (f" without a missing value: {which}" if which else "")


def import_as_told(data: Data, path: Path) -> str:
    """Import the user's table as it is now."""
    assert data.path is not None
    return import_table(data, look_at(data.path), path)


def _levels(
    table: Table, columns: Sequence[str], categories: Sequence[str], *, drops: bool
) -> dict[str, tuple[str, ...]]:
    """Return the levels of each category, sorted; of complete rows alone where others are dropped."""
    problems, found = Problems(table, columns[-1]), {name: set[str]() for name in categories}
    first_row, complete, counts = 1, 0, dict.fromkeys(columns, 0)
    for batch in table.read(table.places(columns)):
        texts: dict[str, list[str | None]] = {}
        gaps = np.zeros(len(batch[0]), dtype=bool)
        for array, name in zip(batch, columns, strict=True):
            if name in found:
                texts[name], missing = labels(array, name, table.csv, problems, first_row)
                problems.add(name, "missing", missing & (not drops), first_row)
            else:
                missing = numbers(array, name, table.csv, problems, first_row)[1]
                problems.add(name, "missing", missing & (not drops), first_row)
            gaps |= missing
            counts[name] += int(missing.sum())
        for name, values in texts.items():
            if len(found[name]) <= _MOST_LEVELS:
                found[name].update(
                    value for value, gap in zip(values, gaps.tolist(), strict=True) if not gap and value is not None
                )
        first_row += len(batch[0])
        complete += int((~gaps).sum())
    if not complete and not problems:
        raise BadInput(_no_rows(table, counts))
    for name, levels in found.items():
        if len(levels) > _MOST_LEVELS:
            problems.add_column(name, "levels")
        elif len(levels) < 2 and first_row > 1:
            problems.add_column(name, "level")
    if problems:
        problems.refuse()
    return {name: tuple(sorted(levels, key=_in_order)) for name, levels in found.items()}


def _in_order(level: str) -> tuple[float, str]:
    """Numbers by size, before other text."""
    try:
        number = float(level)
    except ValueError:
        return math.inf, level
    return (number if math.isfinite(number) else math.inf), level


class _Rows:
    """The rows of a table as blocks of terms and target, and what was seen of them."""

    def __init__(
        self, table: Table, columns: Sequence[str], levels: Mapping[str, Sequence[str]], *, drops: bool, watched: bool
    ) -> None:
        self.problems = Problems(table, columns[-1])
        self.dropped = 0
        self._table, self._wanted, self._levels, self._drops = table, columns, levels, drops
        self._gaps = np.zeros(len(columns), dtype=np.int64)
        self._num_rows = 0
        self._suspicions = Suspicions(columns[-1])
        self._low: dict[str, float] = {}
        self._high: dict[str, float] = {}
        # The last value of each column that so far rises by one from row to row.
        self._rising: dict[str, float | None] = dict.fromkeys(columns[:-1]) if watched else {}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        terms = (*terms_of(self._wanted[:-1], self._levels), self._wanted[-1])
        for batch in self._table.read(self._table.places(self._wanted)):
            first_row = self._num_rows + 1
            values, missing = read_terms(batch, self._wanted, self._levels, self._table, self.problems, first_row)
            block = dict(zip(terms, values, strict=True))
            self._watch(block)
            self._num_rows += len(batch[0])
            gaps = missing.any(axis=1)
            if gaps.any():
                self._gaps += missing.sum(axis=0)
                self.dropped += int(gaps.sum())
                if not self._drops:
                    for j, name in enumerate(self._wanted):
                        self.problems.add(name, "missing", missing[:, j], first_row)
                block = {name: column[~gaps] for name, column in block.items()}
            self._suspicions.see(
                {name: block[name] for name in self._wanted if name in block}, np.flatnonzero(~gaps) + first_row
            )
            for name, column in block.items():
                if len(column):
                    self._low[name] = min(self._low.get(name, np.inf), float(column.min()))
                    self._high[name] = max(self._high.get(name, -np.inf), float(column.max()))
            yield block

    @property
    def gaps(self) -> dict[str, int]:
        """Number of missing values by column."""
        return dict(zip(self._wanted, self._gaps.tolist(), strict=True))

    def note_constants(self) -> None:
        """Note the features that are the same in every row."""
        for name in self._wanted[:-1]:
            if self._low.get(name, 0) == self._high.get(name, 1) and self._num_rows - self.dropped > 1:
                self.problems.add_column(name, "constant")

    def notes(self) -> list[str]:
        """Return what a reader of the fit should know of the rows."""
        notes = []
        if self.dropped and self._drops:
            which = ", ".join(f"{quoted(name, MAX_NAME)} {count:,}" for name, count in self.gaps.items() if count)
            notes.append(f"{self.dropped:,} of {self._num_rows:,} rows had no value and were left out: {which}")
        for name, levels in self._levels.items():
            notes.append(
                f"{quoted(name, MAX_NAME)} has {len(levels)} levels; the first, {quoted(levels[0], MAX_NAME)}, has no "
                "column: the others are relative to it"
            )
        numbered = [name for name in self._rising if self._num_rows >= _NUMBERED_ROWS]
        if numbered:
            notes.append(
                f"{listed(numbered)} rises by one from row to row, like a row number: leave it out with --data.exclude "
                "unless it is a feature"
            )
        return [*notes, *self._suspicions.notes()]

    def _watch(self, block: Mapping[str, np.ndarray]) -> None:
        for name in [*self._rising]:
            column, last = block.get(name), self._rising[name]
            if column is None or not len(column):
                del self._rising[name]
                continue
            steps = np.diff(column, prepend=column[0] - 1 if last is None else last)
            if (steps == 1).all() and column[0] == np.floor(column[0]):
                self._rising[name] = float(column[-1])
            else:
                del self._rising[name]
