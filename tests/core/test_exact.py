"""Exact sums and the normal equations, against rational arithmetic. Run: pytest tests/core/test_exact.py"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from exact import least_squares
from hypothesis import given, settings
from hypothesis import strategies as st

from lntx.base.errors import BadInput
from lntx.data.dataset import Block
from lntx.evaluation.least_squares import solve, sum_rows
from lntx.numerics.exact_matrix import ExactMatrix, exactly, exponents, split
from lntx.numerics.gram import Gram
from lntx.numerics.powers import powers

FLOATS = st.floats(-1e99, 1e99).filter(lambda value: value == 0 or abs(value) > 1e-99)


def _exact(matrix: np.ndarray) -> ExactMatrix:
    return exactly(matrix, exponents(np.abs(matrix).max(axis=1)), np.zeros(matrix.shape[1], np.int64))


@settings(max_examples=200, deadline=None)
@given(st.lists(FLOATS, min_size=4, max_size=4))
def test_digits_add_up_to_the_number(values: list[float]) -> None:
    numbers = np.array([values]) / 2.0 ** int(np.frexp(np.abs(values).max())[1])
    digits = split(numbers)
    for j, value in enumerate(numbers[0].tolist()):
        total = sum((int(digit[0, j]) * Fraction(2) ** (-20 * level) for level, digit in digits.items()), Fraction(0))
        assert total == Fraction(value)


@settings(max_examples=100, deadline=None)
@given(st.lists(FLOATS, min_size=12, max_size=12))
def test_the_gram_matrix_is_exact(values: list[float]) -> None:
    rows = np.array(values).reshape(6, 2)
    gram = Gram(2)
    for row in rows:
        gram.add(row[None, :])
    total = gram.total()
    for i in range(2):
        for j in range(2):
            # Numbers 2^-1000 of a column's first size and below are left out.
            exact = sum((Fraction(row[i]) * Fraction(row[j]) for row in rows.tolist()), Fraction(0))
            assert abs(total.fraction(i, j) - exact) <= Fraction(2) ** -900 * max(abs(exact), 1)


def test_products_of_matrices_are_exact() -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    left = generator.normal(size=(5, 7)) * 10.0 ** generator.integers(-20, 20, (5, 7))
    right = generator.normal(size=(7, 3)) * 10.0 ** generator.integers(-20, 20, (7, 3))
    product = _exact(left) @ exactly(right, np.zeros(7, np.int64), np.zeros(3, np.int64))
    for i in range(5):
        for j in range(3):
            exact = sum((Fraction(left[i, k]) * Fraction(right[k, j]) for k in range(7)), Fraction(0))
            assert product.fraction(i, j) == exact
            assert product.rounded()[i, j] == float(exact)


def test_powers_have_thirty_one_digits() -> None:
    x = np.random.Generator(np.random.PCG64(0)).uniform(-9, 9, 50)
    high, low = powers(x, 12)
    for k in range(1, 13):
        for value, part, rest in zip(x.tolist(), high[:, k - 1].tolist(), low[:, k - 1].tolist(), strict=True):
            exact = Fraction(value) ** k
            assert abs((Fraction(part) + Fraction(rest) - exact) / exact) < 1e-31


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-90, 1e90])
def test_the_solution_is_the_rational_one_at_any_scale(bias: bool, scale: float) -> None:
    generator = np.random.Generator(np.random.PCG64(1))
    x = generator.normal(size=(40, 3)) * np.array([1.0, 1e5, 1e-7]) * scale + np.array([0.0, 3e5, 0.0]) * scale
    y = generator.normal(size=40)
    found = solve(sum_rows([Block(x, y)], 3), ("a", "b", "c"), bias=bias)
    coefficients = [*found.weights, *([found.bias] if found.bias is not None else [])]
    assert coefficients == least_squares(x, y, bias=bias)


@pytest.mark.parametrize("bias", [False, True])
def test_neither_order_nor_blocks_nor_threads_change_a_bit(bias: bool) -> None:
    generator = np.random.Generator(np.random.PCG64(2))
    x, y = generator.normal(3, 1, (30_000, 5)), generator.normal(size=30_000)
    names = tuple("abcde")
    first = solve(sum_rows([Block(x, y)], 5), names, bias=bias)
    for rows in (999, 4096, 20_000):
        order = generator.permutation(len(x))
        blocks = [Block(x[order[i : i + rows]], y[order[i : i + rows]]) for i in range(0, len(x), rows)]
        assert solve(sum_rows(blocks, 5), names, bias=bias) == first


@pytest.mark.parametrize(
    ("columns", "bias", "line"),
    [
        ([[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 5.0, 3.0]], True, "feature 'a' is constant (1), and so is the bias"),
        ([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]], False, "feature 'b' duplicates 'a'"),
        ([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]], False, "feature 'b' is 0 in every row"),
        ([[1.0, 2.0, 4.0, 0.0], [1.0, 0.0, 5.0, 2.0], [3.0, 4.0, 13.0, 2.0]], False, "combination of 'a', 'b'"),
        ([[1.0, 2.0, 4.0, 8.0], [3.0, 5.0, 9.0, 17.0]], True, "combination of 'a', the bias"),
        ([[1.0, 2.0], [2.0, 1.0]], True, "2 rows are too few for 3 weights"),
    ],
)
def test_dependent_columns_are_named_by_the_reference_too(columns: list[list[float]], bias: bool, line: str) -> None:
    x = np.array(columns).T
    with pytest.raises(BadInput) as caught:
        solve(sum_rows([Block(x, np.ones(len(x)))], x.shape[1]), ("a", "b", "c")[: x.shape[1]], bias=bias)
    assert line in str(caught.value)


def test_many_columns_are_solved_to_the_last_bits() -> None:
    """Sixty columns of condition number 10^8: the exact residual of the normal equations vanishes in every column."""
    generator = np.random.Generator(np.random.PCG64(3))
    left, _ = np.linalg.qr(generator.normal(size=(300, 60)))
    x = left @ np.diag(np.logspace(0, -8, 60)) @ np.linalg.qr(generator.normal(size=(60, 60)))[0]
    y = x @ generator.normal(size=60)
    found = solve(sum_rows([Block(x, y)], 60), tuple(f"x{j}" for j in range(60)), bias=False)
    for j in range(2):
        # What is left of the normal equations is what rounding the weights leaves.
        left_over = sum(
            (
                Fraction(row[j]) * (Fraction(target) - _predicted(row, found.weights))
                for row, target in zip(x.tolist(), y.tolist(), strict=True)
            ),
            Fraction(0),
        )
        assert abs(left_over) <= 2.0**-53 * float(np.abs(x[:, j]) @ np.abs(x) @ np.abs(found.weights))


def _predicted(row: list[float], weights: tuple[float, ...]) -> Fraction:
    return sum((Fraction(a) * Fraction(b) for a, b in zip(row, weights, strict=True)), Fraction(0))
