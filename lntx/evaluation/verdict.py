"""The result of an evaluation: the verdict, the part to blame, and the figures. Computes nothing."""

from __future__ import annotations

from typing import Literal

from lntx.base.stages import Blame
from lntx.config.schema import Section


class Coefficient(Section):
    """One weight, or the bias: the learned value and the expected ones."""

    name: str
    """Name of the feature, or "bias"."""

    learned: float
    """Learned value."""

    reference: float
    """Value in the exact least-squares solution."""

    true: float | None
    """True value; None for a user's file."""

    standard_error: float | None
    """Standard error of the exact solution."""

    digits: float | None
    """Log relative error, -log10 of |learned - reference| / |reference|, in 0..15.95; None if the reference is 0 within
    `rounding`."""

    ulps: float
    """|learned - reference| in units in the last place of the trained dtype."""

    allowed: float
    """Largest |learned - reference| that passes."""

    rounding: float | None = None
    """How far rounding each entry of the table once can move the weight; None if that was not needed."""

    @property
    def gap(self) -> float:
        """|learned - reference|."""
        return abs(self.learned - self.reference)

    @property
    def passes(self) -> bool:
        """Whether the gap is allowed."""
        return self.gap <= self.allowed


class Evaluation(Section):
    """How far the learned model is from the known answer."""

    verdict: Literal["pass", "fail"]
    """Whether the known answer was reached."""

    blame: Blame | None
    """The part that is wrong; None if the verdict is pass."""

    reason: str | None
    """The cause and the next step; None if the verdict is pass."""

    coefficients: tuple[Coefficient, ...]
    """The weights in the order of the features, then the bias if there is one."""

    digits: float
    """The smallest `digits` of all coefficients; those that are 0 within rounding have none."""

    warnings: tuple[str, ...]
    """Warnings, a sentence each."""

    mse: float
    """Mean squared error of the learned model on the rows."""

    residual_sd: float | None
    """Residual standard deviation of the exact solution."""

    residual_histogram: tuple[int, ...] | None = None
    """Counts of residuals of the learned model in units of `residual_sd`: below -5, 40 bins of width 1/4, above 5; None
    if `residual_sd` is 0 or unknown."""

    residual_sample: tuple[tuple[float, float], ...]
    """Fitted value and residual of some hundred rows at equal distances."""

    factor: tuple[tuple[float, ...], ...] | None = None
    """R of the QR factorisation of [x, 1], which gives the loss at any weights and the width of intervals; None for
    more than 200 coefficients."""

    r_squared: float | None
    """R² of the exact solution."""

    adjusted_r_squared: float | None
    """R² corrected for the number of weights; None without residual degrees of freedom."""

    f_statistic: float | None
    """F of all weights together, the bias aside; None without residuals."""

    f_p_value: float | None
    """Probability of an F this large or larger if all weights are 0."""

    degrees_of_freedom: int
    """Residual degrees of freedom."""

    num_rows: int
    """Number of rows."""

    features: tuple[str, ...]
    """Names of the features; for a polynomial, of the powers."""

    degree: int
    """Degree of the polynomial in the only feature; 1 for an ordinary linear model."""

    target: str
    """Name of the target."""

    columns: tuple[str, ...]
    """Columns of the table that the features come from."""

    levels: dict[str, tuple[str, ...]]
    """Levels of each column that is a category; each but the first is a feature."""
