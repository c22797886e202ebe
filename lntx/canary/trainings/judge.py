"""Find the part to blame, in this order: the rows, the exact solution, the path and the end of training, the files.

Checks a finished run and the files in its root. Repairs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from lntx.base.stages import STAGES, Blame, Stage
from lntx.canary.oracle.path_check import PathCheck
from lntx.canary.oracle.trajectory import follow
from lntx.canary.suite.findings import Finding, blame_of_file, finding, in_words, is_want
from lntx.canary.trainings.cases import TrainingCase
from lntx.canary.trainings.export_checks import wrong_export
from lntx.canary.trainings.fit_checks import wrong_training
from lntx.canary.trainings.row_plausibility import implausible_rows
from lntx.data.dataset import open_dataset
from lntx.data.synthetic import feature_names, generate_blocks
from lntx.evaluation.data_check import damaged_rows
from lntx.evaluation.verdict import Evaluation
from lntx.export.export import Card
from lntx.pipeline.conclude import gather
from lntx.pipeline.outcome import Outcome, Request
from lntx.runs.run import Run
from lntx.runs.verify import verify
from lntx.store.store import Store
from lntx.training.result import Epoch, Fit, Stop, history_digest, read_history

_STOPPED: dict[Stop, str] = {
    "converged": "stood still",
    "stalled": "stood still but for rounding",
    "max_epochs": "was ended",
    "diverged": "left the finite numbers, or its loss grew without bound,",
}

# Rows times columns up to which rows are read a second way.
_READ_TWICE = 10**7


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A stage that failed."""

    stage: Stage
    """The stage that failed."""

    error: Exception
    """The exception that it raised."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The outcome of the checks of a run."""

    run: Run
    """The run that was checked."""

    finding: Finding | None
    """What is wrong; None if nothing is."""

    path: PathCheck | None
    """The check of the training's path; None if it was not reached."""

    history: list[Epoch]
    """The training, epoch by epoch."""

    warnings: tuple[str, ...]
    """Warnings of the run and of the checks."""


def judge(
    case: TrainingCase, store: Store, outcomes: Mapping[Stage, Outcome], broken: Broken | None
) -> Judgement | None:
    """Check everything that a run left.

    outcomes: of the finished stages. broken: the stage that failed, or None.

    Returns: None if a stage failed although the rows and the files are right: then no answer is wrong.
    """
    request = Request(pipeline=case.pipeline, root=store.root)
    checks = _Checks(case, store, _every(outcomes))
    if broken is not None:
        # Wrong rows may have caused the failure of the stage.
        problem: Finding | None = checks.rows() or checks.altered()
        if problem is None:
            return None
    else:
        problem = checks.altered() or checks.unreadable(lambda: gather(store, request, checks.outcomes))
    if problem is not None:
        # Take no figures from damaged files.
        readable = {stage: outcome for stage, outcome in outcomes.items() if broken is not None or stage == "generate"}
        run = checks.read(lambda: gather(store, request, _every(readable))) or gather(store, request, _every({}))
        return Judgement(run=run, finding=problem, path=None, history=[], warnings=())
    run = gather(store, request, checks.outcomes)
    return Judgement(
        run=run,
        finding=checks.first_finding(run),
        path=checks.path,
        history=checks.history,
        warnings=(*run.warnings, *checks.warnings),
    )


class _Checks:
    """The checks of one run, part by part."""

    def __init__(self, case: TrainingCase, store: Store, outcomes: Mapping[Stage, Outcome]) -> None:
        self._config, self._data = case.pipeline, case.pipeline.data
        self._store, self.outcomes = store, outcomes
        self.path: PathCheck | None = None
        self.history: list[Epoch] = []
        self.warnings: tuple[str, ...] = ()

    def first_finding(self, run: Run) -> Finding | None:
        """Return the first problem in the order of the parts, or None."""
        verdict = None if run.blame is None else self._verdict(run.blame, run)
        if verdict is not None and verdict.blame == "data":
            return verdict
        problem = self._guarded("data", self._plausible) or self._guarded("data", self._second_reading)
        if problem is not None or (verdict is not None and verdict.blame == "reference"):
            return problem or verdict
        return (
            self._guarded("data", self._read_history)
            or self._guarded("reference", lambda: self._training(run))
            or verdict
            or self._guarded("export", self._exports)
        )

    def rows(self) -> Finding | None:
        """Return a finding if the rows, as drawn or as read, are not those to be generated."""
        record = self.outcomes["generate"].record
        if record is None:
            return None
        try:
            paths = [self._store.path(file) for file in sorted(record.files, key=lambda file: file.name)]
            seen = self._fit().rows_sha256 if self.outcomes["train"].record is not None else ()
            problem = damaged_rows(open_dataset(*paths), self._data, readings=seen)
        except Exception as error:
            problem = f"the rows cannot be read ({in_words(error)})"
        if problem is not None:
            return finding("data", problem)
        return self._guarded("data", self._plausible)

    def unreadable(self, read: Callable[[], object]) -> Finding | None:
        """Return a finding if stored results cannot be read."""

        def nothing_found() -> None:
            read()

        return self._guarded("data", nothing_found)

    def read(self, read: Callable[[], Run]) -> Run | None:
        """Return a run, or None if it cannot be read."""
        try:
            return read()
        except Exception:
            return None

    def altered(self) -> Finding | None:
        """Return a finding if a stored file was altered."""
        damaged = verify(self._store).damaged
        # The earliest damaged file is the cause: data before exports.
        for damage in sorted(damaged, key=lambda entry: blame_of_file(entry.path) == "export"):
            return finding(blame_of_file(damage.path), f"{damage.path}: {damage.problem}")
        return None

    def _guarded(self, blame: Blame, look: Callable[[], Finding | None]) -> Finding | None:
        """Run a check; its exception is a finding too, unless the machine caused it."""
        try:
            return look()
        except Exception as error:
            if is_want(error):
                raise
            return finding(blame, f"what the run left cannot be checks at ({in_words(error)})")

    def _verdict(self, blame: Blame, run: Run) -> Finding:
        """Return the run's verdict as a finding; of a training, without advice for settings that no user chose."""
        if blame == "data":
            problem_of_rows = self.rows()
            if problem_of_rows is not None:
                return problem_of_rows
        if blame == "export":
            return finding(blame, run.reason or "")
        if blame == "training":
            path = self.outcomes["evaluate"].path(self._store, "evaluation.json")
            evaluation = Evaluation.model_validate_json(path.read_bytes())
            worst = max(
                evaluation.coefficients, key=lambda coefficient: coefficient.gap / max(coefficient.allowed, 1e-300)
            )
            fit = self._fit()
            return finding(
                blame,
                f"training {_STOPPED[fit.stop]} in epoch {fit.epochs}, with {worst.name} = {worst.learned!r} where the "
                f"exact answer is {worst.reference!r}",
            )
        # These say themselves what to look at.
        return Finding(blame=blame, reason=run.reason or "")

    def _plausible(self) -> Finding | None:
        problem = implausible_rows(self._data)
        return None if problem is None else finding("data", problem)

    def _second_reading(self) -> Finding | None:
        """Read small datasets in another way: as a whole, while training reads batches."""
        if self._data.num_rows * (len(self._features()) + 1) > _READ_TWICE:
            return None
        record = self.outcomes["generate"].record
        assert record is not None
        (file,) = record.files
        table = pq.read_table(self._store.path(file))
        if table.num_rows != self._data.num_rows:
            return finding("data", f"{table.num_rows} rows are read whole where {self._data.num_rows} were generated")
        whole = [table.column(name).to_numpy() for name in (*self._features(), "y")]
        start = 0
        for x, y in self._blocks():
            for name, column, generated in zip((*self._features(), "y"), whole, (*x.T, y), strict=True):
                if not np.array_equal(column[start : start + len(y)], generated):
                    return finding("data", f"{name}, read whole, is not as it was generated")
            start += len(y)
        return None

    def _read_history(self) -> Finding | None:
        fit = self._fit()
        history = read_history(self.outcomes["train"].path(self._store, "history.parquet"))
        epochs = fit.epochs - (fit.stop == "diverged")
        if len(history) != epochs + 1:
            return finding("data", f"the history is read with {len(history) - 1} epochs where training did {epochs}")
        if (fit.weights, fit.bias) != (history[-1].weights, history[-1].bias):
            return finding("data", "the history is read with other weights at its end than those that were learned")
        if history_digest(history) != fit.history_sha256:
            return finding("data", "the history is read with other numbers than training wrote")
        self.history = history
        return None

    def _training(self, run: Run) -> Finding | None:
        """Check the exact solution and the training against the path for these rows."""
        fit = self._fit()
        self.path = follow(
            self.history,
            self._blocks(),
            features=self._features(),
            learning_rate=fit.learning_rate,
            stable_limit=fit.stable_limit,
            momentum=self._config.train.momentum,
            dtype=self._config.train.dtype,
        )
        return wrong_training(self._config, run, fit, self.history, self.path)

    def _exports(self) -> Finding | None:
        outcome = self.outcomes["export"]
        fit = self._fit()
        files = {name: outcome.path(self._store, f"model.{name}") for name in self._config.export.formats}
        problem, self.warnings = wrong_export(files, fit, self._blocks())
        if problem is not None:
            return finding("export", problem)
        card = Card.model_validate_json(outcome.path(self._store, "card.json").read_bytes())
        evaluation = self.outcomes["evaluate"].path(self._store, "evaluation.json")
        if card.fit != fit or card.evaluation != Evaluation.model_validate_json(evaluation.read_bytes()):
            return finding("export", "the card does not say what training and evaluation found")
        return None

    def _fit(self) -> Fit:
        return self.outcomes["train"].fit(self._store)

    def _features(self) -> tuple[str, ...]:
        return feature_names(len(self._data.true_weights or ()))

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return generate_blocks(self._data)


def _every(outcomes: Mapping[Stage, Outcome]) -> dict[Stage, Outcome]:
    """Return the outcomes of all stages; a stage without an outcome counts as skipped."""
    return {stage: outcomes.get(stage, Outcome(stage=stage, state="skipped")) for stage in STAGES}
