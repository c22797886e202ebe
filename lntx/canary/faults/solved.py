"""Faults of the exact solution with which training is compared."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import numpy as np

from lntx.canary.cases import Case
from lntx.canary.faults.planting import Fault
from lntx.numerics.exact_matrix import ExactMatrix
from lntx.numerics.gram import Gram
from lntx.numerics.normal_equations import Solution
from lntx.proof.faults import replaced


def _wrong_product(_case: Case) -> contextlib.AbstractContextManager[None]:
    """Make XᵀX and the other exact sums wrong, as if the first feature were larger than it is."""
    import lntx.evaluation.least_squares

    def make(gram: type[Gram]) -> type[Gram]:
        class Wrong(gram):  # type: ignore[misc, valid-type]
            def add(self, columns: np.ndarray, low: np.ndarray | None = None) -> None:
                super().add(columns * np.where(np.arange(columns.shape[1]) == 0, 1.5, 1.0), low)

        return Wrong

    return replaced(lntx.evaluation.least_squares, "Gram", make)


def _wrong_sums(_case: Case) -> contextlib.AbstractContextManager[None]:
    """Make every exact sum slightly wrong wherever it is used, by less than the true weights can show."""

    def make(add: Callable[..., None]) -> Callable[..., None]:
        def adding(self: Gram, columns: np.ndarray, low: np.ndarray | None = None) -> None:
            add(self, columns * np.where(np.arange(columns.shape[1]) == 0, 1 + 1e-10, 1.0), low)

        return adding

    return replaced(Gram, "add", make)


def _rounded_solution(_case: Case) -> contextlib.AbstractContextManager[None]:
    """Round the exact solution to float32."""
    import lntx.evaluation.least_squares

    def make(solve: Callable[..., Solution]) -> Callable[..., Solution]:
        def rounding(products: ExactMatrix) -> Solution:
            solution = solve(products)
            rounded = solution.coefficients.astype(np.float32).astype(np.float64)
            return dataclasses.replace(solution, coefficients=rounded)

        return rounding

    return replaced(lntx.evaluation.least_squares, "solve_normal_equations", make)


SOLVED = (
    Fault(
        name="wrong-product",
        what="an entry of the exact sums XᵀX is wrong",
        blame="reference",
        limit="1e-13 of a coefficient",
        planted=_wrong_product,
    ),
    Fault(
        name="wrong-sums",
        what="all exact sums are off by 1e-10",
        blame="reference",
        limit="1e-13 of a coefficient; more than 2*10^7 products of rows, columns and columns",
        planted=_wrong_sums,
    ),
    Fault(
        name="rounded-solution",
        what="the exact solution is rounded to float32",
        blame="reference",
        limit="1e-13 of a coefficient",
        planted=_rounded_solution,
    ),
)
"""Faults that must be blamed on the reference."""
