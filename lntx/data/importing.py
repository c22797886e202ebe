"""Make a dataset of a user's table: choose the columns, drop or refuse rows with gaps, expand categories.

`tables` opens the table, `columns` converts values. All problems of a table are told in one message.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lntx.base.errors import BadInput
from lntx.base.files import state_of
from lntx.base.text import MAX_NAME, for_message, listed, quoted
from lntx.config.schema import Data
from lntx.data.columns import labels, numbers, read_terms, terms_of
from lntx.data.dataset import open_dataset, read_blocks, write_dataset
from lntx.data.problems import MAX_WEIGHT, MOST_LEVELS, Gaps, Problems, hardly_repeats, refuse_too_few
from lntx.data.spelling import Spelling, classify, is_total
from lntx.data.suspicions import Suspicions
from lntx.data.tables import Source, Table, look_at, open_table, readable
from lntx.numerics.collinearity import BIAS, dependences, describe

# Fewer rows rise by one too often by chance.
_NUMBERED_ROWS = 10


def wanted_columns(data: Data) -> tuple[str, ...]:
    """Return the features, the weight of the rows if there is one, and the target; reads only the header.

    Raises: BadInput: a column is missing or occurs twice; there is no feature.
    """
    assert data.path is not None
    return _wanted(open_table(data.path, Spelling.of(data)), data)


def uses(
    name: str, required: Sequence[str | None], features: Sequence[str] | None, exclude: Sequence[str] | None
) -> bool:
    """Return whether a column of a table may be used, by its name and the settings. required: target and weight."""
    return name in required or (name not in (exclude or ()) and (features is None or name in features))


def _wanted(table: Table, data: Data) -> tuple[str, ...]:
    assert data.target is not None
    if table.file is not None:
        table.file.check_header(data.target, (*(data.features or ()), *(data.exclude or ()), *(data.categories or ())))
    every = data.features or tuple(
        name for name in table.names if name and name not in {data.target, data.weight, *table.index}
    )
    features = tuple(name for name in every if uses(name, (), data.features, data.exclude))
    required = _required(data)
    if data.weight is not None and data.weight in (*features, data.target):
        raise BadInput(f"data.weight names {quoted(data.weight, MAX_NAME)}, which is a feature or the target: copy it")
    columns = (*features, *required)
    table.places(required)
    table.places([*dict.fromkeys(features)], may_exclude=True)
    for name in (*(data.exclude or ()), *(data.categories or ())):
        if name not in table.names:
            table.places((name,))
    if not features:
        raise BadInput(f"{table.where} has no column beside the target {quoted(data.target, MAX_NAME)}")
    if data.polynomial is not None and len(features) > 1:
        raise BadInput(
            f"data.polynomial takes the powers of one feature, and {table.where} has {len(features)}: name it"
        )
    for name in data.categories or ():
        if name not in features and name not in (data.exclude or ()):
            raise BadInput(f"data.categories names {quoted(name, MAX_NAME)}, which is not among the features")
    return columns


def _required(data: Data) -> tuple[str, ...]:
    """Return the columns that are no features: the weight of the rows, if there is one, and the target."""
    assert data.target is not None
    return (data.target,) if data.weight is None else (data.weight, data.target)


def import_table(data: Data, source: Source, path: Path, *, bias: bool = True) -> str:
    """Copy the columns that `data` names from the user's table to a dataset.

    bias: whether the model has one, beside which a constant column is refused.

    Returns: the digest of the dataset's file.

    Raises: BadInput: columns are missing, or hold what cannot be used; the files changed meanwhile.
    """
    table = open_table(source.path, Spelling.of(data))
    columns = _wanted(table, data)
    sha256 = _import(table, columns, data, path, bias=bias)
    if data.dependent == "drop":
        dependent = _dependent_terms(path, bias=bias)
        if dependent:
            sha256 = _import(table, columns, data, path, bias=bias, dependent=dependent)
    state: list[int] = []
    for file in source.files:
        with readable(file):
            state += state_of(file)
    if tuple(state) != source.state:
        raise BadInput(f"{for_message(source.path)} changed while it was read: run again when it is complete")
    return sha256


def _import(
    table: Table,
    columns: Sequence[str],
    data: Data,
    path: Path,
    *,
    bias: bool,
    dependent: Mapping[str, str] | None = None,
) -> str:
    """Import the rows. dependent: terms to leave out, each with the reason."""
    required = _required(data)
    inputs = tuple(columns[: -len(required)])
    levels: dict[str, tuple[str, ...]] = {}
    categories = [name for name in data.categories or () if name in columns]
    notes: list[str] = []
    if categories:
        levels = _levels(table, data, inputs, categories, notes)
    rows = _Rows(table, data, inputs, levels)
    terms = terms_of(inputs, levels)
    twice = [name for name in (*terms, *required) if [*terms, *required].count(name) > 1]
    if twice:
        raise BadInput(f"{table.where}: {quoted(twice[0], MAX_NAME)} is a column and a level of a category: rename one")
    features = tuple(term for term in terms if term not in (dependent or {}))
    num_rows, sha256 = write_dataset(
        path,
        rows,
        features=features,
        target=required[-1],
        weight=data.weight,
        types=dict.fromkeys((*features, *required), np.dtype(np.float64)),
        repetitive=frozenset(features) - frozenset(columns),
        degree=data.polynomial or 1,
        columns=inputs,
        levels=levels,
        notes=lambda: [*_left_out(table, data), *rows.notes(), *notes, *(dependent or {}).values()],
    )
    if bias and data.dependent == "refuse":
        rows.note_constants()
    if rows.problems:
        rows.problems.refuse(rows.gaps)
    if num_rows == 0 and rows.weightless:
        raise BadInput(
            f"{table.where} has no rows: the weight in {quoted(required[0], MAX_NAME)} is 0 in all that are left"
        )
    if num_rows == 0 or (data.dependent == "refuse" and (rows.gaps.dropped or levels or rows.weightless)):
        refuse_too_few(table, num_rows, data.polynomial or len(terms), levels, rows.gaps, bias=bias)
    return sha256


def _left_out(table: Table, data: Data) -> Iterator[str]:
    """Yield what was read of a table in a way that its reader should know."""
    count = table.names.count("")
    if count and data.features is None and "" not in (data.exclude or ()):
        which = "a column without a name was" if count == 1 else f"{count} columns without a name were"
        yield f"{which} left out: give a name to use it"
    if table.file is not None and data.delimiter == "auto" and table.file.delimiter != ",":
        yield f"values were read as separated by {quoted(table.file.delimiter)}, which stands between the names"


def _dependent_terms(path: Path, *, bias: bool) -> dict[str, str]:
    """Return the terms of a dataset that depend on the bias and the terms before them, each with the reason."""
    dataset = open_dataset(path)
    factor = np.zeros((0, len(dataset.terms) + bias))
    for block in read_blocks(dataset, reuse=True):
        rows = np.column_stack([np.ones(len(block.x)), block.x]) if bias else block.x
        factor = np.asarray(np.linalg.qr(np.vstack([factor, rows]), mode="r"))
    names = (BIAS, *dataset.terms) if bias else dataset.terms
    dependent = dependences(factor, names)
    return {dependence.name: f"{describe(dependence)}: it was left out" for dependence in dependent}


def import_as_told(data: Data, path: Path) -> str:
    """Import the user's table as it is now."""
    assert data.path is not None
    return import_table(data, look_at(data.path), path)


def _levels(
    table: Table, data: Data, inputs: Sequence[str], categories: Sequence[str], notes: list[str]
) -> dict[str, tuple[str, ...]]:
    """Return the levels of each category, sorted; of complete rows alone where others are dropped."""
    problems, seen = Problems(table, data.target, data.weight), {name: set[str]() for name in categories}
    required, drops = _required(data), data.missing == "drop"
    columns = (*inputs, *required)
    first_row, gaps = 1, Gaps(columns, num_required=len(required))
    for batch in table.read(table.places(columns)):
        texts: dict[str, list[str | None]] = {}
        missing = np.zeros((len(batch[0]), len(columns)), dtype=bool)
        used = np.ones(len(batch[0]), dtype=bool)
        for j, (array, name) in enumerate(zip(batch, columns, strict=True)):
            if name in seen:
                texts[name], missing[:, j] = labels(array, name, table, problems, first_row)
            else:
                values, missing[:, j] = numbers(array, name, table, problems, first_row)
                used &= (values != 0) | (name != data.weight)
            problems.add(name, "missing", missing[:, j] & (not drops), first_row)
        gaps.add(missing)
        used &= ~np.any(missing, axis=1)
        for name, labelled in texts.items():
            if len(seen[name]) <= MOST_LEVELS:
                is_used: list[bool] = used.tolist()
                seen[name].update(
                    value for value, has_row in zip(labelled, is_used, strict=True) if has_row and value is not None
                )
        first_row += len(batch[0])
    complete = gaps.num_rows - gaps.dropped
    if not complete and not problems:
        refuse_too_few(table, 0, len(columns) - 1, {}, gaps, bias=True)
    for name, levels in seen.items():
        if hardly_repeats(len(levels), complete) and complete > 1 and not problems:
            detail = f" ({len(levels):,} in {complete:,} rows)" if len(levels) <= MOST_LEVELS else ""
            problems.add_column(name, "levels", detail)
        elif len(levels) < 2 and first_row > 1:
            problems.add_column(name, "level")
    if problems:
        problems.refuse(gaps)
    for name, levels in seen.items():
        notes += _odd_levels(name, levels, table)
    return {name: tuple(sorted(levels, key=_in_order)) for name, levels in seen.items()}


def _odd_levels(name: str, levels: set[str], table: Table) -> Iterator[str]:
    """Yield what levels look like, if not like those of a category."""
    kinds = {level: classify(level, table.spelling)[0] for level in levels}
    words = [level for level, kind in kinds.items() if kind in ("text", "truth", "unit")]
    totals = [level for level in levels if is_total(level)]
    if totals:
        yield f"{quoted(name, MAX_NAME)} has the level {listed(totals)}: data.nulls and data.missing leave its row out"
    if all(kind == "date" for kind in kinds.values()):
        yield f"{quoted(name, MAX_NAME)} is a category of {len(levels)} dates: data.dates makes it a number of days"
    elif len(levels) > 5 * len(words) and set(kinds.values()) != {"number"}:
        beside = f", beside {listed(sorted(words))}" if words else ""
        yield (
            f"{quoted(name, MAX_NAME)} is a category of {len(levels) - len(words)} numbers{beside}: is a total, a mark "
            "of a missing value or a symbol among them?"
        )


def _in_order(level: str) -> tuple[float, str]:
    """Numbers by size, before other text."""
    try:
        number = float(level)
    except ValueError:
        return math.inf, level
    return (number if math.isfinite(number) else math.inf), level


class _Rows:
    """The rows of a table as blocks of terms and target, and what was seen of them."""

    def __init__(self, table: Table, data: Data, inputs: Sequence[str], levels: Mapping[str, Sequence[str]]) -> None:
        required = _required(data)
        self.problems = Problems(table, data.target, data.weight)
        self.gaps = Gaps((*inputs, *required), num_required=len(required))
        self.weightless = 0
        """Number of rows of weight 0."""
        self._table, self._inputs, self._required, self._levels = table, inputs, required, levels
        self._weight, self._drops = data.weight, data.missing == "drop"
        self._suspicions = Suspicions(required[-1])
        self._low: dict[str, float] = {}
        self._high: dict[str, float] = {}
        # The last value of each column that so far rises by one from row to row.
        is_watched = data.features is None and len(inputs) > 1
        self._rising: dict[str, float | None] = dict.fromkeys(inputs) if is_watched else {}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        terms, columns = (*terms_of(self._inputs, self._levels), *self._required), self.gaps.columns
        for batch in self._table.read(self._table.places(columns)):
            first_row = self.gaps.num_rows + 1
            values, missing = read_terms(
                batch, columns, self._levels, self._table, self.problems, first_row, weight=self._weight
            )
            block = dict(zip(terms, values, strict=True))
            self._watch(block)
            self.gaps.add(missing)
            unused: np.ndarray = np.asarray(missing.any(axis=1))
            if unused.any() and not self._drops:
                for j, name in enumerate(columns):
                    self.problems.add(name, "missing", missing[:, j], first_row)
            if self._weight is not None:
                weightless = self._see_weights(block[self._weight], unused, first_row)
                self.weightless += int(weightless.sum())
                unused = unused | weightless
            if unused.any():
                block = {name: column[~unused] for name, column in block.items()}
            seen = {name: block[name] for name in columns if name in block and name != self._weight}
            self._suspicions.see(seen, np.flatnonzero(~unused) + first_row)
            for name, column in block.items():
                if len(column):
                    self._low[name] = min(self._low.get(name, np.inf), float(column.min()))
                    self._high[name] = max(self._high.get(name, -np.inf), float(column.max()))
            yield block

    def _see_weights(self, weights: np.ndarray, gaps: np.ndarray, first_row: int) -> np.ndarray:
        """Note weights that none can be, and return whether each row has weight 0, shape (n,)."""
        assert self._weight is not None
        self.problems.add(self._weight, "negative", weights < 0, first_row, weights)
        sizes = np.abs(weights)
        beyond = (sizes > MAX_WEIGHT) | ((sizes < 1 / MAX_WEIGHT) & (sizes > 0))
        self.problems.add(self._weight, "weight", beyond, first_row, weights)
        weightless: np.ndarray = (weights == 0) & ~gaps
        return weightless

    def note_constants(self) -> None:
        """Note the features that are the same in every row."""
        num_rows = self.gaps.num_rows - self.gaps.dropped - self.weightless
        for name in self._inputs:
            if self._low.get(name, 0) == self._high.get(name, 1) and num_rows > 1:
                self.problems.add_column(name, "constant")

    def notes(self) -> list[str]:
        """Return what a reader of the fit should know of the rows."""
        notes = []
        dropped, num_rows = self.gaps.dropped, self.gaps.num_rows
        if dropped and self._drops:
            which = ", ".join(f"{quoted(name, MAX_NAME)} {count:,}" for name, count in self.gaps.by_column().items())
            notes.append(f"{dropped:,} of {num_rows:,} rows had no value and were left out: {which}")
        if self._weight is not None:
            left_out = f"; {self.weightless:,} of weight 0 were left out" if self.weightless else ""
            notes.append(f"rows count by their weight in {quoted(self._weight, MAX_NAME)}{left_out}")
        for name, levels in self._levels.items():
            notes.append(
                f"{quoted(name, MAX_NAME)} has {len(levels)} levels; the first, {quoted(levels[0], MAX_NAME)}, has no "
                "column: the others are relative to it"
            )
        dates, zeros = (self.problems.columns_with(sort) for sort in ("dates", "leading zeros"))
        if zeros:
            notes.append(
                f"{listed(zeros)} has numbers with leading zeros, as codes have: data.categories takes them so"
            )
        if grouped := self.problems.columns_with("groups", "hundreds", without="others"):
            notes.append(
                f"{listed(grouped)} has whole numbers of three digits, and numbers such as 1.630: if the point stands "
                "between thousands, data.thousands and data.decimal say so"
            )
        if dates:
            order = "" if self._table.file is None else f", written {self._table.spelling.dates}"
            notes.append(f"{listed(dates)} is in days since 1970-01-01{order}")
        numbered = [name for name in self._rising if num_rows >= _NUMBERED_ROWS]
        if numbered:
            notes.append(
                f"{listed(numbered)} rises by one from row to row, like a row number: data.exclude leaves it out "
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
