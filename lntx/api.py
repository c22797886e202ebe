"""The Python interface: `run`, `fit` and `predict`, for scripts and notebooks, without an orchestrator."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from lntx.base.errors import BadInput
from lntx.base.stages import Stage, select
from lntx.base.text import listed, quoted, suggest
from lntx.config.loading import KEYS, settle, unknown
from lntx.config.schema import Data, Evaluate, Export, Pipeline, Section, Train
from lntx.data.frames import held, is_frame, with_target
from lntx.data.importing import uses
from lntx.evaluation.residuals import each_residual
from lntx.models import Interval, find_model
from lntx.pipeline.outcome import Request
from lntx.pipeline.runner import run_stages
from lntx.report.report import draw
from lntx.runs.run import Run
from lntx.store.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lntx.canary.suite.results import Canary
    from lntx.sweep.sweep import Sweep

Root = str | os.PathLike[str]

_WEIGHTS = 'weights of rows are a column of the table: data={"weight": COLUMN}'
_PENALTY = "the known answer is that of least squares, without a penalty"
_MEANT = {
    "weights": _WEIGHTS,
    "sample_weight": _WEIGHTS,
    "fit_intercept": "bias=False fits without one",
    "intercept": "bias=False fits without one",
    "alpha": _PENALTY,
    "l1_ratio": _PENALTY,
    "penalty": _PENALTY,
    "normalize": 'the coordinates of the descent are chosen by themselves, train={"precondition": …}',
}
"""What does what is meant by arguments of other libraries."""


def run(
    config: Pipeline | None = None,
    *,
    data: Data | Mapping[str, Any] | None = None,
    train: Train | Mapping[str, Any] | None = None,
    evaluate: Evaluate | Mapping[str, Any] | None = None,
    export: Export | Mapping[str, Any] | None = None,
    preset: str | None = None,
    file: Root | None = None,
    from_stage: Stage | None = None,
    until: Stage | None = None,
    only: Stage | None = None,
    force: str | Iterable[str] = (),
    root: Root | None = None,
) -> Run:
    """Run the pipeline and return its outcome; a wrong answer is a result (`verdict`), not an exception.

    config: a whole configuration. Instead of it, give sections, as models or as mappings of their keys; they override
    a preset and a TOML file. force: stages to compute even if stored, or "all". root: folder of data/ and artifacts/;
    default: LNTX_ROOT or the current directory.

    Raises: BadInput: the configuration or the user's file cannot be used.
    """
    sections = {"data": data, "train": train, "evaluate": evaluate, "export": export}
    settings = {name: _keys(section) for name, section in sections.items() if section is not None}
    if config is not None and (settings or preset or file):
        raise BadInput("give either config or sections, preset and file")
    pipeline = config or settle(preset=preset, file=file, environment=os.environ, overrides=settings)
    selection = select(
        from_stage=from_stage, until=until, only=only, force=[force] if isinstance(force, str) else force
    )
    return run_stages(Request(pipeline=pipeline, selection=selection, root=_root(root)))


def fit(
    table: Any,
    target: Any = None,
    *,
    features: Sequence[str] | None = None,
    polynomial: int | None = None,
    bias: bool = True,
    data: Data | Mapping[str, Any] | None = None,
    train: Train | Mapping[str, Any] | None = None,
    root: Root | None = None,
    **options: Any,
) -> Run:
    """Run the pipeline on a table; the exact least-squares solution is the known answer.

    table: a data frame of pandas, polars or pyarrow, or the path of a Parquet or CSV file. The rows of a data frame are
    copied to the dataset in the root, the frame itself is not: only a call with it can compute them again.
    target: the column to predict; or its values, beside a data frame or an array of the features, shape (num_rows,
    num_features), whose columns are then called x1, x2 and so on.
    features: the columns to predict from; all but the target by default. polynomial: fit the powers 1…K of the only
    feature. data: more keys of that section, such as {"missing": "drop", "categories": ["region"]}. options: as for
    `run`.

    Raises: BadInput: the table, a column or the configuration cannot be used.
    """
    for name in options:
        _refuse_option(name)
    table, target = with_target(table, target)
    if "target" in _keys(data or {}):
        raise BadInput("give target as an argument of its own, and not in data")
    keys = {**_keys(data or {}), "target": target}
    if features is not None:
        keys["features"] = features
    if polynomial is not None:
        keys["polynomial"] = polynomial
    learning = {"bias": bias, **_keys(train or {})}
    if not is_frame(table):
        if not isinstance(table, (str, os.PathLike)):
            raise BadInput(f"a table is a data frame, or the path of a file, got {type(table).__name__}")
        return run(data={**keys, "path": os.fspath(table)}, train=learning, root=root, **options)
    required = (target, keys.get("weight"))
    with held(table, lambda name: uses(name, required, features, keys.get("exclude"))) as path:
        return run(data={**keys, "path": path}, train=learning, root=root, **options)


def run_canary(*, root: Root | None = None, **options: Any) -> Canary:
    """Prove that this stack still trains correctly, as `lntx canary` does; a wrong answer is a result (`verdict`).

    options: deep, level, blind, seed, repeat, device, compiled, processes, inject, as of that command. root: what later
    canaries are compared with is kept under its artifacts/canary/.

    Raises: BadInput: a value is out of range, or two options contradict each other.
    """
    from lntx.canary.run import run_canary as run_cases
    from lntx.canary.suite.options import settle_options

    return run_cases(settle_options(**options), root=_root(root))


def run_sweep(
    over: Mapping[str, Sequence[Any]],
    *,
    data: Data | Mapping[str, Any] | None = None,
    train: Train | Mapping[str, Any] | None = None,
    evaluate: Evaluate | Mapping[str, Any] | None = None,
    preset: str | None = None,
    root: Root | None = None,
) -> Sweep:
    """Train with every combination of some values, as `lntx sweep` does: `run_sweep({"train.learning_rate": [0.01]})`.

    over: values by key. The other arguments are those of `run`.

    Raises: BadInput: a key or a value cannot be used.
    """
    from lntx.sweep.sweep import sweep

    sections = {"data": data, "train": train, "evaluate": evaluate}
    settings = {name: _keys(section) for name, section in sections.items() if section is not None}
    pipeline = settle(preset=preset, environment=os.environ, overrides=settings)
    return sweep(pipeline, {key: _choices(key, values) for key, values in over.items()}, root=_root(root).absolute())


def _choices(key: str, values: Any) -> list[Any]:
    """Return the values of a key of a sweep. Raises: BadInput: it is no key, or they are no values."""
    if key not in KEYS:
        raise BadInput(unknown("key", str(key), KEYS))
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise BadInput(f"the values of {key} are a list, got {quoted(values)}")
    choices = [value.item() if isinstance(value, np.generic) else value for value in values]
    if not choices:
        raise BadInput(f"{key} has no values to try")
    for value in choices:
        if isinstance(value, float) and not np.isfinite(value):
            raise BadInput(f"{key} must be finite, got {value}")
    return choices


def predict(
    rows: Any,
    *,
    model: Root | None = None,
    run: str | Run | None = None,
    root: Root | None = None,
    trust: str | Sequence[str] = (),
    interval: Interval | None = None,
    level: float = 0.95,
) -> Any:
    """Predict with the model of the last passing run, of a run, or of a file.

    rows: one number (a row of one feature), one row of numbers, or rows, shape (num_rows, num_features), in the order
    of the features; or a data frame of pandas, polars or pyarrow, whose columns are taken by their names.
    run: the name of a run, or what `run` or `fit` returned.
    interval: for a data frame, add the ends of the interval of the mean ("confidence") or of a new value ("prediction")
    at this level; a prediction needs no other column than the features.
    trust: sha256 of a .pt2 file that may be loaded although it is no export of this root: loading one can run code.

    Returns: predictions, shape (num_rows,), in the model's dtype; for a data frame of pandas a series with its index.
    With an interval, a data frame of pandas: prediction, low, high.

    Raises: BadInput: there is no such model, it takes other features, or it is not trusted.
    """
    if interval not in (None, *get_args(Interval)):
        raise BadInput(f"interval is one of {listed(get_args(Interval))}, got {quoted(interval)}")
    if isinstance(run, Run):
        root, run = root or run.root, run.run
    source = find_model(Store(_root(root)), run=run, path=model, trust=[trust] if isinstance(trust, str) else trust)
    if hasattr(rows, "to_frame") and hasattr(rows, "index"):
        # A pandas series: one row, whose index names the columns.
        rows = rows.to_frame().T
    if not is_frame(rows):
        if interval is not None:
            raise BadInput("an interval needs a data frame, whose columns have names")
        return source.predict(_numbers(rows))
    columns = source.predict_frame(rows, interval=interval, level=level)
    if not hasattr(rows, "index") and interval is None:
        return columns["prediction"]
    import pandas as pd

    index = getattr(rows, "index", None)
    if interval is not None:
        return pd.DataFrame(columns, index=index)
    return pd.Series(columns["prediction"], index=index, name="prediction")


def residuals(run: Run) -> np.ndarray:
    """Return the target less the prediction of the learned model for each stored row, shape (num_rows,), each as if
    computed with twice the digits.

    Raises: BadInput: nothing was trained, or the rows are not stored any more.
    """
    files = [run.root / file.path for file in run.stages["generate"].files]
    if run.learned_weights is None or not files or not all(path.exists() for path in files):
        raise BadInput(f"run {run.run} has no residuals: it trained nothing, or its rows are not stored any more")
    return each_residual(files, run.learned_weights, run.learned_bias)


def plot(run: Run, name: str | None = None) -> Figure:
    """Draw a picture of a run's report, by default the first; the pictures are called as there.

    Raises: BadInput: it has no such picture.
    """
    return draw(run, name)


def _refuse_option(name: str) -> None:
    """Refuse an argument that `fit` does not have, with what does what is meant."""
    if name in inspect.signature(run).parameters:
        return
    if name in _MEANT:
        raise BadInput(f"fit has no {name}: {_MEANT[name]}")
    for section in (Data, Train):
        if name in section.model_fields:
            raise BadInput(f"fit takes {name} as {section.__name__.lower()}={{{name!r}: …}}")
    known = [*inspect.signature(fit).parameters, *inspect.signature(run).parameters]
    raise BadInput(f"fit has no {name}{suggest(name, known)}")


def _numbers(rows: Any) -> np.ndarray:
    """Return rows of unnamed numbers as an array, shape (num_rows, num_features)."""
    try:
        array = np.asarray(rows)
        if array.dtype.kind not in "iufb":
            raise TypeError
        numbers = np.atleast_2d(array.astype(np.float64))
        if numbers.ndim > 2:
            raise TypeError
        # Check the original values: numpy rounds integers in a list that also contains floats.
        exact = array if isinstance(rows, np.ndarray) else np.asarray(rows, dtype=object)
        whole = [value for value in exact.ravel().tolist() if isinstance(value, int)]
    except (ValueError, TypeError, OverflowError):
        raise BadInput("rows to predict must be numbers, or a data frame whose columns have names") from None
    if any(int(float(value)) != value for value in whole):
        raise BadInput("rows to predict hold a whole number that float64 cannot")
    return numbers


def _keys(section: Section | Mapping[str, Any]) -> dict[str, Any]:
    return section.model_dump(exclude_unset=True) if isinstance(section, Section) else dict(section)


def _root(root: Root | None) -> Path:
    return Path(root or os.environ.get("LNTX_ROOT") or ".")
