"""Find a stored model, and use it to predict from numbers or from a table by column names. Trains nothing."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from lntx.base.errors import BadInput, Damaged
from lntx.base.files import MAX_MODEL_BYTES, parse_json, read_regular
from lntx.base.text import for_message, listed
from lntx.config.schema import Data, Section
from lntx.evaluation.inference import t_quantile
from lntx.export.formats import Linear, linear_of, predictor_of, read_model
from lntx.numerics.powers import powers
from lntx.numerics.residuals import residuals
from lntx.runs.records import pointer_path, read_pointer, read_run
from lntx.store.sealed import DamagedFile
from lntx.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from lntx.data.tables import Table
    from lntx.export.formats import Predictor
    from lntx.runs.run import Run


Interval = Literal["confidence", "prediction"]


class Spread(Section, extra="ignore"):
    """What the width of intervals depends on, as the evaluation of the fit says."""

    factor: tuple[tuple[float, ...], ...] | None = None
    """R of the QR factorisation of [x, 1]; None for many coefficients."""

    residual_sd: float | None = None
    """Residual standard deviation."""

    degrees_of_freedom: int = 0
    """Residual degrees of freedom."""

    def reach(self, terms: np.ndarray, interval: Interval, level: float) -> np.ndarray:
        """Return the half-width of the interval of each row, shape (n,): of the mean (confidence) or of a new value
        (prediction) (Draper and Smith, Applied Regression Analysis, 1998, section 3.1).

        terms: shape (n, num_terms). level: such as 0.95.

        Raises: BadInput: the fit has no residual degrees of freedom, or more than 200 coefficients.
        """
        if not 0 < level < 1:
            raise BadInput(f"the level of an interval lies between 0 and 1, got {level:g}: 0.95 is usual")
        if self.residual_sd is None:
            raise BadInput("the fit has as many weights as rows: nothing is left to tell how wide an interval is")
        if self.factor is None:
            raise BadInput("intervals are kept for models of at most 200 coefficients, and this one has more")
        factor = np.array(self.factor)
        rows = np.column_stack([terms, np.ones(len(terms))])[:, : len(factor)]
        leverage = (np.linalg.solve(factor.T, rows.T) ** 2).sum(axis=0)
        width = t_quantile((1 + level) / 2, self.degrees_of_freedom) * self.residual_sd
        reach: np.ndarray = width * np.sqrt(leverage + (interval == "prediction"))
        return reach


class Inputs(Section, extra="ignore"):
    """The inputs of a model, as the card of its export says."""

    features: tuple[str, ...]
    """Names of its terms, one per weight."""

    columns: tuple[str, ...] | None = None
    """The columns of a table that they come from, if those have other names."""

    levels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Levels of each column that is a category."""

    degree: int = 1
    """Degree of the polynomial in the only column; 1 for an ordinary linear model."""

    data: Data = Data()
    """How the table of the run was read."""

    evaluation: Spread = Spread()
    """What intervals need of the evaluation."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model and the names of its inputs."""

    path: Path
    """The exported file."""

    run: str | None
    """The run that exported it; None for a file."""

    inputs: Inputs | None
    """Its inputs; None for a file that is no known export."""

    ask: Predictor
    """Maps rows to predictions, shape (num_rows, 1); computes the powers of a polynomial."""

    @property
    def features(self) -> tuple[str, ...] | None:
        """Names of the columns to predict from, in order; None if they are not known."""
        if self.inputs is None:
            return None
        if self.inputs.columns is not None:
            return self.inputs.columns
        return self.inputs.features[:1] if self.inputs.degree > 1 else self.inputs.features

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Predict rows, shape (num_rows, num_features), one feature for a polynomial; returns shape (num_rows,).

        Raises: BadInput: wrong number of features; a category among them; a number or a prediction that is not finite.
        """
        if self.inputs is not None and self.inputs.levels:
            names = listed(self.inputs.levels)
            advice = "give a table, with --input FILE --output FILE, or a data frame in Python"
            raise BadInput(f"the model has categories ({names}): {advice}")
        if self.features is not None and rows.shape[1] != len(self.features):
            raise BadInput(
                f"the model takes {len(self.features)} numbers ({listed(self.features)}), got {rows.shape[1]}"
            )
        return self._predict_terms(rows)

    def predict_frame(
        self, frame: Any, *, interval: Interval | None = None, level: float = 0.95
    ) -> dict[str, np.ndarray]:
        """Predict the rows of a data frame by column names; returns columns as `predict_table` does.

        Raises: BadInput: a column is missing or cannot be used; and as `predict`.
        """
        from lntx.data.frames import arrow_table
        from lntx.data.spelling import Spelling
        from lntx.data.tables import table_of

        used = arrow_table(frame, lambda name: name in (self.features or ()))
        spelling = Spelling() if self.inputs is None else Spelling.of(self.inputs.data)
        parts = [added for _, added in self.predict_table(table_of(used, spelling), interval=interval, level=level)]
        names = columns_of(interval)
        return {name: np.concatenate([part[name] for part in parts]) if parts else np.empty(0) for name in names}

    def predict_table(
        self, table: Table, *, interval: Interval | None = None, level: float = 0.95
    ) -> Iterator[tuple[list[pa.Array], dict[str, np.ndarray]]]:
        """Predict the rows of a table by column names.

        Yields: batches of all its columns, and what is added to them, shape (n,) each: `prediction` and, with an
        interval, its ends `low` and `high`.

        Raises: BadInput: as `predict_frame`.
        """
        from lntx.data.columns import read_terms, terms_of
        from lntx.data.problems import Problems

        if self.inputs is None or self.features is None:
            raise BadInput(
                f"{for_message(self.path)} does not say what its features are called: use --run, or give numbers"
            )
        places, first_row, problems = table.places(self.features), 1, Problems(table, None)
        every = terms_of(self.features, self.inputs.levels)
        # Terms that depended on others were left out of the fit.
        chosen = [every.index(name) for name in self.inputs.features] if self.inputs.degree == 1 else [0]
        for batch in table.read(range(len(table.names))):
            columns = [batch[j] for j in places]
            terms, gaps = read_terms(columns, self.features, self.inputs.levels, table, problems, first_row)
            for j, name in enumerate(self.features):
                problems.add(name, "missing", gaps[:, j], first_row)
            # With a problem the rest is read all the same: the message counts the rows of the whole table.
            if not problems:
                rows = np.stack([terms[j] for j in chosen], axis=1)
                added = {"prediction": self._predict_terms(rows)}
                if interval is not None:
                    x = rows if self.inputs.degree == 1 else powers(rows[:, 0], self.inputs.degree)[0]
                    reach = self.inputs.evaluation.reach(x, interval, level)
                    added |= {"low": added["prediction"] - reach, "high": added["prediction"] + reach}
                yield batch, added
            first_row += len(gaps)
        if problems:
            problems.refuse()

    def _predict_terms(self, rows: np.ndarray) -> np.ndarray:
        if not np.isfinite(rows).all():
            raise BadInput(f"numbers to predict from must be finite, got {rows[~np.isfinite(rows)][0]}")
        predictions = self.ask(rows)[:, 0]
        if not np.isfinite(predictions).all():
            raise BadInput(f"the prediction is {predictions[~np.isfinite(predictions)][0]}: the numbers are too large")
        return predictions


def columns_of(interval: Interval | None) -> tuple[str, ...]:
    """Return the names of the columns that a prediction adds."""
    return ("prediction",) if interval is None else ("prediction", "low", "high")


def find_model(
    store: Store, *, run: str | None = None, path: str | os.PathLike[str] | None = None, trust: Sequence[str] = ()
) -> Model:
    """Find the model of a file, of a run, or of the last passing run.

    trust: digests of .pt2 files that may be loaded although this root did not record them.

    Raises: BadInput: there is none, or it is not trusted. Damaged: its bytes have changed.
    """
    if run is not None and path is not None:
        raise BadInput("give either a run or a model file")
    if path is not None:
        content = read_model(Path(path))
        sha256 = hashlib.sha256(content).hexdigest()
        return _load(Path(path), content, _inputs_of(store, sha256), None, _trusted(store, trust))
    record = read_run(store, run if run is not None else _current(store))
    if not record.exports:
        raise BadInput(f"run {record.run} exported no model")
    # safetensors needs no torch.
    place = record.exports.get("safetensors") or next(iter(record.exports.values()))
    file = store.root / place
    stored = {known.path: known.sha256 for known in record.stages["export"].files}
    try:
        content = read_regular(file, most=MAX_MODEL_BYTES)
    except OSError:
        raise BadInput(f"{for_message(file)} is gone: lntx run computes it again") from None
    if hashlib.sha256(content).hexdigest() != stored.get(place):
        raise Damaged(f"{for_message(file)} was altered: lntx run computes it again")
    inputs = None
    if record.features is not None:
        data = record.config.data
        inputs = Inputs(
            features=record.features,
            columns=record.columns,
            levels=record.levels,
            degree=data.polynomial or 1,
            data=data,
            evaluation=_spread_of(store, record),
        )
    return _load(file, content, inputs, record.run, {*stored.values(), *trust})


def _spread_of(store: Store, run: Run) -> Spread:
    """Return what intervals need of the evaluation of a run; nothing if its file is gone or altered."""
    for known in run.stages["evaluate"].files:
        with contextlib.suppress(OSError, ValueError):
            content = read_regular(store.root / known.path)
            if hashlib.sha256(content).hexdigest() == known.sha256:
                return Spread.model_validate(parse_json(content))
    return Spread()


def _trusted(store: Store, trust: Iterable[str]) -> set[str]:
    return {file.sha256 for record in store.records("export") for file in record.files} | set(trust)


def _load(file: Path, content: bytes, inputs: Inputs | None, run: str | None, trusted: set[str]) -> Model:
    degree = 1 if inputs is None else inputs.degree
    if degree == 1:
        return Model(path=file, run=run, inputs=inputs, ask=predictor_of(content, file, trusted=trusted))
    if file.suffix == ".safetensors":
        ask = _of_powers(linear_of(content, file), degree)
    else:
        plain = predictor_of(content, file, trusted=trusted)

        def ask(rows: np.ndarray) -> np.ndarray:
            return plain(powers(rows[:, 0], degree)[0])

    return Model(path=file, run=run, inputs=inputs, ask=ask)


def _of_powers(model: Linear, degree: int) -> Predictor:
    """Predict a polynomial from its feature with unrounded powers: powers rounded to float64 would lose as many digits
    as the condition number has.
    """

    def predict(rows: np.ndarray) -> np.ndarray:
        high, low = powers(rows[:, 0], degree)
        with np.errstate(over="ignore", invalid="ignore"):
            left = residuals(high, np.zeros(len(rows)), model.weights, model.bias or 0.0, low=low)
        predictions: np.ndarray = np.negative(left)[:, None].astype(model.dtype)
        return predictions

    return predict


def _current(store: Store) -> str:
    """Return the name of the last passing run."""
    try:
        pointer = read_pointer(store)
    except DamagedFile as error:
        raise BadInput(f"{for_message(pointer_path(store))} is damaged: {error}") from None
    if pointer is None:
        raise BadInput(f"there is no passing run in {for_message(store.root)} yet: lntx run makes one")
    return pointer.run


def _inputs_of(store: Store, sha256: str) -> Inputs | None:
    """Return the inputs of the export of this store with a digest, or None if it has none or several: models of the
    same numbers are the same file, whatever their features are called.
    """
    inputs: list[Inputs] = []
    for record in store.records("export"):
        if any(file.sha256 == sha256 for file in record.files):
            card = record.file("card.json")
            try:
                content = read_regular(store.path(card))
                if hashlib.sha256(content).hexdigest() == card.sha256:
                    inputs.append(Inputs.model_validate(parse_json(content)))
            except (OSError, ValueError):
                continue
    return inputs[0] if inputs and all(other == inputs[0] for other in inputs) else None
