"""Operators that lntx.prove takes apart, those that FLINT computes, and those that choose among numbers.

Run: pytest tests/core/test_operators.py; the sweep over torch's own database is in `make test-all`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import warnings
from collections.abc import Callable
from typing import Any

import formula_cases as cases
import numpy as np
import pytest
import torch
from flint import ctx
from formula_cases import Case
from operators import sweep
from scipy import special
from test_formulas import COMPUTED, WITH_FORMULA

import lntx
from lntx.proof.bounds.functions import FUNCTIONS
from lntx.proof.bounds.numbers import BALL_BITS, as_balls, middle
from lntx.proof.formulas import FORMULAS, OWN_FORMAT
from lntx.proof.formulas.selections import SELECTIONS
from lntx.proof.operators import decomposition
from lntx.proof.operators.rows import judge, judge_numbers

X = np.random.default_rng(11).uniform(0.05, 0.95, 12)
Y = np.random.default_rng(12).uniform(0.05, 4.0, 12)

# What scipy and numpy say: each function once more, by other people. Those of FLINT alone are left out.
SECOND: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    **{name: (getattr(np, f"arc{name[1:]}"), (X,)) for name in ("acos", "asin", "asinh", "atan", "atanh")},
    **{name: (getattr(np, name), (X,)) for name in ("cosh", "exp2", "log10", "log2", "sinh", "tan", "sinc")},
    **{name: (getattr(special, name), (X,)) for name in ("erfc", "erfinv", "digamma", "i0")},
    **{
        f"special_{name}": (getattr(special, name), (X,)) for name in ("i0e", "i1", "i1e", "erfcx", "log_ndtr", "ndtri")
    },
    **{f"special_bessel_{name}": (getattr(special, name), (Y,)) for name in ("j0", "j1", "y0", "y1")},
    **{f"special_modified_bessel_{name}": (getattr(special, name), (Y,)) for name in ("i0", "i1", "k0", "k1")},
    **{f"special_scaled_modified_bessel_{name}": (getattr(special, f"{name}e"), (Y,)) for name in ("k0", "k1")},
    "acosh": (np.arccosh, (Y + 1,)),
    "lgamma": (special.gammaln, (Y,)),
    "special_airy_ai": (lambda x: special.airy(x)[0], (-Y,)),
    "special_spherical_bessel_j0": (lambda x: special.spherical_jn(0, x), (Y,)),
    "atan2": (np.arctan2, (X, -Y)),
    "hypot": (np.hypot, (X, Y)),
    "logaddexp": (np.logaddexp, (X, Y)),
    "logaddexp2": (np.logaddexp2, (X, Y)),
    "polygamma": (special.polygamma, (1, Y)),
    "special_zeta": (special.zeta, (Y + 1.5, X)),
    "igamma": (special.gammainc, (X, Y)),
    "igammac": (special.gammaincc, (X, Y)),
    "special_xlog1py": (special.xlog1py, (X, Y)),
    "xlogy": (special.xlogy, (X, Y)),
}

DEGREES = np.arange(12)
SECOND |= {
    f"special_{prefix}{name}": (getattr(special, f"eval_{second}"), (DEGREES, Y - 1))
    for prefix, name, second in (
        ("", "chebyshev_polynomial_t", "chebyt"),
        ("", "chebyshev_polynomial_u", "chebyu"),
        ("shifted_", "chebyshev_polynomial_t", "sh_chebyt"),
        ("shifted_", "chebyshev_polynomial_u", "sh_chebyu"),
        ("", "hermite_polynomial_h", "hermite"),
        ("", "hermite_polynomial_he", "hermitenorm"),
        ("", "laguerre_polynomial_l", "laguerre"),
        ("", "legendre_polynomial_p", "legendre"),
    )
}
# By their relation to those of the second kind (DLMF 18.7): V_n = U_n - U_(n-1), W_n = U_n + U_(n-1).
SECOND |= {
    f"special_{prefix}chebyshev_polynomial_{kind}": (
        lambda n, x, u=second, sign=sign: u(n, x) + sign * np.where(n > 0, u(np.maximum(n - 1, 0), x), 0.0),
        (DEGREES, Y - 1),
    )
    for prefix, second in (("", special.eval_chebyu), ("shifted_", special.eval_sh_chebyu))
    for kind, sign in (("v", -1), ("w", 1))
}
OVERLOADS = {"xlogy": "xlogy.Tensor"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_that_of_scipy(name: str) -> None:
    ctx.prec = BALL_BITS
    function, arguments = SECOND[name]
    arrays = np.broadcast_arrays(*(arguments[::-1] if "polynomial" in name else arguments))
    found = [float(FUNCTIONS[name](*numbers)) for numbers in zip(*map(as_balls, map(np.float64, arrays)), strict=True)]
    np.testing.assert_allclose(found, function(*arguments), rtol=1e-11)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_function_is_caught_and_a_right_one_is_not(name: str, dtype: torch.dtype) -> None:
    """A result moved by ten times its bound."""
    _, arguments = SECOND[name]
    arguments = arguments[::-1] if "polynomial" in name else arguments
    tensors = [value if isinstance(value, int) else torch.from_numpy(value).to(dtype) for value in arguments]
    names = [argument.name for argument in cases.of_torch(OVERLOADS.get(name, name))._schema.arguments]
    call = None
    with contextlib.suppress(NotImplementedError):
        # Some have no kernel for 16 bits.
        call = cases.made(Case(OVERLOADS.get(name, name), dict(zip(names, tensors, strict=True)), lambda: None))
    if call is None:
        return
    assert judge(call).share <= 1
    place = judge(call).place
    assert place is not None
    call.outputs[0] = call.out.clone()
    # Kernels that round inside to 16 bits have a larger bound.
    call.outputs[0][place.index] = place.true + (1000 if name in OWN_FORMAT else 10) * place.bound
    assert judge(call).share > 1


@pytest.mark.parametrize("name", sorted(SELECTIONS))
def test_a_wrong_choice_is_caught_and_a_right_one_is_not(name: str) -> None:
    """Values and places, each on its own."""
    inputs = torch.tensor([[3.0, -1.0, 2.0, 2.0, 7.0], [0.0, 5.0, -4.0, 1.0, 1.0]])
    more = {"k": 2} if name in ("topk", "kthvalue") else {}
    operator = f"{name}.dim" if name in ("median", "nanmedian") else name
    call = cases.made(Case(operator, {"self": inputs, "dim": 1, **more}, lambda: None))
    assert judge(call).share == 0
    for slot in range(len(call.outputs)):
        right = call.outputs[slot]
        call.outputs[slot] = (right + 1) % 5 if right.dtype == torch.int64 else right + 1
        assert judge(call).share > 1
        call.outputs[slot] = right


def _own_table(operator: Any) -> dict[Any, Callable[..., Any]]:
    """torch's decompositions, that of an operator with a formula among them."""
    from torch._decomp import core_aten_decompositions, decomposition_table

    every = {**decomposition_table, **core_aten_decompositions()}
    own = {operator: every[operator]} if operator in every else {}
    return {**decomposition._table(), **own}


APART = [case for case in COMPUTED if case.name not in FORMULAS]


@pytest.mark.parametrize("case", APART, ids=lambda case: case.operator)
def test_what_is_taken_apart_has_the_value_of_its_definition(case: Case) -> None:
    """Within the bound that is allowed to a kernel."""
    ctx.prec = BALL_BITS
    call = cases.made(case)
    true = case.truth(**cases.as_arrays(case.args))
    trues = [true] if isinstance(true, np.ndarray) else [*true]
    assert judge(call).share <= 1
    with np.errstate(all="ignore"):
        taken_apart = list(decomposition.by_decomposition(call))
    for slot, flat, numbers in taken_apart:
        for k, value, error in zip(flat, numbers.value, numbers.error, strict=True):
            assert abs(value - trues[int(slot)].reshape(-1)[k]) <= error + case.tolerance * abs(value) + 1e-80


@pytest.mark.slow
def test_a_decomposition_gives_what_the_formula_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an operator has both: the true values of one are within the bounds of the other."""
    compared = set()
    for case in WITH_FORMULA:
        if not hasattr(torch.ops.aten, case.operator.split(".")[0]):
            continue
        call, table = cases.made(case), _own_table(cases.of_torch(case.operator))
        with monkeypatch.context() as patch, np.errstate(all="ignore"):
            patch.setattr(decomposition, "_table", lambda table=table: table)
            patch.setattr(decomposition, "_GRAPHS", {})
            try:
                taken_apart = list(decomposition.by_decomposition(call))
            except NotImplementedError:
                continue
            values = {slot: np.full(call.result(slot).numel(), np.nan) for slot, _, _ in taken_apart}
            errors = {slot: np.zeros(every.size) for slot, every in values.items()}
            for slot, flat, numbers in FORMULAS[call.name](call):
                if slot in values:
                    values[slot][flat] = np.broadcast_to(middle(numbers.value).reshape(-1), flat.shape)
                    errors[slot][flat] = np.broadcast_to(numbers.error.reshape(-1), flat.shape)
            for slot, flat, numbers in taken_apart:
                away = np.abs(middle(numbers.value) - values[slot][flat]) - 2 * (numbers.error + errors[slot][flat])
                assert not (away > 1e-300).any(), (case.operator, slot, float(np.nanmax(away)))
            assert judge_numbers(call, taken_apart).share <= 1, case.operator
        compared.add(case.operator)
    if torch.__version__.startswith("2.13"):
        assert len(compared) > 60


def test_what_is_taken_apart_is_checked_in_place_in_lists_and_in_every_format() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        values = torch.rand(200, 100, dtype=dtype)
        with lntx.prove(seed=3) as proof:
            torch.nn.functional.mish(values)
            torch.nn.functional.hardswish(values, inplace=True)
            torch._foreach_erfc([values, values[:2]])
            torch.nn.functional.selu(values[:3])
        assert proof.passed, proof.reason
        assert {"mish", "hardswish", "erfc"} <= proof.operators
        assert proof.unchecked.keys() <= {"rand"}, proof


def test_a_wrong_kernel_without_a_formula_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.ops.aten.mish.default

    class Wrong(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            return result * 1.00001 if func is real else result

    with Wrong(), lntx.prove(seed=1) as proof:
        torch.nn.functional.mish(torch.linspace(-3, 3, 50))
    assert not proof.passed
    assert proof.wrong[0].operator == "mish"


# docs/findings.md has each of them.
FOUND = ("div (bfloat16", "div (float16", "bessel", "airy", "polygamma", "digamma", "hardsigmoid", "soft_margin_loss")
# Entries of which every computing call is checked, in percent, as last measured with torch 2.13.
LEAST = {torch.float32: 95, torch.float64: 95, torch.bfloat16: 95, torch.float16: 95, torch.int64: 98}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", LEAST, ids=str)
def test_no_operator_of_torch_alarms_but_those_that_are_known(dtype: torch.dtype) -> None:
    """Every entry of torch's own database, one sample each, forward and backward."""
    # torch's samples look at the whole stack: below pytest's that takes five times as long as in a process of its own.
    with multiprocessing.get_context("spawn").Pool(1, warnings.simplefilter, ("ignore",)) as pool:
        result = pool.apply(sweep, (dtype,), {"samples": 1, "seconds": 60})
    assert [alarm for alarm in result.alarms if not any(name in alarm for name in FOUND)] == []
    assert [name for name in result.failed if "jiterator" not in name and "complex" not in name] == []
    if torch.__version__.startswith("2.13"):
        assert 100 * result.whole / result.entries >= LEAST[dtype]


def test_a_floor_beyond_the_whole_numbers_of_the_format_is_no_alarm() -> None:
    numbers, divisors = torch.tensor([1e17, 3e9, 7.5]), torch.tensor([0.501, 1.5, 2.0])
    with lntx.prove() as proof:
        torch.div(numbers, divisors, rounding_mode="floor")
    assert proof.passed, proof.reason
