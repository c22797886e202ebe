"""Run the trials of a sweep: small trainings batched in one tensor, larger ones as stages in processes.

A trial that fails is a row. The `sweep` module selects the trials and stores the rows.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
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

from lntx.base.errors import LntxError
from lntx.config.schema import Pipeline, Section
from lntx.sweep.grid import Settings

if TYPE_CHECKING:
    from lntx.sweep.vectorized import Problem

logger = logging.getLogger(__name__)

BATCHED_NUMBERS = 10**7
"""Rows times columns up to which a training is small."""

_BATCHED_COLUMNS = 100

# Matrix entries up to which trainings are batched together.
_MAX_ENTRIES = 2**23
# Bytes of rows that are stored at a time.
_MAX_BYTES = 2**30


class Row(Section):
    """The outcome of one trial."""

    settings: dict[str, Any]
    """Its settings: values by dotted key."""

    verdict: Literal["pass", "fail"] | None
    """Whether the exact solution was reached; None if the trial failed before."""

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
    """Learned bias; None if the model has none."""

    how: Literal["batched", "process"] | None = None
    """Whether it was one row of a tensor, or ran in a process; None if it failed before."""

    error: str | None = None
    """Why the trial failed."""


# What a row takes from the record of a run.
_FIGURES = {*Row.model_fields} - {"settings", "how", "error"}


def train(waiting: Mapping[int, tuple[Settings, Pipeline]], root: Path, processes: int) -> Iterator[tuple[int, Row]]:
    """Train every trial; yield its place and row as soon as it is done."""
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
        # The rows are not counted yet: a number takes at least one byte.
        return Path(data.path).stat().st_size <= BATCHED_NUMBERS
    columns = len(data.true_weights or ()) + 1
    return columns <= _BATCHED_COLUMNS and data.num_rows * columns <= BATCHED_NUMBERS


def _train_small(
    small: Mapping[int, tuple[Settings, Pipeline]],
) -> Iterator[tuple[int, Row | tuple[Settings, Pipeline]]]:
    """Yield a row for each trial, or the trial itself if it cannot be batched."""
    if not small:
        return
    # Imported here, because it imports torch.
    from lntx.sweep.vectorized import Trial, is_tame, limit_of, plan_trial

    groups: dict[tuple[int, bool, str], list[tuple[int, Settings, Trial]]] = {}

    def rows_of(place: int) -> str:
        _, pipeline = small[place]
        return f"{pipeline.data.model_dump_json()} {pipeline.learns_bias}"

    def train_groups() -> Iterator[tuple[int, Row]]:
        for group in groups.values():
            yield from _train_group(group)
        groups.clear()

    # Trials on the same rows come together: they share a problem. Its rows are read again after the training.
    with tempfile.TemporaryDirectory(prefix="lntx-") as scratch:
        by_rows = itertools.groupby(sorted(small, key=lambda place: (rows_of(place), place)), key=rows_of)
        stored = 0
        for number, (_, places) in enumerate(by_rows):
            problem: Problem | str = ""
            for place in places:
                settings, pipeline = small[place]
                problem = problem or _problem(pipeline, Path(scratch, str(number)))
                if isinstance(problem, str):
                    yield place, Row(settings=settings, verdict=None, how="batched", error=problem)
                    continue
                if not is_tame(problem):
                    yield place, (settings, pipeline)
                    continue
                try:
                    trial = plan_trial(problem, pipeline)
                except Exception as error:
                    yield (
                        place,
                        Row(
                            settings=settings,
                            verdict=None,
                            how="batched",
                            stable_limit=limit_of(problem, pipeline),
                            error=_line(error),
                        ),
                    )
                    continue
                p = len(trial.problem.anchor)
                group = groups.setdefault((p, trial.problem.curvature.has_bias, pipeline.train.dtype), [])
                group.append((place, settings, trial))
                if len(group) * p * p >= _MAX_ENTRIES:
                    yield from _train_group(group)
                    group.clear()
            stored += sum(file.stat().st_size for file in Path(scratch).glob(f"{number}/*"))
            if stored > _MAX_BYTES:
                yield from train_groups()
                for folder in Path(scratch).iterdir():
                    shutil.rmtree(folder)
                stored = 0
        yield from train_groups()


def _problem(pipeline: Pipeline, folder: Path) -> Problem | str:
    """Return the problem that the rows of a trial pose, or why there is none. folder: where the rows are stored."""
    from lntx.sweep.vectorized import problem_of

    try:
        folder.mkdir(exist_ok=True)
        return problem_of(pipeline.data, bias=pipeline.learns_bias, folder=folder)
    except Exception as error:
        return _line(error)


def _line(error: Exception) -> str:
    """Return an error as text for a row: a trial that fails does not end the sweep."""
    if isinstance(error, LntxError):
        return str(error)
    logger.debug("a trial failed", exc_info=error)
    return f"{type(error).__name__}: {error}"


def _train_group(group: Sequence[tuple[int, Settings, Any]]) -> Iterator[tuple[int, Row]]:
    from lntx.evaluation.evaluate import compare, lowest_digits
    from lntx.sweep.vectorized import train_together

    if not group:
        return
    started = time.perf_counter()
    try:
        trained = train_together([trial for _, _, trial in group])
    except Exception as error:
        # One trial makes the whole batch fail: train each separately to find it.
        if len(group) > 1:
            for member in group:
                yield from _train_group([member])
        else:
            yield group[0][0], Row(settings=group[0][1], verdict=None, how="batched", error=_line(error))
        return
    logger.info("%d trainings side by side in %.3g s", len(group), time.perf_counter() - started)
    for (place, settings, trial), fit in zip(group, trained, strict=True):
        row = Row(
            settings=settings,
            verdict="fail",
            digits=0.0,
            epochs=fit.epochs,
            learning_rate=trial.descent.learning_rate,
            stable_limit=trial.descent.stable_limit,
            how="batched",
        )
        if fit.weights is not None:
            coefficients = compare(
                fit.weights,
                fit.bias,
                trial.problem.reference,
                trial.problem.rounding(trial.pipeline.train.dtype),
                dtype=trial.pipeline.train.dtype,
                terms=trial.problem.dataset.terms,
                data=trial.pipeline.data,
                settings=trial.pipeline.evaluate,
            )
            row = row.model_copy(
                update={
                    "verdict": "pass" if all(coefficient.passes for coefficient in coefficients) else "fail",
                    "digits": lowest_digits(coefficients),
                    "mse": fit.loss,
                    "learned_weights": fit.weights,
                    "learned_bias": fit.bias,
                }
            )
        yield place, row


def _train_large(
    large: Mapping[int, tuple[Settings, Pipeline]], root: Path, processes: int
) -> Iterator[tuple[int, Row]]:
    """Train each trial in a process; after a crash, retry the affected trials one by one to find the cause.

    processes: 0: in this process, one after the other, each with its rows worked on by the engine of `base/workers`.
    """
    if processes == 0:
        for place, (settings, pipeline) in large.items():
            yield place, run_trial(settings, pipeline, root)
        return
    alone: list[int] = []
    if large:
        with _pool(min(processes, len(large))) as pool:
            futures = {pool.submit(run_trial, *large[place], root): place for place in large}
            for future in as_completed(futures):
                place = futures[future]
                try:
                    yield place, future.result()
                except BrokenProcessPool:
                    alone.append(place)
    for place in sorted(alone):
        with _pool(1) as pool:
            try:
                yield place, pool.submit(run_trial, *large[place], root).result()
            except BrokenProcessPool:
                row = Row(settings=large[place][0], verdict=None, how="process", error="its process was killed")
                yield place, row


@contextlib.contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes that end with the sweep, even if it is interrupted."""
    # A forked process would inherit torch's threads in an unknown state.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_follow, initargs=(os.getpid(),))
    try:
        yield pool
    except BaseException:
        # Interrupted: waiting for the running trials could take hours.
        for process in list((pool._processes or {}).values()):  # (there is no public way before Python 3.14)
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _follow(parent: int) -> None:
    """Exit when the process of the sweep has ended; log nothing, and ignore SIGINT, which the sweep handles."""
    logging.getLogger("lntx").addHandler(logging.NullHandler())
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_trial(settings: Settings, pipeline: Pipeline, root: Path) -> Row:
    """Run the stages up to the verdict. A trial is no run: it stores results, but no run record and no report."""
    from lntx.base.stages import STAGES, Stage, select
    from lntx.pipeline.conclude import gather
    from lntx.pipeline.outcome import Outcome, Request
    from lntx.pipeline.runner import begin, obtain
    from lntx.store.leases import running

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
    return Row(settings=settings, how="process", **run.model_dump(include=_FIGURES))
