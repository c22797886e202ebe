"""A scikit-learn estimator: least squares by gradient descent, held against the exact solution. Needs scikit-learn."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from lntx.api import fit
from lntx.base.errors import BadInput, WrongAnswer
from lntx.numerics.residuals import residuals
from lntx.runs.run import Run


class LinearRegression(RegressorMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Ordinary least squares, as `lntx.fit` does it in a temporary root.

    fit_intercept: whether the model has an intercept.

    After fitting: coef_, shape (n_features,), intercept_, and run_, the run with its verdict and coefficients.
    Dependent columns and fewer rows than coefficients are refused: the solution would not be unique.
    """

    def __init__(self, *, fit_intercept: bool = True) -> None:
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LinearRegression:  # noqa: N803 (scikit-learn's name)
        """Fit X, shape (n_samples, n_features), to y, shape (n_samples,), by weights of shape (n_samples,) or a number.

        Raises: ValueError: dependent columns, too few rows, NaN or infinity. WrongAnswer: training did not reach the
        exact solution.
        """
        X, y = validate_data(self, X, y, dtype=np.float64, y_numeric=True)  # noqa: N806
        num_rows, num_features = X.shape
        if num_rows < num_features + self.fit_intercept:
            raise ValueError(f"n_samples={num_rows} is too few for {num_features + self.fit_intercept} coefficients")
        names = [f"x{j}" for j in range(num_features)]
        columns = {**dict(zip(names, X.T.copy(), strict=True)), "y": np.asarray(y, dtype=np.float64)}
        if sample_weight is not None:
            columns["weight"] = _check_sample_weight(sample_weight, X, dtype=np.float64)
        data = {} if sample_weight is None else {"weight": "weight"}
        with tempfile.TemporaryDirectory(prefix="lntx-") as root:
            try:
                run: Run = fit(
                    pa.table(columns), target="y", bias=self.fit_intercept, data=data, until="evaluate", root=root
                )
            except BadInput as error:
                raise ValueError(str(error)) from None
        if run.verdict != "pass":
            raise WrongAnswer(f"{run.blame}: {run.reason}")
        self.run_ = run
        self.coef_ = np.array(run.learned_weights)
        self.intercept_ = 0.0 if run.learned_bias is None else run.learned_bias
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Predict X, shape (n_samples, n_features): the exact sums, rounded once; returns shape (n_samples,)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)  # noqa: N806
        predictions: np.ndarray = -residuals(X, np.zeros(len(X)), tuple(self.coef_.tolist()), self.intercept_)
        return predictions
