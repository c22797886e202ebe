"""What an evaluation says: the verdict, who is to blame, and the figures. Computes none of them."""

from __future__ import annotations

from typing import Literal

from lntx.config.schema import Section
from lntx.stages import Blame


class Coefficient(Section):
    """One weight, or the bias, as learned beside what it should be."""

    name: str
    """The feature, or "bias"."""

    learned: float
    """Learned value."""

    reference: float
    """Value in the exact least-squares solution."""

    true: float | None
    """True value; none for a file."""

    standard_error: float | None
    """Standard error of the exact solution."""

    digits: float
    """Log relative error, -log10 of |learned - reference| / |reference|, in 0..15.95; a reference that is 0 up to
    rounding counts as rms(y) / rms(x)."""

    ulps: float
    """|learned - reference| in units in the last place of the trained dtype."""

    allowed: float
    """Largest |learned - reference| that passes."""

    @property
    def gap(self) -> float:
        """|learned - reference|."""
        return abs(self.learned - self.reference)

    @property
    def passes(self) -> bool:
        """Whether the gap is allowed."""
        return self.gap <= self.allowed


class Evaluation(Section):
    """How far what was learned is from what is known."""

    verdict: Literal["pass", "fail"]
    """Whether the known answer was reached."""

    blame: Blame | None
    """The part that is wrong, where the verdict is fail."""

    reason: str | None
    """Why, and what to do, where the verdict is fail."""

    coefficients: tuple[Coefficient, ...]
    """The weights in the order of the features, then the bias if there is one."""

    digits: float
    """The least digits of any coefficient."""

    warnings: tuple[str, ...]
    """Warnings, a sentence each."""

    mse: float
    """Mean squared error of the learned model on the rows."""

    max_residual: float
    """Largest absolute residual of the learned model."""

    mean_residual: float
    """Mean residual of the learned model."""

    residual_sd: float | None
    """Residual standard deviation of the exact solution."""

    residual_histogram: tuple[int, ...] | None = None
    """Residuals of the learned model in units of `residual_sd`: below -5, 40 bins of a quarter, and above 5; none where
    that is 0 or unknown."""

    r_squared: float | None
    """R² of the exact solution."""

    num_rows: int
    """Rows."""

    features: tuple[str, ...]
    """Names of the features; of a polynomial, the powers."""

    degree: int
    """Highest power of the one feature of a polynomial; 1 for features as they are."""

    target: str
    """Name of the target."""
