"""Find a stored model, and use it to predict from numbers or from a table by column names. Trains nothing."""

from __future__ import annotations

import csv
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lntx.config.schema import Section
from lntx.data.dataset import Block
from lntx.data.tables import read_frame, read_table
from lntx.errors import BadInput, Damaged
from lntx.evaluation.residuals import residuals
from lntx.files import MAX_MODEL_BYTES, parse_json, read_regular
from lntx.numerics.powers import powers
from lntx.runs.run import DamagedRun, pointer_path, read_pointer, read_run
from lntx.store.record import Record
from lntx.store.store import Store
from lntx.text import listed, quoted, shown

if TYPE_CHECKING:
    from lntx.export.formats import Predictor


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model and the names of its inputs."""

    path: Path
    """The exported file."""

    run: str | None
    """The run that exported it; None for a file."""

    features: tuple[str, ...] | None
    """Names of the columns to predict from, in order; None for a file that is no known export."""

    ask: Predictor
    """Maps rows to predictions, shape (num_rows, 1); computes the powers of a polynomial."""

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Predict rows, shape (num_rows, num_features), one feature for a polynomial; returns shape (num_rows,).

        Raises: BadInput: wrong number of features; a number or a prediction that is not finite.
        """
        if self.features is not None and rows.shape[1] != len(self.features):
            raise BadInput(
                f"the model takes {len(self.features)} numbers ({listed(self.features)}), got {rows.shape[1]}"
            )
        if not np.isfinite(rows).all():
            raise BadInput(f"numbers to predict from must be finite, got {rows[~np.isfinite(rows)][0]}")
        predictions = self.ask(rows)[:, 0]
        if not np.isfinite(predictions).all():
            raise BadInput(f"the prediction is {predictions[~np.isfinite(predictions)][0]}: the numbers are too large")
        return predictions

    def predict_frame(self, frame: Any) -> np.ndarray:
        """Predict the rows of a data frame by column names; returns shape (num_rows,).

        Raises: BadInput: a column is missing or cannot be used; and as `predict`.
        """
        return self.predict(read_frame(frame, self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features. Raises: BadInput: they are not known."""
        if self.features is None:
            raise BadInput(f"{shown(self.path)} does not say what its features are called: use --run, or give numbers")
        return self.features


class _Inputs(Section, extra="ignore"):
    """The inputs of a model, as stored in the card of an export."""

    features: tuple[str, ...]
    degree: int = 1


def find_model(
    store: Store, *, run: str | None = None, path: str | os.PathLike[str] | None = None, trust: Sequence[str] = ()
) -> Model:
    """Find the model of a file, of a run, or of the last passing run.

    trust: digests of .pt2 files that may be loaded although this root did not record them.

    Raises: BadInput: there is none, or it is not trusted. Damaged: its bytes have changed.
    """
    if run is not None and path is not None:
        raise BadInput("give either a run or a model file")
    records = [*store.records("export")]
    trusted = {file.sha256 for record in records for file in record.files} | set(trust)
    if path is not None:
        # A local import, because loading a model imports torch.
        from lntx.export.formats import read_model

        content = read_model(Path(path))
        return _load(Path(path), content, _inputs_of(store, records, content), None, trusted)
    found = read_run(store, run if run is not None else _current(store))
    if not found.has_digest:
        raise BadInput(f"run {found.run} has no digest, so that it can be shown but not used: run it again")
    if not found.exports:
        raise BadInput(f"run {found.run} exported no model")
    # safetensors loads fastest.
    place = found.exports.get("safetensors") or next(iter(found.exports.values()))
    file = store.root / place
    stored = {known.path: known.sha256 for known in found.stages["export"].files}
    try:
        content = read_regular(file, most=MAX_MODEL_BYTES)
    except OSError:
        raise BadInput(f"{shown(file)} is gone: lntx run computes it again") from None
    if hashlib.sha256(content).hexdigest() != stored.get(place):
        raise Damaged(f"{shown(file)} was altered: lntx run computes it again")
    degree = found.config.data.polynomial or 1
    inputs = None if found.features is None else _Inputs(features=found.features, degree=degree)
    return _load(file, content, inputs, found.run, trusted)


def _load(file: Path, content: bytes, inputs: _Inputs | None, run: str | None, trusted: set[str]) -> Model:
    # A local import, because it imports torch: a missing model is reported without it.
    from lntx.export.formats import predictor_of

    if inputs is None or inputs.degree == 1:
        terms = None if inputs is None else inputs.features
        return Model(path=file, run=run, features=terms, ask=predictor_of(content, file, trusted=trusted))
    ask = _of_powers(content, file, inputs.degree, trusted)
    return Model(path=file, run=run, features=inputs.features[:1], ask=ask)


def _of_powers(content: bytes, file: Path, degree: int, trusted: set[str]) -> Predictor:
    """Return a predictor for a polynomial of one feature, as accurate as its fit. Powers rounded to float64 would lose
    the digits that the condition number requires.
    """
    from lntx.export.formats import model_of, predictor_of

    if file.suffix != ".safetensors":
        ask = predictor_of(content, file, trusted=trusted)
        return lambda rows: ask(powers(rows[:, 0], degree)[0])
    model = model_of(content, file)
    dtype = np.float32 if model.linear.weight.dtype.itemsize == 4 else np.float64

    def predict(rows: np.ndarray) -> np.ndarray:
        high, low = powers(rows[:, 0], degree)
        with np.errstate(over="ignore", invalid="ignore"):
            left = residuals(Block(high, np.zeros(len(rows)), low), model.weights, model.bias or 0.0)
        predictions: np.ndarray = np.negative(left)[:, None].astype(dtype)
        return predictions

    return predict


def _current(store: Store) -> str:
    """Return the name of the last passing run."""
    try:
        pointer = read_pointer(store)
    except DamagedRun as error:
        raise BadInput(f"{shown(pointer_path(store))} is damaged: {error}") from None
    if pointer is None:
        raise BadInput(f"there is no passing run in {shown(store.root)} yet: lntx run makes one")
    return pointer.run


def _inputs_of(store: Store, records: Sequence[Record], content: bytes) -> _Inputs | None:
    """Return the names of the terms and the degree, or None if the bytes are no export of this store."""
    sha256 = hashlib.sha256(content).hexdigest()
    for record in records:
        if any(file.sha256 == sha256 for file in record.files):
            card = record.file("card.json")
            try:
                said = read_regular(store.path(card))
                if hashlib.sha256(said).hexdigest() == card.sha256:
                    return _Inputs.model_validate(parse_json(said))
            except (OSError, ValueError):
                continue
    return None


def write_predictions(model: Model, source: Path, target: Path) -> int:
    """Copy a table and append a column `prediction`; the other columns stay unchanged.

    source: Parquet or CSV. target: Parquet or CSV, by its suffix; replaced atomically at the end.

    Returns: the number of rows.

    Raises: BadInput: a column is missing or cannot be used; the target cannot be written.
    """
    names = model.names
    is_csv = target.suffix.lower() == ".csv"
    if not is_csv and target.suffix.lower() not in (".parquet", ".pq"):
        raise BadInput(f"--output must end in .csv or .parquet, got {quoted(target)}")
    num_rows = 0
    try:
        with tempfile.TemporaryDirectory(prefix=".lntx-", dir=target.parent) as folder:
            partial = Path(folder) / "partial"
            writer: Any = None
            for read, rows in read_table(source, names, typed=not is_csv):
                if "prediction" in read.schema.names:
                    raise BadInput(f"{shown(source)} already has a column 'prediction': rename it")
                batch = read.append_column("prediction", pa.array(model.predict(rows)))
                if writer is None:
                    writer = (_CsvWriter if is_csv else pq.ParquetWriter)(partial, batch.schema)
                writer.write_batch(batch)
                num_rows += batch.num_rows
            if writer is None:
                raise BadInput(f"{shown(source)} has no rows")
            writer.close()
            partial.replace(target)
    except pa.ArrowException as error:
        raise BadInput(f"cannot write {shown(target)}: {type(error).__name__}") from None
    except OSError as error:
        raise BadInput(f"cannot write {shown(target)}: {error.strerror or type(error).__name__}") from None
    return num_rows


class _CsvWriter:
    """Writes batches as CSV with minimal quoting; values that were read as text are written unchanged."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._stream = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._stream, lineterminator="\n")
        self._writer.writerow(schema.names)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Write rows."""
        columns = [pc.cast(column, pa.string()).to_pylist() for column in batch.columns]
        self._writer.writerows(zip(*columns, strict=True))

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
