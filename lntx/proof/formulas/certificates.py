"""Operators whose results are easier to check than to compute: factorisations, solutions, Fourier transforms.

A certificate is what must be 0 for the true result, and the most that rounding explains:
- triangular factors and solutions with them, element by element: c n u |L| |U| |x| (Higham, Accuracy and Stability of
  Numerical Algorithms, 2nd ed., theorems 8.5, 9.3, 9.4 and 10.3; blocked kernels: c of a few);
- orthogonal factors, eigenvalues, least squares: 60 n u ||A||, the threshold of LAPACK's own tests (LAPACK Working
  Note 41, which has eps = 2 u and 30);
- Fourier transforms: the norm of all errors is at most c log2(n) u times the norm of the result (Higham, 24.1).
What is compared is computed in float64 or complex128, whose own rounding is in the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from lntx.proof.bounds.call import Call
from lntx.proof.bounds.numbers import Array

Residual = tuple[str, str, Array, Array]
"""The slot of a result, what must be 0, how far it is from 0, and how far rounding may take it."""

_OWN = 2.0**-53
_LAPACK = 60.0
_FOURIER = 24.0
_FACTORS = 4.0


def _numbers(value: Any) -> Array:
    """Return a tensor's numbers as float64 or complex128."""
    kind = torch.complex128 if value.is_complex() else torch.float64
    return np.asarray(value.detach().to(kind).resolve_conj().resolve_neg().cpu().numpy())


def _u(result: torch.Tensor) -> float:
    """Return the unit roundoff of a result, and that of the numbers here."""
    return torch.finfo(result.dtype).eps / 2 + 4 * _OWN


def _turned(array: Array) -> Array:
    return np.swapaxes(array, -1, -2)


def _adjoint(array: Array) -> Array:
    return np.conj(_turned(array))


def _norm(array: Array) -> Array:
    """Return the Frobenius norm of each matrix, shape (..., 1, 1)."""
    return np.asarray(np.linalg.norm(array, axis=(-2, -1), keepdims=True))


def _columns(array: Array) -> Array:
    """Return the norm of each column, shape (..., 1, n)."""
    return np.asarray(np.linalg.norm(array, axis=-2, keepdims=True))


def _triangle(array: Array, *, upper: bool, unit: bool = False) -> Array:
    if not unit:
        return np.triu(array) if upper else np.tril(array)
    return (np.triu(array, 1) if upper else np.tril(array, -1)) + np.eye(*array.shape[-2:])


def _orthonormal(slot: str, what: str, columns: Array, u: float) -> Residual:
    residual = _adjoint(columns) @ columns - np.eye(columns.shape[-1])
    return slot, what, residual, np.broadcast_to(_LAPACK * columns.shape[-2] * u, residual.shape)


def _solution(
    what: str, matrix: Array, sizes: Array, call: Call, right: Array, *, left: bool, slot: str = "0"
) -> Residual:
    """matrix x = right, or x matrix = right. sizes: |L| |U|, of the shape of the matrix."""
    result, u = _numbers(call.result(slot)), _u(call.result(slot))
    if result.ndim < max(matrix.ndim, 2):
        result, right = result[..., None], right[..., None]
    count = _FACTORS * matrix.shape[-1]
    if left:
        residual, bound = right - matrix @ result, sizes @ np.abs(result)
    else:
        residual, bound = right - result @ matrix, np.abs(result) @ sizes
    return slot, what, residual, count * (u * bound + _OWN * np.abs(right))


def _triangular(call: Call) -> Iterator[Residual]:
    """linalg_solve_triangular, triangular_solve: T x = b, or x T = b."""
    is_old = call.name == "triangular_solve"
    matrix, right = (call["A"], call["self"]) if is_old else (call["self"], call["B"])
    triangle = _triangle(_numbers(matrix), upper=call["upper"], unit=call["unitriangular"])
    triangle = _turned(triangle) if is_old and call["transpose"] else triangle
    left = call.args.get("left", True)
    if is_old:
        copied = _numbers(call.result("1")) - _numbers(matrix)
        yield "1", "the copy, less what it copies", copied, np.zeros(copied.shape)
    yield _solution("b - T x", triangle, np.abs(triangle), call, _numbers(right), left=left)


def _permutation(pivots: torch.Tensor, count: int) -> Array:
    """Return P of P L U = A, from the exchanges of rows that LAPACK lists, shape (..., count, count)."""
    listed = pivots.detach().cpu().numpy().astype(np.int64) - 1
    matrix = np.zeros((*listed.shape[:-1], count, count))
    for place in np.ndindex(listed.shape[:-1]):
        order = np.arange(count)
        for row, other in enumerate(listed[place]):
            order[[row, other]] = order[[other, row]]
        matrix[(*place, order, np.arange(count))] = 1.0
    return matrix


def _lower_upper(packed: Array) -> tuple[Array, Array]:
    rows, columns = packed.shape[-2:]
    size = min(rows, columns)
    return _triangle(packed[..., :size], upper=False, unit=True), _triangle(packed[..., :size, :], upper=True)


def _factors(call: Call, packed: str, pivots: str) -> tuple[Array, Array]:
    """Return P L U and P |L| |U| of packed factors, by slot or by name."""
    tensors = [call.outputs[int(name)] if name.isdigit() else call[name] for name in (packed, pivots)]
    lower, upper = _lower_upper(_numbers(tensors[0]))
    permutation = _permutation(tensors[1], lower.shape[-2])
    return permutation @ (lower @ upper), permutation @ (np.abs(lower) @ np.abs(upper))


def _factored(call: Call, packed: str, pivots: str) -> tuple[Residual, Array]:
    """A = P L U. Return the residual, and P |L| |U|. Kernels may factor the transposed matrix instead."""
    matrix, (product, sizes) = _numbers(call["A"]), _factors(call, packed, pivots)
    count = _FACTORS * min(matrix.shape[-2:]) * _u(call.result(packed))
    residual = matrix - product
    if matrix.shape[-1] == matrix.shape[-2] and call.name != "linalg_lu_factor_ex":
        turned = matrix - _turned(product)
        is_turned = np.abs(turned).max(axis=(-1, -2), keepdims=True, initial=0) < np.abs(residual).max(
            axis=(-1, -2), keepdims=True, initial=0
        )
        residual, sizes = np.where(is_turned, turned, residual), np.where(is_turned, _turned(sizes), sizes)
    return (packed, "A - P L U", residual, count * sizes), sizes


def _lu(call: Call) -> Iterator[Residual]:
    yield _factored(call, "0", "1")[0]


def _lu_in_parts(call: Call) -> Iterator[Residual]:
    """linalg_lu: the three matrices."""
    permutation, lower, upper = (_numbers(output) for output in call.outputs)
    if permutation.size:
        matrix = _numbers(call["A"])
        bound = (
            _FACTORS
            * min(matrix.shape[-2:])
            * _u(call.result("1"))
            * (np.abs(permutation) @ (np.abs(lower) @ np.abs(upper)))
        )
        yield "1", "A - P L U", matrix - permutation @ (lower @ upper), bound
        yield "1", "L without its triangle", lower - _triangle(lower, upper=False, unit=True), np.zeros(lower.shape)
    yield "2", "U without its triangle", upper - np.triu(upper), np.zeros(upper.shape)


def _lu_unpacked(call: Call) -> Iterator[Residual]:
    lower, upper = _lower_upper(_numbers(call["LU_data"]))
    permutation = _permutation(call["LU_pivots"], lower.shape[-2])
    for slot, expected in (("0", permutation), ("1", lower), ("2", upper)):
        result = _numbers(call.result(slot))
        if result.size:
            yield slot, "what is unpacked, less what was packed", result - expected, np.zeros(result.shape)


def _solve(call: Call) -> Iterator[Residual]:
    factored, sizes = _factored(call, "1", "2")
    yield factored
    yield _solution("B - A x", _numbers(call["A"]), 3 * sizes, call, _numbers(call["B"]), left=call["left"])


def _lu_solve(call: Call) -> Iterator[Residual]:
    matrix, sizes = _factors(call, "LU", "pivots")
    if call["adjoint"]:
        matrix, sizes = _adjoint(matrix), _turned(sizes)
    yield _solution("B - P L U x", matrix, 2 * sizes, call, _numbers(call["B"]), left=call["left"])


def _inverse(call: Call) -> Iterator[Residual]:
    matrix = _numbers(call["A"])
    # Its factors only scale the bound.
    packed, pivots, _ = torch.linalg.lu_factor_ex(torch.from_numpy(matrix))
    lower, upper = _lower_upper(packed.numpy())
    sizes = _permutation(pivots, matrix.shape[-1]) @ (np.abs(lower) @ np.abs(upper))
    yield _solution("1 - A x", matrix, 3 * sizes, call, np.eye(matrix.shape[-1]), left=True)


def _cholesky(call: Call) -> Iterator[Residual]:
    result = _numbers(call.out)
    lower = _adjoint(result) if call["upper"] else result
    matrix = _adjoint(_numbers(call["self"])) if call["upper"] else _numbers(call["self"])
    bound = _FACTORS * (matrix.shape[-1] + 1) * _u(call.out) * (np.abs(lower) @ _turned(np.abs(lower)))
    failed = call.outputs[1].cpu().numpy()[..., None, None] != 0 if len(call.outputs) > 1 else False
    yield "0", "A - L L*", np.tril(matrix - lower @ _adjoint(lower)), np.where(failed, np.inf, bound)
    yield "0", "L without its triangle", np.triu(lower, 1), np.where(failed, np.inf, np.zeros(lower.shape))


def _determinant(call: Call) -> Iterator[Residual]:
    """_linalg_det, _linalg_slogdet: the product of the diagonal of U, with the sign of P."""
    is_log = call.name == "_linalg_slogdet"
    packed, pivots = ("2", "3") if is_log else ("1", "2")
    yield _factored(call, packed, pivots)[0]
    diagonal = np.diagonal(_numbers(call.result(packed)), axis1=-2, axis2=-1)
    count, u = diagonal.shape[-1], _u(call.out)
    listed = call.result(pivots).detach().cpu().numpy()
    sign = (-1.0) ** (listed != np.arange(1, count + 1)).sum(axis=-1)
    if not is_log:
        value = sign * diagonal.prod(axis=-1)
        yield "0", "det - the product of U's diagonal", _numbers(call.out) - value, 4 * count * u * np.abs(value)
        return
    with np.errstate(all="ignore"):
        logs, phase = np.log(np.abs(diagonal)), sign * (diagonal / np.abs(diagonal)).prod(axis=-1)
    bound = 4 * (count + 2) * u * (np.abs(logs).sum(axis=-1) + 1)
    yield "0", "sign - that of U's diagonal", _numbers(call.out) - phase, np.full(phase.shape, 8.0 * count * u)
    yield "1", "logabsdet - the sum of logarithms", _numbers(call.result("1")) - logs.sum(axis=-1), bound


def _qr(call: Call) -> Iterator[Residual]:
    matrix, upper = _numbers(call["A"]), _numbers(call.result("1"))
    u, size = _u(call.result("1")), max(*matrix.shape[-2:], 1)
    yield "1", "R without its triangle", np.tril(upper, -1), np.zeros(upper.shape)
    if call["mode"] == "r":
        bound = 2 * _LAPACK * size * u * (_turned(_columns(matrix)) @ _columns(matrix))
        yield "1", "A* A - R* R", _adjoint(matrix) @ matrix - _adjoint(upper) @ upper, bound
        return
    yield _orthonormal("0", "Q* Q - 1", _numbers(call.out), u)
    bound = np.broadcast_to(_LAPACK * size * u * _columns(matrix), matrix.shape)
    yield "1", "A - Q R", matrix - _numbers(call.out) @ upper, bound


def _reflected(packed: Array, factors: Array, start: Array) -> tuple[Array, Array]:
    """Return H_1 … H_k start, H_i = 1 - tau_i v_i v_i*, and the largest norm of the partial products, (..., 1, 1)."""
    scale = np.ones((*packed.shape[:-2], 1, 1))
    for k in reversed(range(factors.shape[-1])):
        vector = np.tril(packed, -1)[..., k : k + 1].copy()
        vector[..., k, 0] = 1
        tau = factors[..., k, None, None]
        start = start - tau * vector @ (_adjoint(vector) @ start)
        scale = scale * np.maximum(
            1, 1 + np.abs(tau) * _norm(vector) ** 2 * (np.abs(1 - tau * _norm(vector) ** 2) > 1.01)
        )
    return start, scale


def _householder(call: Call) -> Iterator[Residual]:
    """linalg_householder_product, geqrf: the product of the reflections; A - Q R."""
    u, is_product = _u(call.out), call.name == "linalg_householder_product"
    matrix = _numbers(call["input"] if is_product else call["self"])
    packed = matrix if is_product else _numbers(call.out)
    factors = _numbers(call["tau"] if is_product else call.result("1"))
    rows, columns = matrix.shape[-2:]
    start = np.broadcast_to(np.eye(rows, columns), matrix.shape) if is_product else np.triu(packed)
    product, scale = _reflected(packed, factors, start)
    size = _columns(product) if is_product else _columns(matrix)
    bound = np.broadcast_to(_LAPACK * max(rows, 1) * u * np.maximum(size, 1 if is_product else 0) * scale, matrix.shape)
    yield (
        "0",
        "Q - H_1 ... H_k" if is_product else "A - Q R",
        (_numbers(call.out) if is_product else matrix) - product,
        bound,
    )


def _reflection(call: Call) -> Iterator[Residual]:
    """ormqr: Q C or C Q, or with Q*, of the reflections in self and input2."""
    packed, factors, other = (_numbers(call[name]) for name in ("self", "input2", "input3"))
    rows = packed.shape[-2]
    whole, scale = _reflected(packed, factors, np.broadcast_to(np.eye(rows), (*packed.shape[:-2], rows, rows)))
    whole = _adjoint(whole) if call["transpose"] else whole
    residual = _numbers(call.out) - (whole @ other if call["left"] else other @ whole)
    bound = _LAPACK * max(rows, 1) * _u(call.out) * scale * _norm(other)
    yield "0", "the result, less that in float64", residual, np.broadcast_to(bound, residual.shape)


def _hermitian(matrix: Array, *, upper: bool) -> Array:
    """Return the Hermitian matrix of which one triangle is read."""
    part = _adjoint(np.triu(matrix, 1)) if upper else np.tril(matrix, -1)
    diagonal = np.real(np.diagonal(matrix, axis1=-2, axis2=-1))
    return np.asarray(part + _adjoint(part) + diagonal[..., None] * np.eye(matrix.shape[-1]))


def _eigen(call: Call) -> Iterator[Residual]:
    """_linalg_eigh, linalg_eig: A V = V w."""
    is_hermitian = call.name == "_linalg_eigh"
    matrix, values = _numbers(call["A" if is_hermitian else "self"]), _numbers(call.out)
    u, count = _u(call.out), matrix.shape[-1]
    if is_hermitian:
        matrix = _hermitian(matrix, upper=call["UPLO"].upper() == "U")
        yield "0", "eigenvalues that fall", np.minimum(np.diff(values), 0), np.zeros(np.diff(values).shape)
    allowed = _LAPACK * count * u * _norm(matrix)
    if is_hermitian and not call["compute_v"]:
        difference = values - np.linalg.eigvalsh(matrix)
        yield "0", "w - those in float64", difference, np.broadcast_to(2 * allowed[..., 0], difference.shape)
        return
    vectors = _numbers(call.result("1"))
    residual = matrix @ vectors - vectors * values[..., None, :]
    yield "1", "A V - V w", residual, np.broadcast_to(allowed, residual.shape)
    if is_hermitian:
        yield _orthonormal("1", "V* V - 1", vectors, u)
    else:
        lengths = _columns(vectors) - 1
        yield "1", "|v| - 1", lengths, np.full(lengths.shape, _LAPACK * count * u)


def _singular(call: Call) -> Iterator[Residual]:
    matrix, values = _numbers(call["A"]), _numbers(call.result("1"))
    u, size = _u(call.result("1")), max(*matrix.shape[-2:], 1)
    allowed = _LAPACK * size * u * _norm(matrix)
    yield "1", "singular values that rise", np.maximum(np.diff(values), 0), np.zeros(np.diff(values).shape)
    yield "1", "singular values below 0", np.minimum(values, 0), np.zeros(values.shape)
    if not call["compute_uv"]:
        difference = values - np.linalg.svd(matrix, compute_uv=False)
        yield "1", "S - those in float64", difference, np.broadcast_to(2 * allowed[..., 0], difference.shape)
        return
    left, right = _numbers(call.out), _numbers(call.result("2"))
    count = values.shape[-1]
    residual = matrix - (left[..., :count] * values[..., None, :]) @ right[..., :count, :]
    yield "1", "A - U S V*", residual, np.broadcast_to(allowed, residual.shape)
    yield _orthonormal("0", "U* U - 1", left, u)
    yield _orthonormal("2", "V* V - 1", _adjoint(right), u)


def _least_squares(call: Call) -> Iterator[Residual]:
    matrix, right, solution = _numbers(call["self"]), _numbers(call["b"]), _numbers(call.out)
    if right.ndim < matrix.ndim:
        right, solution = right[..., None], solution[..., None]
    rest = right - matrix @ solution
    size = _norm(matrix) * _columns(solution) + _columns(right)
    allowed = _LAPACK * max(matrix.shape[-2:]) * _u(call.out) * size
    if matrix.shape[-2] < matrix.shape[-1]:
        yield "0", "b - A x", rest, np.broadcast_to(allowed, rest.shape)
    else:
        residual = _adjoint(matrix) @ rest
        yield "0", "A* (b - A x)", residual, np.broadcast_to(allowed * _norm(matrix), residual.shape)


def _pseudo_inverse(call: Call) -> Iterator[Residual]:
    """linalg_pinv: the four conditions of Moore and Penrose, up to the singular values that count as 0."""
    matrix, inverse = _numbers(call["self"]), _numbers(call.out)
    matrix = _hermitian(matrix, upper=False) if call["hermitian"] else matrix
    unit = _LAPACK * max(*matrix.shape[-2:], 1) * _u(call.out)
    size, inverse_size = _norm(matrix), _norm(inverse)
    limits = [
        np.abs(_numbers(limit)).max(initial=0) if isinstance(limit, torch.Tensor) else limit or 0.0
        for limit in (call["atol"], call["rtol"], call["rcond"])
    ]
    left = limits[0] + (limits[1] + limits[2]) * size
    bounds = {
        "A X A - A": (matrix @ inverse @ matrix - matrix, unit * size**2 * inverse_size + left),
        "X A X - X": (inverse @ matrix @ inverse - inverse, unit * size * inverse_size**2),
        "A X - (A X)*": (matrix @ inverse - _adjoint(matrix @ inverse), unit * size * inverse_size),
        "X A - (X A)*": (inverse @ matrix - _adjoint(inverse @ matrix), unit * size * inverse_size),
    }
    for what, (residual, bound) in bounds.items():
        yield "0", what, residual, np.broadcast_to(bound, residual.shape)


def _fourier(call: Call) -> Iterator[Residual]:
    """_fft_r2c, _fft_c2c, _fft_c2r: the transform, of the norm that is asked for."""
    expected: Array
    inputs, axes, result = _numbers(call["self"]), tuple(call["dim"]), _numbers(call.out)
    sizes = [result.shape[axis] if call.name == "_fft_c2r" else inputs.shape[axis] for axis in axes]
    count = math.prod(sizes)
    if call.name == "_fft_c2r":
        expected = np.fft.irfftn(inputs, s=sizes, axes=axes, norm="forward")
    elif call.name == "_fft_r2c":
        expected = np.fft.rfftn(inputs, axes=axes) if call["onesided"] else np.fft.fftn(inputs, axes=axes)
    else:
        expected = (
            np.fft.fftn(inputs, axes=axes) if call["forward"] else np.fft.ifftn(inputs, axes=axes, norm="forward")
        )
    expected = expected * {0: 1.0, 1: count**-0.5, 2: 1.0 / count}[int(call["normalization"])]
    # A spectrum of which half is stored has twice the norm.
    norm = 2 * np.sqrt((np.abs(expected) ** 2).sum(axis=axes, keepdims=True))
    bound = _FOURIER * (math.log2(count) + 1) * _u(call.out) * norm
    yield "0", "the transform, less that in float64", result - expected, np.broadcast_to(bound, result.shape)


def _of_complex(
    function: Callable[..., Array], *names: str, units: float = 0.0
) -> Callable[[Call], Iterator[Residual]]:
    """Return the certificate of a function of complex numbers, element by element. units: of the size of its terms."""

    def certificate(call: Call) -> Iterator[Residual]:
        terms = [
            _numbers(call[name]) if isinstance(call[name], torch.Tensor) else np.asarray(call[name]) for name in names
        ]
        if len(terms) > 1 and call.args.get("alpha", 1) != 1:
            terms[1] = terms[1] * call["alpha"]
        expected = function(*terms)
        is_sum = function in (np.add, np.subtract)
        size = sum(np.abs(term) for term in terms) if is_sum else np.abs(expected)
        bound = units * _u(call.out) * size if units else np.zeros(())
        residual = _numbers(call.out) - expected
        yield "0", f"the result, less that in {residual.dtype}", residual, np.broadcast_to(bound, residual.shape)

    return certificate


def _product(call: Call) -> Iterator[Residual]:
    left, right = _numbers(call["self"]), _numbers(call["mat2"])
    bound = 2 * (left.shape[-1] + 2) * _u(call.out) * (np.abs(left) @ np.abs(right))
    yield "0", "the product, less that in complex128", _numbers(call.out) - left @ right, bound


def _converted(call: Call) -> Iterator[Residual]:
    source = _numbers(call["src"] if call.name == "copy" else call["self"])
    source = source.real if not call.out.is_complex() else source
    residual = _numbers(call.out) - source
    # A real part and an imaginary one.
    yield (
        "0",
        "the copy, less what it copies",
        residual,
        2 * _u(call.out) * np.abs(np.broadcast_to(source, residual.shape)),
    )


CERTIFICATES: Mapping[str, Callable[[Call], Iterator[Residual]]] = {
    "linalg_solve_triangular": _triangular,
    "triangular_solve": _triangular,
    "linalg_lu_factor_ex": _lu,
    "linalg_lu": _lu_in_parts,
    "lu_unpack": _lu_unpacked,
    "_linalg_solve_ex": _solve,
    "linalg_lu_solve": _lu_solve,
    "linalg_inv_ex": _inverse,
    "linalg_cholesky_ex": _cholesky,
    "cholesky": _cholesky,
    "_linalg_det": _determinant,
    "_linalg_slogdet": _determinant,
    "linalg_qr": _qr,
    "geqrf": _householder,
    "linalg_householder_product": _householder,
    "_linalg_eigh": _eigen,
    "linalg_eig": _eigen,
    "_linalg_svd": _singular,
    "linalg_lstsq": _least_squares,
    "linalg_pinv": _pseudo_inverse,
    "ormqr": _reflection,
    "_fft_r2c": _fourier,
    "_fft_c2c": _fourier,
    "_fft_c2r": _fourier,
}
"""The certificate of each operator that has one."""

MAY_BE_INFINITE = frozenset(
    {
        "linalg_solve_triangular",
        "triangular_solve",
        "_linalg_solve_ex",
        "linalg_lu_solve",
        "linalg_inv_ex",
        "_linalg_det",
        "_linalg_slogdet",
        "linalg_lstsq",
        "div",
        "exp",
        "reciprocal",
    }
)
"""Operators whose results may be infinite, or no number, of moderate arguments: they divide, or multiply many."""

OF_COMPLEX: Mapping[str, Callable[[Call], Iterator[Residual]]] = {
    "add": _of_complex(np.add, "self", "other", units=4),
    "sub": _of_complex(np.subtract, "self", "other", units=4),
    "mul": _of_complex(np.multiply, "self", "other", units=8),
    "div": _of_complex(np.divide, "self", "other", units=32),
    "neg": _of_complex(np.negative, "self"),
    "abs": _of_complex(np.abs, "self", units=8),
    "_conj_physical": _of_complex(np.conj, "self"),
    "complex": _of_complex(lambda real, imag: real + 1j * imag, "real", "imag"),
    "sgn": _of_complex(lambda x: np.where(x == 0, 0, x / np.abs(x)), "self", units=8),
    "exp": _of_complex(np.exp, "self", units=32),
    "reciprocal": _of_complex(np.reciprocal, "self", units=32),
    "mm": _product,
    "bmm": _product,
    "polar": _of_complex(lambda size, angle: size * np.exp(1j * angle), "abs", "angle", units=16),
    "_to_copy": _converted,
    "copy": _converted,
}
"""The certificate of operators on complex numbers, which have a formula for real ones alone."""
