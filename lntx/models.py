"""Find the model that a person means, and use it on numbers or on a table by its columns' names. Trains nothing."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from lntx.dataset import Block
from lntx.errors import BadInput, Damaged
from lntx.figures import residuals
from lntx.powers import powers
from lntx.runs import read_run
from lntx.store import Store
from lntx.tables import read_table

if TYPE_CHECKING:
    from lntx.prediction import Predictor


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model and what its inputs are called."""

    path: Path
    """The exported file."""

    features: tuple[str, ...] | None
    """Names of the columns to predict from, in order; none for a file without a known history."""

    ask: Predictor
    """Rows to predictions, shape (num_rows, 1); a polynomial's powers are made on the way."""

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Predict rows, shape (num_rows, num_features), one feature for a polynomial; returns shape (num_rows,).

        Raises: BadInput: another number of features; a number, or a prediction, that is not finite.
        """
        if self.features is not None and rows.shape[1] != len(self.features):
            raise BadInput(
                f"the model takes {len(self.features)} numbers ({', '.join(self.features)}), got {rows.shape[1]}"
            )
        if not np.isfinite(rows).all():
            raise BadInput(f"numbers to predict from must be finite, got {rows[~np.isfinite(rows)][0]}")
        predictions = self.ask(rows)[:, 0]
        if not np.isfinite(predictions).all():
            raise BadInput(f"the prediction is {predictions[~np.isfinite(predictions)][0]}: the numbers are too large")
        return predictions


def find_model(store: Store, *, run: str | None = None, path: str | os.PathLike[str] | None = None) -> Model:
    """Find a model: a file's, a run's, or the last passing run's.

    Raises: BadInput: there is none. Damaged: its bytes are not those that were stored.
    """
    if run is not None and path is not None:
        raise BadInput("give either a run or a model file")
    if path is not None:
        file = Path(path)
        return _load(file, *_inputs_of(store, file))
    record = read_run(store, run if run is not None else _current(store))
    if not record.exports:
        raise BadInput(f"run {record.run} exported no model")
    # safetensors loads quickest.
    place = record.exports.get("safetensors") or next(iter(record.exports.values()))
    file = store.root / place
    if not file.is_file():
        raise BadInput(f"{file} is gone: lntx run computes it again")
    stored = {known.path: known.sha256 for known in record.stages["export"].files}
    if hashlib.sha256(file.read_bytes()).hexdigest() != stored[place]:
        raise Damaged(f"{file} was altered: lntx run computes it again")
    return _load(file, record.features, record.config.data.polynomial or 1)


def _load(file: Path, terms: tuple[str, ...] | None, degree: int) -> Model:
    # Here, because it imports torch: a missing model is known without.
    from lntx.prediction import load_predictor

    if degree == 1:
        return Model(path=file, features=terms, ask=load_predictor(file))
    return Model(path=file, features=terms and terms[:1], ask=_of_powers(file, degree))


def _of_powers(file: Path, degree: int) -> Predictor:
    """A polynomial's predictions from its one feature, as exact as its fit: powers rounded to float64 would lose what
    the condition number asks for.
    """
    from lntx.prediction import load_model, load_predictor

    if file.suffix != ".safetensors":
        ask = load_predictor(file)
        return lambda rows: ask(powers(rows[:, 0], degree)[0])
    model = load_model(file)
    dtype = np.float32 if model.linear.weight.dtype.itemsize == 4 else np.float64

    def predict(rows: np.ndarray) -> np.ndarray:
        high, low = powers(rows[:, 0], degree)
        with np.errstate(over="ignore", invalid="ignore"):
            left = residuals(Block(high, np.zeros(len(rows)), low), model.weights, model.bias or 0.0)
        predictions: np.ndarray = np.negative(left)[:, None].astype(dtype)
        return predictions

    return predict


def _current(store: Store) -> str:
    """Name of the last passing run."""
    pointer = store.artifacts / "current.json"
    try:
        return str(json.loads(pointer.read_bytes())["run"])
    except FileNotFoundError:
        raise BadInput(f"there is no passing run in {store.root} yet: lntx run makes one") from None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{pointer} is damaged: the next passing lntx run rewrites it") from None


def _inputs_of(store: Store, file: Path) -> tuple[tuple[str, ...] | None, int]:
    """Names of the terms and the degree, if the file is an export of this store."""
    for record in store.records("export"):
        if any(store.path(stored).resolve() == file.resolve() for stored in record.files):
            card = store.path(record.file("card.json"))
            if card.is_file():
                said = json.loads(card.read_bytes())
                return tuple(said["features"]), said.get("degree", 1)
    return None, 1


def write_predictions(model: Model, source: Path, target: Path) -> int:
    """Write a table with its feature columns and a column `prediction`.

    source: Parquet or CSV. target: Parquet or CSV, by its suffix; replaced whole at the end.

    Returns: the number of rows.

    Raises: BadInput: a column is missing or cannot be used; the target cannot be written.
    """
    if model.features is None:
        raise BadInput(f"{model.path} does not say what its features are called: use --run, or give numbers")
    is_csv = target.suffix.lower() == ".csv"
    if not is_csv and target.suffix.lower() not in (".parquet", ".pq"):
        raise BadInput(f"--output must end in .csv or .parquet, got {target}")
    num_rows = 0
    try:
        with tempfile.TemporaryDirectory(prefix=".lntx-", dir=target.parent) as folder:
            partial = Path(folder) / target.name
            writer = None
            for read, rows in read_table(source, model.features):
                if "prediction" in read.schema.names:
                    raise BadInput(f"{source} already has a column 'prediction': rename it")
                batch = read.append_column("prediction", pa.array(model.predict(rows)))
                if writer is None:
                    make = pyarrow.csv.CSVWriter if is_csv else pq.ParquetWriter
                    writer = make(partial, batch.schema)
                writer.write_batch(batch)
                num_rows += batch.num_rows
            if writer is None:
                raise BadInput(f"{source} has no rows")
            writer.close()
            partial.replace(target)
    except pa.ArrowException as error:
        raise BadInput(f"cannot write {target}: {str(error).splitlines()[0]}") from None
    except OSError as error:
        raise BadInput(f"cannot write {target}: {error.strerror or error}") from None
    return num_rows
