"""Each formula of lntx.proof against a second form of the same definition, and the bounds against real roundings.

The true value is compared, in balls of 300 bits; torch's kernels only give the shapes of the results.
Run: pytest tests/core/test_formulas.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import formula_cases as cases
import layer_cases
import numpy as np
import pytest
import torch
from flint import arb, ctx
from formula_cases import Case
from hypothesis import given, settings
from hypothesis import strategies as st

from lntx.proof.bounds.functions import FUNCTIONS as OF_FLINT
from lntx.proof.bounds.numbers import BALL_BITS, FORMATS, Array, Bounded
from lntx.proof.formulas import FORMULAS, MOVES, bits
from lntx.proof.formulas.selections import SELECTIONS
from lntx.proof.operators.rows import judge

TABLES = (
    (cases.pointwise, cases.activations, cases.choices, cases.slopes, cases.conversions),
    (
        cases.sums,
        cases.products,
        cases.places,
        cases.indexed_pools,
        cases.chosen,
        cases.ranges,
        layer_cases.losses,
        layer_cases.classes,
        layer_cases.softmaxes,
    ),
    (
        layer_cases.norms,
        layer_cases.batch_norms,
        layer_cases.attentions,
        layer_cases.convolutions,
        layer_cases.pools,
        layer_cases.pools_in_space,
    ),
    (layer_cases.recurrent, layer_cases.optimizers),
)
COMPUTED = [case for row in TABLES for table in row for case in table()]
MOVED = list(cases.moves())


def test_every_formula_has_a_case() -> None:
    """A formula without an independent truth is not a check."""
    # tests/core/test_operators.py has those of FLINT, and the choices.
    assert {case.name for case in COMPUTED} >= set(FORMULAS) - set(OF_FLINT) - SELECTIONS
    assert {case.name for case in MOVED} == set(MOVES)


WITH_FORMULA = [case for case in COMPUTED if case.name in FORMULAS]


@pytest.mark.parametrize("case", WITH_FORMULA, ids=lambda case: case.operator)
def test_the_true_value_is_that_of_the_definition(case: Case) -> None:
    """At every element, to more digits than a float64 has; in float64, within the bound for float64."""
    if not hasattr(torch.ops.aten, case.operator.split(".")[0]):
        pytest.skip(f"torch {torch.__version__} has no {case.operator}: pip install torch==2.13.0")
    ctx.prec = BALL_BITS
    call = cases.made(case)
    call.as_balls, call.is_in_graph = call.dtype in FORMATS, True
    true = case.truth(**cases.as_arrays(case.args))
    true = {"0": true} if isinstance(true, np.ndarray) else true
    true = true if isinstance(true, dict) else {str(k): one for k, one in enumerate(true) if one is not None}
    seen = {slot: np.zeros(one.size, dtype=bool) for slot, one in true.items()}
    with np.errstate(all="ignore"):
        found = list(FORMULAS[call.name](call))
        call.as_balls = False
        rough = list(FORMULAS[call.name](call))
    for (slot, flat, exact), (_, _, computed) in zip(found, rough, strict=True):
        wanted = true[slot].reshape(-1)
        assert wanted.size == call.result(slot).numel()
        size = max(float(abs(arb(one)).mid()) for one in wanted)
        for k, value in zip(flat, np.broadcast_to(exact.value, flat.shape), strict=True):
            away = float((arb(value) - arb(wanted[k])).abs_upper())
            assert away <= case.tolerance * size, (slot, int(k), float(arb(value)), float(arb(wanted[k])))
        seen[slot][flat] = True
        with np.errstate(all="ignore"):
            assert not (Bounded(exact.value, computed.error, computed.format).share(computed.value) > 1).any()
    assert all(one.all() for one in seen.values())


@pytest.mark.parametrize("case", MOVED, ids=lambda case: case.operator)
def test_a_move_puts_every_bit_where_the_definition_does(case: Case) -> None:
    call = cases.made(case)
    true = case.truth(**cases.as_arrays(case.args, numbers=True))
    wanted = torch.tensor(np.asarray(true).tolist(), dtype=call.out.dtype)
    assert wanted.shape == call.out.shape
    found = np.broadcast_to(MOVES[call.name](call), bits(wanted).shape)
    np.testing.assert_array_equal(found, bits(wanted))


X = cases.X
REFUSED = [
    ("topk", {"self": X, "k": 2, "sorted": False}),
    ("round.decimals", {"self": torch.tensor([0.125]), "decimals": 2}),
    ("prod", {"self": torch.tensor([1e-30, 1e-30, 1e30])}),
    ("scatter.value_reduce", {"self": X, "dim": 1, "index": torch.tensor([[0]]), "value": 2.0, "reduce": "add"}),
    ("eq.Scalar", {"self": torch.tensor([2**60 + 1]), "other": 1}),
]


@pytest.mark.parametrize(("operator", "args"), REFUSED)
def test_what_a_formula_does_not_cover_it_refuses(operator: str, args: dict[str, Any]) -> None:
    """A number that means something else is worse than none."""
    call = cases.made(Case(operator, args, lambda: None))
    with pytest.raises(NotImplementedError):
        judge(call)


U = FORMATS[torch.float32].u
NUMBERS = st.floats(-100, 100, width=32)
# Of those, no quotient of two is too large for float32.
FACTORS = NUMBERS.filter(lambda x: x == 0 or abs(x) > 1e-12)
SEEDS = st.integers(0, 2**32 - 1)
OPERATIONS: dict[str, tuple[Callable[..., Array], Callable[..., Bounded]]] = {
    "+": (np.add, lambda a, b: a + b),
    "-": (np.subtract, lambda a, b: a - b),
    "*": (np.multiply, lambda a, b: a * b),
    "/": (np.divide, lambda a, b: a / b),
}
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "log": lambda x: np.log(np.abs(x)),
    "sqrt": lambda x: np.sqrt(np.abs(x)),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def exactly(numbers: Any) -> Bounded:
    return Bounded.exactly(np.asarray(numbers, dtype=np.float64), FORMATS[torch.float32])


def within(bounded: Bounded, got: Any) -> bool:
    """Return whether float32 results are within the bound. What has no finite bound has no share."""
    return not (bounded.share(np.asarray(got, dtype=np.float64)) > 1).any()


def added(terms: list[np.float32], draw: np.random.Generator) -> np.float32:
    """Add in float32, two numbers drawn from what is there at a time."""
    while len(terms) > 1:
        draw.shuffle(terms)
        terms.append(np.float32(terms.pop() + terms.pop()))
    return terms[0]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("operation", OPERATIONS)
@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.tuples(FACTORS, FACTORS, FACTORS), min_size=1, max_size=20))
def test_float32_stays_within_the_bound(function: str, operation: str, rows: Any) -> None:
    """Through two operations and a function, each on what the one before has rounded."""
    ctx.prec = BALL_BITS
    a, b, c = np.array(rows, dtype=np.float32).T
    on_floats, on_bounds = OPERATIONS[operation]
    with np.errstate(all="ignore"):
        got = on_floats(on_floats(a, b), c)
        bounded = on_bounds(on_bounds(exactly(a), exactly(b)), exactly(c))
        assert within(bounded, got)
        bounded = bounded.abs() if function in ("log", "sqrt") else bounded
        assert within(getattr(bounded, function)(), FUNCTIONS[function](got))


@settings(max_examples=60, deadline=None)
@given(numbers=st.lists(NUMBERS, min_size=1, max_size=40), seed=SEEDS)
def test_a_sum_in_any_order_stays_within_the_bound(numbers: list[float], seed: int) -> None:
    """And the bound is at most 100 n u of the sum of the magnitudes."""
    bounded = exactly(numbers).sum()
    got = added([np.float32(one) for one in numbers], np.random.default_rng(seed))
    assert within(bounded, [got])
    assert bounded.error[0] <= 100 * len(numbers) * (U * sum(map(abs, numbers)) + FORMATS[torch.float32].tiny)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 30), scale=st.integers(-20, 20), seed=SEEDS)
def test_a_product_in_any_order_stays_within_the_bound(n: int, scale: int, seed: int) -> None:
    """Of matrices of numbers that are exact, and of numbers that were rounded before."""
    draw = np.random.default_rng(seed)
    left, right, third = (draw.normal(size=shape).astype(np.float32) for shape in ((2, n), (n, 3), (2, n)))
    left = np.ldexp(left, scale)
    for factor, bounded in ((left, exactly(left)), (left * third, exactly(left) * exactly(third))):
        product = bounded @ exactly(right)
        got = [[added(list(row * column), draw) for column in right.T] for row in factor]
        assert within(product, got)
        size = np.abs(factor.astype(np.float64)) @ np.abs(right)
        assert (product.error <= 100 * n * (U * size + FORMATS[torch.float32].tiny)).all()
