"""What is checked by what defines it: factorisations, solutions, Fourier transforms, complex numbers.

A right result is within the bound, in each size; one that is moved in any of its numbers is not.
Run: pytest tests/core/test_factorisations.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import formula_cases as cases
import numpy as np
import pytest
import torch
from formula_cases import Case
from hypothesis import given, settings
from hypothesis import strategies as st

import lntx
from lntx.proof.bounds.call import Call
from lntx.proof.formulas.certificates import CERTIFICATES, MAY_BE_INFINITE, OF_COMPLEX
from lntx.proof.operators.rows import judge

KINDS = {torch.float32: 1e-3, torch.float64: 1e-9, torch.complex64: 1e-3}
"""The relative error of one number of a result that is caught, for small matrices."""


def numbers(draw: np.random.Generator, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    values = torch.from_numpy(draw.normal(size=shape) + 1j * draw.normal(size=shape))
    return values.to(dtype) if dtype.is_complex else values.real.to(dtype)


def definite(draw: np.random.Generator, dtype: torch.dtype, n: int) -> torch.Tensor:
    matrix = numbers(draw, dtype, 2, n, n)
    return matrix @ matrix.mH + n * torch.eye(n, dtype=dtype)


def of_factors(name: str, draw: np.random.Generator, dtype: torch.dtype, n: int) -> dict[str, Any]:
    """The arguments of an operator that takes what another has packed."""
    matrix = numbers(draw, dtype, n + 1, n)
    if name in ("lu_unpack", "linalg_lu_solve"):
        packed, pivots = torch.linalg.lu_factor(definite(draw, dtype, n))
        if name == "lu_unpack":
            return {"LU_data": packed, "LU_pivots": pivots}
        adjoint = bool(draw.integers(2))
        return {"LU": packed, "pivots": pivots, "B": numbers(draw, dtype, 2, n, 3), "adjoint": adjoint}
    packed, factors = torch.geqrf(matrix)
    if name == "ormqr":
        return {"self": packed, "input2": factors, "input3": numbers(draw, dtype, n + 1, 2)}
    return {"input": packed, "tau": factors}


MAKERS: dict[str, Callable[[np.random.Generator, torch.dtype, int], dict[str, Any]]] = {
    "linalg_solve_triangular": lambda draw, t, n: {
        "self": definite(draw, t, n), "B": numbers(draw, t, 2, n, n), "upper": bool(draw.integers(2)),
        "left": bool(draw.integers(2)), "unitriangular": False,
    },
    "triangular_solve": lambda draw, t, n: {
        "self": numbers(draw, t, 2, n, 3), "A": definite(draw, t, n), "upper": bool(draw.integers(2)),
        "transpose": bool(draw.integers(2)),
    },
    "linalg_lu_factor_ex": lambda draw, t, n: {"A": numbers(draw, t, 2, n + 1, n)},
    "linalg_lu": lambda draw, t, n: {"A": numbers(draw, t, 2, n, n + 2)},
    "_linalg_solve_ex": lambda draw, t, n: {"A": numbers(draw, t, 2, n, n), "B": numbers(draw, t, 2, n, 3)},
    "linalg_inv_ex": lambda draw, t, n: {"A": definite(draw, t, n)},
    "linalg_cholesky_ex": lambda draw, t, n: {"self": definite(draw, t, n), "upper": bool(draw.integers(2))},
    "cholesky": lambda draw, t, n: {"self": definite(draw, t, n)},
    "_linalg_det": lambda draw, t, n: {"A": numbers(draw, t, 2, n, n)},
    "_linalg_slogdet": lambda draw, t, n: {"A": definite(draw, t, n)},
    "linalg_qr": lambda draw, t, n: {
        "A": numbers(draw, t, 2, n + 1, n), "mode": str(draw.choice(["reduced", "complete"])),
    },
    "geqrf": lambda draw, t, n: {"self": numbers(draw, t, 2, n + 1, n)},
    "_linalg_eigh": lambda draw, t, n: {"A": definite(draw, t, n), "UPLO": str(draw.choice(["L", "U"]))},
    "linalg_eig": lambda draw, t, n: {"self": numbers(draw, t, 2, n, n)},
    "_linalg_svd": lambda draw, t, n: {"A": numbers(draw, t, 2, n + 1, n), "full_matrices": bool(draw.integers(2))},
    "linalg_lstsq": lambda draw, t, n: {"self": numbers(draw, t, 2, n + 2, n), "b": numbers(draw, t, 2, n + 2, 2)},
    "linalg_pinv": lambda draw, t, n: {"self": numbers(draw, t, n + 1, n), "rcond": 1e-6},
    "_fft_c2c": lambda draw, t, n: {
        "self": numbers(draw, torch.complex64 if t == torch.float32 else torch.complex128, 3, n, 2 * n), "dim": [1, 2],
        "normalization": int(draw.integers(3)), "forward": bool(draw.integers(2)),
    },
    "_fft_r2c": lambda draw, t, n: {
        "self": numbers(draw, t, 3, n, 2 * n), "dim": [1, 2], "normalization": 1, "onesided": bool(draw.integers(2)),
    },
    "_fft_c2r": lambda draw, t, n: {
        "self": torch.fft.rfft(numbers(draw, t, 3, 2 * n)), "dim": [1], "normalization": 2, "last_dim_size": 2 * n,
    },
}  # fmt: skip
NAMES = [*CERTIFICATES]
REAL_ONLY = {"_fft_r2c", "_fft_c2r", "_fft_c2c"}


def called(name: str, dtype: torch.dtype, size: int, seed: int) -> Call:
    draw = np.random.default_rng(seed)
    maker = MAKERS.get(name)
    args = maker(draw, dtype, size) if maker is not None else of_factors(name, draw, dtype, size)
    return cases.made(Case(name, args, lambda: None))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 24), seed=st.integers(0, 2**32), dtype=st.sampled_from([*KINDS]))
def test_a_right_result_is_within_the_bound(name: str, size: int, seed: int, dtype: torch.dtype) -> None:
    if dtype.is_complex and name in REAL_ONLY:
        return
    judged = judge(called(name, dtype, size, seed))
    assert judged.elements
    assert judged.share <= 1, judged.place


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_result_that_is_moved_in_one_number_is_wrong(name: str, dtype: torch.dtype) -> None:
    """Each output that the operator is asked for, at drawn places, by a thousandth of its largest number."""
    draw = np.random.default_rng(5)
    caught = 0
    for seed in range(8):
        call = called(name, dtype, 4, seed)
        for slot, right in enumerate(call.outputs):
            if not right.is_floating_point() and not right.is_complex():
                continue
            if name == "linalg_lstsq" and slot:
                # The sums of squares, the rank and the singular values are by-products.
                continue
            moved = right.clone()
            place = tuple(int(draw.integers(side)) for side in moved.shape)
            moved[place] += float(right.abs().max()) * KINDS[dtype]
            call.outputs[slot] = moved
            assert judge(call).share > 1, (slot, place)
            call.outputs[slot] = right
            caught += 1
    assert caught


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", sorted({*NAMES} - MAY_BE_INFINITE))
def test_a_number_that_is_lost_is_wrong(name: str, number: float) -> None:
    call = called(name, torch.float32, 4, 2)
    for slot, right in enumerate(call.outputs):
        if right.is_floating_point() or right.is_complex():
            lost = right.clone()
            lost[(0,) * lost.dim()] = number
            call.outputs[slot] = lost
            assert judge(call).share > 1, slot
            call.outputs[slot] = right


@pytest.mark.parametrize("name", NAMES)
def test_what_moves_the_residual_by_ten_times_its_bound_is_wrong(name: str) -> None:
    call = called(name, torch.float64, 5, 3)
    residuals = list(CERTIFICATES[name](call))
    # Of those that rounding moves, where there are.
    which = next((k for k, (*_, bound) in enumerate(residuals) if np.max(bound) > 0), 0)
    slot = int(residuals[which][0])
    right, step, share = call.outputs[slot], 1e-16, 0.0
    while share < 10:
        step *= 2
        assert step < 1e3
        call.outputs[slot] = right + step
        *_, moved, bound = list(CERTIFICATES[name](call))[which]
        share = float(np.max(np.abs(moved - residuals[which][2]) / np.maximum(bound, 1e-300)))
    assert judge(call).share > 1


@pytest.mark.parametrize("name", OF_COMPLEX)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_numbers(name: str, dtype: torch.dtype) -> None:
    draw, real = np.random.default_rng(1), torch.float32 if dtype == torch.complex64 else torch.float64
    x, y = numbers(draw, dtype, 3, 40), numbers(draw, dtype, 40)
    args: dict[str, Any] = {
        "complex": {"real": x.real, "imag": x.imag},
        "polar": {"abs": x.abs(), "angle": x.imag},
        "_to_copy": {"self": x.real, "dtype": dtype},
        "copy": {"self": x, "src": x.real},
        "mm": {"self": x.mT, "mat2": x},
        "bmm": {"self": x.mT[None], "mat2": x[None]},
    }.get(name) or ({"self": x, "other": y} if name in ("add", "sub", "mul", "div") else {"self": x})
    operator = f"{name}.Tensor" if "other" in args else name
    if operator == "add.Tensor":
        args["alpha"] = 0.5 - 2j
    call = cases.made(Case(operator, args, lambda: None))
    assert judge(call).share <= 1
    for part in [1, 1j] if call.out.is_complex() else [1]:
        right = call.outputs[0]
        moved = right.clone()
        moved[..., 1, 7] += part * abs(complex(right[..., 1, 7]) + 1) * 200 * torch.finfo(real).eps
        call.outputs[0] = moved
        assert judge(call).share > 1
        call.outputs[0] = right


def test_a_training_step_through_linear_algebra_is_checked_as_a_whole() -> None:
    """Solving, a determinant, singular values and a Fourier transform, forward and backward."""
    torch.manual_seed(2)
    matrix = torch.randn(6, 6, requires_grad=True)
    with lntx.prove(seed=1) as proof:
        loss = torch.linalg.solve(matrix, torch.ones(6)).sum() + torch.linalg.slogdet(matrix).logabsdet
        loss = loss + torch.linalg.svdvals(matrix).sum() + torch.fft.rfft(matrix).abs().sum()
        loss.backward()
    assert proof.passed, proof.reason
    assert not proof.unchecked, proof


def test_a_wrong_factorisation_says_what_is_not_0() -> None:
    real = torch.ops.aten.linalg_qr.default

    class Wrong(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            q, *rest = result = func(*args, **(kwargs or {})) if func is real else (func(*args, **(kwargs or {})),)
            return (q * 1.001, *rest) if func is real else result[0]

    with Wrong(), lntx.prove(seed=1) as proof:
        torch.linalg.qr(torch.randn(5, 3))
    assert proof.wrong[0].operator == "linalg_qr"
    assert "not of the result itself, but of Q* Q - 1" in (proof.reason or "")
