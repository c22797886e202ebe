"""Train every combination of some values, and sort the results, best first.

Small trainings are batched in one tensor (`vectorized`); larger ones run in processes, through the stages of the
pipeline and its cache. A trial that fails is a row. Finished trials are stored and not repeated.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lntx.base.errors import BadInput, LntxError
from lntx.base.files import MAX_MODEL_BYTES, parse_json, read_regular, sha256_of
from lntx.base.progress import report_progress
from lntx.base.stages import Stage
from lntx.base.text import for_message
from lntx.config.schema import Pipeline, Section
from lntx.pipeline.table import TABLE, identify
from lntx.store.key import code_digest, digest_of
from lntx.store.store import Store
from lntx.sweep.grid import Settings, configure, trials
from lntx.sweep.trials import Row, train

logger = logging.getLogger(__name__)

CODE = ("sweep.grid", "sweep.sweep", "sweep.trials", "sweep.vectorized")
"""Modules that determine the rows of a sweep, in addition to those of its stages."""

_STAGES: tuple[Stage, ...] = ("generate", "train", "evaluate")


class Sweep(Section):
    """The outcome of a sweep."""

    sweep: str
    """Its name; the same sweep always has the same name."""

    trials: tuple[Row, ...]
    """The trials, best first: passing ones by digits and epochs, then wrong ones, then those with an error."""

    best: Row | None
    """The first trial if it passed, else None."""

    resumed: int
    """Number of trials that were already known."""

    file: str
    """File of the rows in order of completion, one JSON object per line, relative to the root."""

    picture: str
    """File of the plot, relative to the root."""


def sweep(pipeline: Pipeline, over: Mapping[str, Sequence[Any]], *, root: Path, processes: int | None = None) -> Sweep:
    """Train every combination of the values.

    over: values by dotted key. processes: number of processes for large trainings, by default that of processors; 0:
    this process, with an engine of `lntx/base/workers.py`.

    Raises: BadInput: too many trials, or a root that cannot be written.
    """
    settings = trials(over)
    store = Store(root)
    store.prepare()
    folder = store.artifacts / "sweeps"
    folder.mkdir(exist_ok=True)
    name = digest_of({"pipeline": pipeline.model_dump(mode="json"), "over": dict(over)})[:16]
    log = folder / f"{name}.jsonl"
    with store.lock(f"sweep-{name}"):
        picture = folder / f"{name}.png"
        with store.shared():
            own = store.journal.known()
            for path in (log, picture):
                if path.exists() and store.name_of(path) not in own:
                    store.set_aside(path)
                elif path.exists():
                    # Used again: garbage collection must not treat it as old.
                    os.utime(path)
            store.journal.add({store.name_of(path): None for path in (log, picture)}, durable=False)
        known = _read_log(log)
        rows, waiting, keys = _sort(pipeline, settings, known)
        resumed = len(settings) - len(waiting) - sum(row.error is not None and row.how is None for row in rows.values())
        with log.open("a", encoding="utf-8") as stream:
            if stream.tell() and not _ends_its_line(log):
                stream.write("\n")
            results = train(waiting, root, (os.cpu_count() or 1) if processes is None else processes)
            for count, (place, row) in enumerate(results, start=1):
                report_progress(count, len(waiting), "trials")
                rows[place] = row
                stream.write(json.dumps({"key": keys[place], "row": row.model_dump(mode="json")}) + "\n")
                stream.flush()
        # Rows of equal rank stay in the order of the trials.
        ranked = tuple(sorted((rows[place] for place in sorted(rows)), key=_rank))
        from lntx.sweep.plot import draw

        draw(ranked, list(over), picture)
        with store.shared():
            store.journal.add({store.name_of(path): sha256_of(path) for path in (log, picture)})
    best = ranked[0] if ranked and ranked[0].verdict == "pass" else None
    return Sweep(
        sweep=name,
        trials=ranked,
        best=best,
        resumed=resumed,
        file=str(log.relative_to(store.root)),
        picture=str(picture.relative_to(store.root)),
    )


def _rank(row: Row) -> tuple[int, float, int]:
    order = 2 if row.verdict is None else ("pass", "fail").index(row.verdict)
    return order, -(row.digits or 0.0), row.epochs or 0


def _sort(
    pipeline: Pipeline, settings: Sequence[Settings], known: Mapping[str, Row]
) -> tuple[dict[int, Row], dict[int, tuple[Settings, Pipeline]], dict[int, str]]:
    """Return the known or invalid rows, the trials to train, and the key of each trial."""
    from lntx.pipeline.plan import source_digest

    basis = digest_of(
        {
            "code": {name: code_digest(name) for name in _code()},
            "versions": identify("train", pipeline, source_sha256=None, inputs={}).versions,
        }
    )
    rows: dict[int, Row] = {}
    waiting: dict[int, tuple[Settings, Pipeline]] = {}
    keys: dict[int, str] = {}
    for place, trial_settings in enumerate(settings):
        try:
            configured = configure(pipeline, trial_settings)
            source = source_digest(configured)
        except LntxError as error:
            rows[place] = Row(settings=trial_settings, verdict=None, error=str(error))
            continue
        dump = configured.model_dump_json(exclude={"export"})
        keys[place] = hashlib.sha256(f"{basis} {source} {dump}".encode()).hexdigest()
        if keys[place] in known:
            rows[place] = known[keys[place]].model_copy(update={"settings": trial_settings})
        else:
            waiting[place] = trial_settings, configured
    return rows, waiting, keys


def _code() -> list[str]:
    return sorted({*CODE, *(name for stage in _STAGES for name in TABLE[stage].modules)})


def _read_log(log: Path) -> dict[str, Row]:
    """Return the stored rows by key, without incomplete lines and without crashed trials, which are retried."""
    known: dict[str, Row] = {}
    try:
        lines = read_regular(log, most=MAX_MODEL_BYTES).splitlines()
    except FileNotFoundError:
        return known
    except OSError as error:
        raise BadInput(f"{for_message(log)} cannot be read: {error.strerror}: move it away") from None
    for line in lines:
        try:
            entry = parse_json(line)
            row, key = Row.model_validate(entry["row"]), str(entry["key"])
        except (ValueError, LookupError, TypeError):
            continue
        if row.how is not None and not (row.how == "process" and row.error is not None):
            known[key] = row
    return known


def _ends_its_line(log: Path) -> bool:
    with log.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"
