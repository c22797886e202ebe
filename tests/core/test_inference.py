"""Tests and intervals: tails of t and F. Run: pytest tests/core/test_inference.py"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lntx.evaluation.inference import estimates, f_tail, t_quantile, t_tail


@pytest.mark.parametrize(
    ("t", "freedom", "expected"),
    # R 4.2: 2 * pt(-t, freedom)
    [(34.0, 233, 2.6881270775288078e-92), (20.0, 943, 1.8660507992576944e-74), (7.7, 200, 6.1479777479463544e-13)],
)
def test_small_tails_keep_their_digits(t: float, freedom: int, expected: float) -> None:
    assert t_tail(t, freedom) == pytest.approx(expected, rel=1e-12)


def test_a_cauchy_variable_has_a_tail_in_closed_form() -> None:
    for t in (1e-12, 0.1, 1.0, 3.0, 1e6):
        assert t_tail(t, 1) == pytest.approx(2 / math.pi * math.atan(1 / t), rel=1e-14)
    assert t_tail(0.0, 3) == 1.0


@given(st.floats(0, 50), st.integers(1, 10**6))
def test_the_square_of_t_is_an_f(t: float, freedom: int) -> None:
    assert f_tail(t * t, 1, freedom) == pytest.approx(t_tail(t, freedom), rel=1e-13, abs=1e-300)


@given(st.integers(1, 10**9))
def test_a_quantile_has_its_tail(freedom: int) -> None:
    assert t_tail(t_quantile(0.975, freedom), freedom) == pytest.approx(0.05, rel=1e-12)


@given(st.sampled_from([0.0, 1e-20, 1.0, 50.0, 1e8, 1e25, 1e300]), st.integers(1, 1000), st.integers(1, 10**9))
def test_no_tail_takes_long(f: float, first: int, second: int) -> None:
    """A noise-free fit has an F of 1e30; precision is never raised without end."""
    assert 0 <= f_tail(f, first, second) <= 1


def test_without_noise_there_is_no_t() -> None:
    (row,) = estimates(["a"], [3.0], [0.0], 5)
    assert (row.t, row.p, row.low, row.high) == (None, None, 3.0, 3.0)
    (row,) = estimates(["a"], [3.0], [None], 0)
    assert (row.t, row.p, row.low, row.high) == (None, None, None, None)
