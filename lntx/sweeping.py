"""Many trainings: every combination of some values, best first.

Small trainings go side by side in one tensor (`batched`), larger ones to processes, where each is a run of the
pipeline with its cache. A trial that fails is a row; what is done is kept, and not done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lntx import identity
from lntx.config import Pipeline, Section
from lntx.errors import LntxError
from lntx.grid import Settings, configure, trials
from lntx.store import Store

if TYPE_CHECKING:
    from lntx.batched import Problem

logger = logging.getLogger(__name__)

BATCHED_NUMBERS = 10**7
"""Rows times columns up to which a training is small."""

_BATCHED_COLUMNS = 100

# Numbers in the matrices of the trainings that go side by side.
_TOGETHER = 2**23

_CODE = ("batched", "grid", "moments", "sweeping")


class Row(Section):
    """What came of one trial."""

    settings: dict[str, Any]
    """What it said anew."""

    verdict: Literal["pass", "fail"] | None
    """Whether the exact solution was reached; none where it failed before."""

    digits: float | None = None
    """Correct digits of the worst coefficient against the exact solution."""

    epochs: int | None = None
    """Epochs trained."""

    mse: float | None = None
    """Mean squared error at the end."""

    learning_rate: float | None = None
    """Learning rate used."""

    stable_limit: float | None = None
    """Learning rate from which full-batch descent does not converge, in the coordinates of the trial."""

    learned_weights: tuple[float, ...] | None = None
    """Learned weights."""

    learned_bias: float | None = None
    """Learned bias; none where the model has none."""

    how: Literal["batched", "process"] | None = None
    """Whether it was one row of a tensor, or a run in a process; none where it failed before."""

    error: str | None = None
    """Why there is no answer."""


class Sweep(Section):
    """What came of a sweep."""

    sweep: str
    """Its name: the same sweep has the same one."""

    trials: tuple[Row, ...]
    """The trials, best first: passing ones by digits and epochs, then wrong ones, then those with an error."""

    best: Row | None
    """The first of them, if it passed."""

    resumed: int
    """Trials that were known from before."""

    file: str
    """The rows as they came, one JSON object a line, relative to the root."""

    picture: str
    """The landscape, relative to the root."""


def sweep(pipeline: Pipeline, over: Mapping[str, Sequence[Any]], *, root: Path, processes: int | None = None) -> Sweep:
    """Train every combination of the values.

    over: values by dotted key. processes: how many at once; the number of processors by default.

    Raises: BadInput: too many trials, or a root that cannot be written.
    """
    settings = trials(over)
    store = Store(root)
    store.prepare()
    folder = store.artifacts / "sweeps"
    folder.mkdir(exist_ok=True)
    name = identity.digest_of({"pipeline": pipeline.model_dump(mode="json"), "over": dict(over)})[:16]
    log = folder / f"{name}.jsonl"
    with store.lock(f"sweep-{name}"):
        known = _read_log(log)
        rows, waiting, keys = _sort(pipeline, settings, known)
        resumed = len(settings) - len(waiting) - sum(row.error is not None and row.how is None for row in rows.values())
        with log.open("a", encoding="utf-8") as stream:
            if stream.tell() and not _ends_its_line(log):
                stream.write("\n")
            for place, row in _train(waiting, root, processes or os.cpu_count() or 1):
                rows[place] = row
                stream.write(json.dumps({"key": keys[place], "row": row.model_dump(mode="json")}) + "\n")
                stream.flush()
        # What ranks alike stays in the order of the trials.
        done = tuple(sorted((rows[place] for place in sorted(rows)), key=_rank))
        picture = folder / f"{name}.png"
        from lntx.landscape import draw

        draw(done, list(over), picture)
    best = done[0] if done and done[0].verdict == "pass" else None
    return Sweep(
        sweep=name,
        trials=done,
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
    """What is done or cannot be done, what is to do, and the key of each."""
    from lntx.planning import source_digest

    basis = identity.digest_of(
        {
            "code": {name: identity.code_digest(name) for name in _code()},
            "versions": identity.identify("train", pipeline, source_sha256=None, inputs={}).versions,
        }
    )
    rows: dict[int, Row] = {}
    waiting: dict[int, tuple[Settings, Pipeline]] = {}
    keys: dict[int, str] = {}
    for place, said in enumerate(settings):
        try:
            configured = configure(pipeline, said)
            source = source_digest(configured)
        except LntxError as error:
            rows[place] = Row(settings=said, verdict=None, error=str(error))
            continue
        dump = configured.model_dump_json(exclude={"export"})
        keys[place] = hashlib.sha256(f"{basis} {source} {dump}".encode()).hexdigest()
        if keys[place] in known:
            rows[place] = known[keys[place]].model_copy(update={"settings": said})
        else:
            waiting[place] = said, configured
    return rows, waiting, keys


def _code() -> list[str]:
    return sorted({*_CODE, *(name for stage in ("generate", "train", "evaluate") for name in identity.CODE[stage])})


def _read_log(log: Path) -> dict[str, Row]:
    """Rows by key; a line that was cut short is as good as none, and what crashed is tried again."""
    known: dict[str, Row] = {}
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return known
    for line in lines:
        try:
            said = json.loads(line)
            row = Row.model_validate(said["row"])
        except (ValueError, KeyError, TypeError):
            continue
        if row.how is not None and not (row.how == "process" and row.error is not None):
            known[said["key"]] = row
    return known


def _ends_its_line(log: Path) -> bool:
    with log.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def _train(waiting: Mapping[int, tuple[Settings, Pipeline]], root: Path, processes: int) -> Iterator[tuple[int, Row]]:
    small = {place: trial for place, trial in waiting.items() if _is_small(trial[1])}
    large = {place: trial for place, trial in waiting.items() if place not in small}
    for place, row in _train_small(small):
        if isinstance(row, Row):
            yield place, row
        else:
            large[place] = row
    yield from _train_large(large, root, processes)


def _is_small(pipeline: Pipeline) -> bool:
    data, train = pipeline.data, pipeline.train
    if train.batch_size is not None or train.gradient == "autograd" or train.device == "cuda":
        return False
    if data.path is not None:
        # Its rows are not counted before they are read: a byte a number, at the least.
        return Path(data.path).stat().st_size <= BATCHED_NUMBERS
    columns = len(data.true_weights or ()) + 1
    return columns <= _BATCHED_COLUMNS and data.num_rows * columns <= BATCHED_NUMBERS


def _train_small(
    small: Mapping[int, tuple[Settings, Pipeline]],
) -> Iterator[tuple[int, Row | tuple[Settings, Pipeline]]]:
    """Rows; or a trial as it came, where it is not for here after all."""
    if not small:
        return
    # Here, because they import torch.
    from lntx.batched import Trial, is_tame, limit_of, plan_trial

    groups: dict[tuple[int, bool, str], list[tuple[int, Settings, Trial]]] = {}
    posed: tuple[str, Problem | str] = "", ""
    # Trials on the same rows come together: one dataset is held at a time.
    asked = {place: f"{one.data.model_dump_json()} {one.learns_bias}" for place, (_, one) in small.items()}
    with tempfile.TemporaryDirectory(prefix="lntx-") as scratch:
        for place in sorted(small, key=lambda place: (asked[place], place)):
            said, pipeline = small[place]
            if posed[0] != asked[place]:
                posed = asked[place], _pose(pipeline, Path(scratch))
            problem = posed[1]
            if isinstance(problem, str):
                yield place, Row(settings=said, verdict=None, how="batched", error=problem)
                continue
            if not is_tame(problem):
                yield place, (said, pipeline)
                continue
            try:
                trial = plan_trial(problem, pipeline)
            except Exception as error:
                limit = limit_of(problem, pipeline)
                yield place, Row(settings=said, verdict=None, how="batched", stable_limit=limit, error=_line(error))
                continue
            p = len(trial.problem.anchor)
            group = groups.setdefault((p, trial.problem.curvature.has_bias, pipeline.train.dtype), [])
            group.append((place, said, trial))
            if len(group) * p * p >= _TOGETHER:
                yield from _together(group)
                group.clear()
        for group in groups.values():
            yield from _together(group)


def _pose(pipeline: Pipeline, folder: Path) -> Problem | str:
    from lntx.batched import pose

    try:
        return pose(pipeline.data, bias=pipeline.learns_bias, folder=folder)
    except Exception as error:
        return _line(error)


def _line(error: Exception) -> str:
    """What went wrong: a trial that fails is a row of the sweep, and no end of it."""
    if isinstance(error, LntxError):
        return str(error)
    logger.debug("a trial failed", exc_info=error)
    return f"{type(error).__name__}: {error}"


def _together(group: Sequence[tuple[int, Settings, Any]]) -> Iterator[tuple[int, Row]]:
    from lntx.batched import train_together
    from lntx.evaluation import compare

    if not group:
        return
    started = time.perf_counter()
    try:
        trained = train_together([trial for _, _, trial in group])
    except Exception as error:
        # One of them spoils the others: each by itself then, to tell which.
        if len(group) > 1:
            for one in group:
                yield from _together([one])
        else:
            yield group[0][0], Row(settings=group[0][1], verdict=None, how="batched", error=_line(error))
        return
    logger.info("%d trainings side by side in %.3g s", len(group), time.perf_counter() - started)
    for (place, said, trial), found in zip(group, trained, strict=True):
        if found.weights is None:
            yield (
                place,
                Row(
                    settings=said,
                    verdict="fail",
                    digits=0.0,
                    epochs=found.epochs,
                    how="batched",
                    learning_rate=trial.descent.learning_rate,
                    stable_limit=trial.descent.stable_limit,
                ),
            )
            continue
        coefficients = compare(
            found.weights,
            found.bias,
            trial.pipeline.train.dtype,
            trial.problem.reference,
            trial.problem.dataset.terms,
            trial.pipeline.data,
            trial.pipeline.evaluate,
        )
        right = all(coefficient.passes for coefficient in coefficients)
        yield (
            place,
            Row(
                settings=said,
                verdict="pass" if right else "fail",
                digits=min(coefficient.digits for coefficient in coefficients),
                epochs=found.epochs,
                mse=found.loss,
                learning_rate=trial.descent.learning_rate,
                stable_limit=trial.descent.stable_limit,
                learned_weights=found.weights,
                learned_bias=found.bias,
                how="batched",
            ),
        )


def _train_large(
    large: Mapping[int, tuple[Settings, Pipeline]], root: Path, processes: int
) -> Iterator[tuple[int, Row]]:
    """Each trial in a process; one that takes its process down is tried once more, alone, to be told from others."""
    alone: list[int] = []
    if large:
        with _pool(min(processes, len(large))) as pool:
            futures = {pool.submit(run_trial, said, pipeline, root): place for place, (said, pipeline) in large.items()}
            for future in as_completed(futures):
                place = futures[future]
                try:
                    yield place, future.result()
                except BrokenProcessPool:
                    alone.append(place)
    for place in sorted(alone):
        said, pipeline = large[place]
        with _pool(1) as pool:
            try:
                yield place, pool.submit(run_trial, said, pipeline, root).result()
            except BrokenProcessPool:
                yield place, Row(settings=said, verdict=None, how="process", error="its process was killed")


@contextlib.contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with the sweep, however it ends."""
    # A fork would take torch's threads along in an unknown state.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_follow, initargs=(os.getpid(),))
    try:
        yield pool
    except BaseException:
        # Interrupted: waiting for the trials that are under way could take hours.
        for process in list((pool._processes or {}).values()):  # (there is no public way before Python 3.14)
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _follow(parent: int) -> None:
    """End this process when the sweep's has gone; say nothing of its trials, and leave signals to the sweep."""
    logging.getLogger("lntx").addHandler(logging.NullHandler())
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_trial(settings: Settings, pipeline: Pipeline, root: Path) -> Row:
    """Obtain the stages up to the verdict. A trial is no run: it leaves results, and neither a record nor a report."""
    from lntx.conclusion import gather
    from lntx.outcomes import Outcome, Request
    from lntx.pipeline import begin, obtain
    from lntx.selection import STAGES, Stage, select
    from lntx.usage import running

    try:
        request = Request(pipeline=pipeline, selection=select(until="evaluate"), root=root)
        store = begin(request)
        outcomes: dict[Stage, Outcome] = {}
        with running(store.locks):
            for stage in STAGES:
                outcomes[stage] = obtain(stage, request, outcomes)
            run = gather(store, request, outcomes)
    except Exception as error:
        return Row(settings=settings, verdict=None, how="process", error=_line(error))
    return Row(
        settings=settings,
        verdict=run.verdict,
        digits=run.digits,
        epochs=run.epochs,
        mse=run.mse,
        learning_rate=run.learning_rate,
        stable_limit=run.stable_limit,
        learned_weights=run.learned_weights,
        learned_bias=run.learned_bias,
        how="process",
    )
