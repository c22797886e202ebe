"""The record of a run: its outcome, for people and programs, as `--json` prints it. Computes nothing."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr

from lntx.base.errors import BadInput
from lntx.base.stages import Blame, Stage
from lntx.base.text import listed, quoted
from lntx.config.schema import Format, Pipeline, Section
from lntx.evaluation.inference import Estimate, estimates
from lntx.runs.tables import HEADER, as_html, cells, coefficient_frame, history_frame, told_apart
from lntx.store.places import ResultPath, RunName, Sha256

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure


def _moment(text: str) -> str:
    if not datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp() > 0:
        raise ValueError("it is before 1970")
    return text


class StoredPath(Section):
    """A file of a result."""

    path: ResultPath
    """Its path, relative to the root."""

    sha256: Sha256
    """Digest of its bytes."""


class StageReport(Section):
    """The outcome of one stage, for people and programs."""

    state: Literal["ran", "cached", "skipped", "failed"]
    """Whether it ran, was cached, was skipped or failed."""

    seconds: float | None
    """Seconds that the result took to compute, perhaps in an earlier run."""

    key: Sha256 | None
    """Key of the result."""

    files: tuple[StoredPath, ...]
    """Files of the result."""


class Run(Section, use_attribute_docstrings=True):
    """The outcome of a run. Weights and their standard errors are in the order of `features`."""

    verdict: Literal["pass", "fail"] | None
    """Whether the known answer was reached; None if it was not evaluated."""

    blame: Blame | None
    """The part that is wrong."""

    reason: str | None
    """What is wrong, and what to do."""

    warnings: tuple[str, ...] = ()
    """Warnings, a sentence each."""

    features: tuple[str, ...] | None
    """Names of the features."""

    columns: tuple[str, ...] | None = None
    """Columns of the table that the features come from."""

    levels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Levels of each column that is a category; each but the first is a feature, called column=level."""

    target: str | None
    """Name of the target."""

    true_weights: tuple[float, ...] | None
    """The weights that generated the rows; None for a file."""

    true_bias: float | None
    """The bias that generated the rows; None for a file."""

    learned_weights: tuple[float, ...] | None
    """Learned weights, exactly as in the exported file."""

    learned_bias: float | None
    """Learned bias; None if the model has none."""

    reference_weights: tuple[float, ...] | None
    """Exact least-squares weights."""

    reference_bias: float | None
    """Exact least-squares bias."""

    standard_errors: tuple[float | None, ...] | None
    """Standard errors of the exact weights; None without residual degrees of freedom."""

    bias_standard_error: float | None
    """Standard error of the exact bias."""

    residual_sd: float | None
    """Residual standard deviation of the exact solution."""

    degrees_of_freedom: int | None = None
    """Residual degrees of freedom of the exact solution."""

    r_squared: float | None
    """R² of the exact solution."""

    adjusted_r_squared: float | None = None
    """R² corrected for the number of weights."""

    f_statistic: float | None = None
    """F of all weights together, the bias aside."""

    f_p_value: float | None = None
    """Probability of an F this large or larger if all weights are 0."""

    mse: float | None
    """Mean squared error of the learned model."""

    digits: float | None
    """Correct digits of the worst coefficient against the exact solution, at most 15.95."""

    ulps: float | None
    """Largest distance of a coefficient from the exact solution, in units in the last place of the dtype."""

    epochs: int | None
    """Epochs trained."""

    num_rows: int | None
    """Rows evaluated."""

    dtype: str | None
    """Type of the weights."""

    learning_rate: float | None
    """Learning rate used."""

    stable_limit: float | None = None
    """Learning rate from which full-batch descent does not converge."""

    gradient: str | None
    """How gradients were computed."""

    precondition: str | None
    """Coordinates of the descent."""

    condition_number: float | None
    """Condition number of the Hessian of the loss in the weights."""

    stages: dict[Stage, StageReport]
    """The outcome of each stage."""

    exports: dict[Format, ResultPath]
    """The exported file of each format, relative to the root."""

    report: str | None = None
    """The report, relative to the root; None if none was written."""

    lost: tuple[ResultPath, ...] = ()
    """Files of this run that `lntx verify --heal` noted as damaged or missing."""

    run: RunName
    """Name of this run."""

    created_at: Annotated[str, AfterValidator(_moment)]
    """When it ended, ISO 8601 in UTC."""

    flow_run_id: str | None = None
    """The Prefect flow run, if there was one."""

    flow_run_url: str | None = None
    """Its page in Prefect's UI, as long as the server runs."""

    config: Pipeline
    """Its configuration."""

    _root: Path | None = PrivateAttr(None)

    def __repr__(self) -> str:
        digits = "" if self.digits is None else f", {self.digits:.4g} digits"
        return f"{type(self).__name__}({self.run}: {self.verdict or 'not evaluated'}{digits})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        sentences = [repr(self), *([self.reason] if self.reason else []), *self.warnings]
        if self.true_weights is not None or not self.estimates:
            return as_html(sentences, self.compared)
        return as_html(
            [*sentences, *self.summary], [["", *HEADER], *([row.name, *cells(row)] for row in self.estimates)]
        )

    @property
    def compared(self) -> list[list[str]]:
        """The learned, the exact and the true coefficients with all digits, as far as they are known: a row for each
        feature and one called bias, the head first.
        """
        if self.learned_weights is None:
            return []
        names = self.features or [f"weight {j}" for j in range(1, len(self.learned_weights) + 1)]
        columns: dict[str, list[str]] = {"": [*names, "bias"][: len(names) + (self.learned_bias is not None)]}
        for name, weights, bias in (
            ("learned", self.learned_weights, self.learned_bias),
            ("exact", self.reference_weights, self.reference_bias),
            ("true", self.true_weights, self.true_bias),
        ):
            if weights is not None:
                columns[name] = ["–" if value is None else repr(value) for value in (*weights, bias)]
        return [[*columns], *map(list, zip(*columns.values(), strict=False))]

    @property
    def root(self) -> Path:
        """The folder of data/ and artifacts/ of the run."""
        return self._root or Path()

    def __dir__(self) -> list[str]:
        """Return what is known about the run, without the methods that every model has."""
        own = [name for name, value in vars(type(self)).items() if callable(value) or isinstance(value, property)]
        return sorted([*type(self).model_fields, *(name for name in own if not name.startswith(("_", "model_")))])

    # The functions of the public interface are above this floor: these methods find them by their names alone.

    def predict(self, rows: Any, **options: Any) -> Any:
        """Predict with the model of this run; options are those of `lntx.predict`."""
        import lntx

        return lntx.predict(rows, run=self, **options)

    @property
    def residuals(self) -> np.ndarray:
        """As `lntx.residuals`."""
        import lntx

        return lntx.residuals(self)

    def plot(self, name: str | None = None) -> Figure:
        """Draw a picture of the run's report, as `lntx.plot`."""
        import lntx

        return lntx.plot(self, name)

    def export_path(self, file_format: Format = "safetensors") -> Path:
        """Return the path of the exported file of a format.

        Raises: BadInput: the run did not export this format.
        """
        if file_format not in self.exports:
            raise BadInput(f"run {self.run} has no export {quoted(file_format)}: it has {listed(self.exports)}")
        return self.root / self.exports[file_format]

    @property
    def estimates(self) -> list[Estimate]:
        """The exact solution with its tests and intervals, the bias last; empty if the run was not evaluated."""
        if self.reference_weights is None or self.degrees_of_freedom is None:
            return []
        names, values, errors = (
            told_apart(self.features or (), ["bias"]),
            [*self.reference_weights],
            [*(self.standard_errors or ())],
        )
        if self.reference_bias is not None:
            names.append("bias")
            values.append(self.reference_bias)
            errors.append(self.bias_standard_error)
        return estimates(names, values, errors, self.degrees_of_freedom)

    @property
    def coefficients(self) -> pd.DataFrame:
        """The same as a data frame, one row per feature and one called bias: estimate, standard_error, t, p, low, high.

        low, high: 95 % confidence interval. Raises: BadInput: the run was not evaluated.
        """
        if not self.estimates:
            raise BadInput(f"run {self.run} was not evaluated: there are no coefficients")
        return coefficient_frame(self.estimates)

    @property
    def history(self) -> pd.DataFrame:
        """The training by epoch, epoch 0 first: a column for the loss, for each feature and for the bias.

        Raises: BadInput: the history is not stored, or was altered.
        """
        for file in self.stages["train"].files if self._root is not None else ():
            if file.path.rpartition("/")[2].startswith("history-"):
                assert self._root is not None
                with contextlib.suppress(OSError, ValueError):
                    return history_frame(self._root / file.path, file.sha256, self.features)
        raise BadInput(f"the history of run {self.run} is not stored, or was altered: lntx run computes it again")

    @property
    def summary(self) -> list[str]:
        """Residual standard error, R² and F for people, as R prints them below the coefficients."""
        lines = []
        if self.residual_sd is not None and self.degrees_of_freedom is not None:
            degrees = f"{self.degrees_of_freedom:,} degree{'' if self.degrees_of_freedom == 1 else 's'} of freedom"
            lines.append(f"residual standard error {self.residual_sd:.5g} on {degrees}, {self.num_rows:,} rows")
        squares = {"R²": self.r_squared, "adjusted R²": self.adjusted_r_squared}
        parts = [f"{name} {value:.6g}" for name, value in squares.items() if value is not None]
        if self.f_statistic is not None and self.f_p_value is not None:
            degrees = f"{len(self.features or ())} and {self.degrees_of_freedom:,}"
            parts.append(f"F {self.f_statistic:.5g} on {degrees}, p {self.f_p_value:.3g}")
        return [*lines, *([", ".join(parts)] if parts else [])]
