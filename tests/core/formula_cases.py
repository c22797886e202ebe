"""Calls of operators and the definitions of what they give: those of single numbers, of sums, and moves."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import definitions as d
import numpy as np
import torch
from flint import arb

from lntx.proof.bounds.call import Call
from lntx.proof.bounds.numbers import FORMATS, Array
from lntx.proof.bounds.schema import calls_of, kept_apart, named, plain_name, written

DRAW = np.random.default_rng(7)
EXACT = 1e-40
# Where an argument is a rounded result, as a saved mean, or the program computes a scalar in float64, as 1 - beta.
SAVED = 4e-15


@dataclass(frozen=True)
class Case:
    """A call, and the definition of what it gives: an array, one for each output, or one for each argument written."""

    operator: str
    args: dict[str, Any]
    truth: d.Truth
    tolerance: float = EXACT

    @property
    def name(self) -> str:
        return plain_name(self.operator.split(".")[0])


def normal(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.asarray(DRAW.normal(size=shape)))


def positive(*shape: int) -> torch.Tensor:
    return normal(*shape).abs() + 0.25


def whole(low: int, high: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(DRAW.integers(low, high, shape))


def of_torch(operator: str) -> Any:
    name, _, overload = operator.partition(".")
    return getattr(getattr(torch.ops.aten, name), overload or "default")


def run(operator: str, args: dict[str, Any]) -> Any:
    return of_torch(operator)(**copy.deepcopy(args))


def made(case: Case) -> Call:
    """Run the operator and return the call as lntx.prove sees it."""
    func = of_torch(case.operator)
    arguments = named(func, (), copy.deepcopy(case.args))
    writes = written(func, case.name, arguments)
    before = kept_apart(arguments, writes)
    out = func(**arguments)
    outputs = list(out) if isinstance(out, tuple | list) else [out]
    after = {one: arguments[one] for one in writes}
    return next(iter(calls_of(case.name, before, outputs, after, 16, np.random.default_rng(0))))


def as_arrays(value: Any, *, numbers: bool = False) -> Any:
    """Return tensors as arrays: of balls where they hold fractions, unless numbers are asked for."""
    if isinstance(value, dict):
        return {name: as_arrays(one, numbers=numbers) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_arrays(one, numbers=numbers) for one in value]
    if not isinstance(value, torch.Tensor):
        return value
    return d.balls(value.tolist()) if value.dtype in FORMATS and not numbers else np.array(value.tolist())


# A saved result is computed by torch, in float64.
X, Y, G, W = normal(3, 5), normal(3, 5), normal(3, 5), normal(5)
FIVE, NAN = torch.tensor([-800.0, -2.5, 0.0, 0.75, 800.0]).double(), torch.tensor([1.0, float("nan")])
COUNTS, FLAGS = whole(-9, 9, 3, 5), whole(0, 2, 3, 5) == 1
PLUS = {"alpha": 1.7}
ELU = {"alpha": 1.3, "scale": 1.1, "input_scale": 0.7}
SOFT = {"beta": 1.5, "threshold": 2.0}


def of_one(function: Callable[[arb], arb], *operators: str, at: torch.Tensor = X) -> list[Case]:
    return [Case(one, {"self": at}, d.each(function, "self")) for one in operators]


def of_two(
    operator: str, function: Callable[..., Any], other: Any = Y, *, tolerance: float = EXACT, **more: Any
) -> Case:
    given = {"self": X, "other": other, **more}
    return Case(operator, given, d.each(function, *given), tolerance)


def compared() -> Iterator[Case]:
    equal = X.clone()
    equal[1] = Y[1]
    for name, holds in (
        ("eq", lambda a, b: a == b),
        ("ne", lambda a, b: a != b),
        ("lt", lambda a, b: a < b),
        ("le", lambda a, b: a <= b),
        ("gt", lambda a, b: a > b),
        ("ge", lambda a, b: a >= b),
    ):
        yield Case(f"{name}.Tensor", {"self": equal, "other": Y}, d.each(holds, "self", "other"))
        yield Case(f"{name}.Scalar", {"self": COUNTS, "other": 2}, d.each(holds, "self", "other"))


def slope(operator: str, function: Callable[..., arb], *names: str, start: Any = None, **args: Any) -> Case:
    """Return the case of a gradient of a function of one number. start: makes it from the saved result."""
    args = {"grad_output": G, "self" if start is None else "output": X, **args}
    forward = d.each(function, "self", *names)
    return Case(operator, args, d.gradient(forward, "self", start=start))


def pointwise() -> Iterator[Case]:
    yield of_two("add.Tensor", lambda x, y, k: x + k * y, **PLUS)
    yield of_two("add.Scalar", lambda x, y: x + y, 0.3)
    yield of_two("sub.Tensor", lambda x, y, k: x - k * y, W, **PLUS)
    yield of_two("rsub.Tensor", lambda x, y, k: y - k * x, **PLUS)
    yield of_two("mul.Tensor", lambda x, y: x * y, W)
    yield of_two("div.Tensor", lambda x, y: x / y)
    # 0.3... / 0.1 is more than 3, and rounds to it.
    numbers = [[7.5, -7.5, -0.30000000000000004], [2.0, 2.0, 0.1]]
    tenth = dict(zip(("self", "other"), torch.tensor(numbers, dtype=torch.float64), strict=True))
    for mode, rounded in (("floor", lambda x, y, _: (x / y).floor()), ("trunc", lambda x, y, _: d.truncated(x / y))):
        args = (
            {**tenth, "rounding_mode": mode} if mode == "floor" else {"self": 9 * X, "other": Y, "rounding_mode": mode}
        )
        yield Case("div.Tensor_mode", args, d.each(rounded, *args))
    yield from of_one(lambda x: -x, "neg")
    yield from of_one(lambda x: x if x > 0 else -x, "abs")
    yield from of_one(d.exp, "exp")
    yield from of_one(lambda x: d.exp(x) - 1, "expm1")
    yield from of_one(d.log, "log", at=X.abs())
    yield from of_one(lambda x: d.log(1 + x), "log1p", at=X.abs() - 0.002)
    yield from of_one(lambda x: d.exp(d.log(x) / 2), "sqrt", at=X.abs())
    yield from of_one(lambda x: d.exp(-d.log(x) / 2), "rsqrt", at=X.abs())
    yield from of_one(lambda x: 1 / x, "reciprocal")
    yield from of_one(lambda x: x * x, "square")
    for exponent in (1, 2, 3, 4, -1, 0.5, -0.5):
        args = {"self": X.abs(), "exponent": exponent}
        yield Case("pow.Tensor_Scalar", args, d.each(lambda x, e: d.exp(d.log(x) * e), *args))
    for operator, args in (
        ("pow.Tensor_Scalar", {"self": X.abs(), "exponent": 2.7}),
        ("pow.Scalar", {"self": 1.7, "exponent": X}),
        ("pow.Tensor_Tensor", {"self": X.abs(), "exponent": Y}),
    ):
        yield Case(operator, args, d.each(lambda x, e: d.exp(d.log(x) * e), *args))
    yield from of_one(d.sin, "sin", at=3 * X)
    yield from of_one(d.cos, "cos", at=3 * X)
    yield from of_one(d.tanh, "tanh")
    yield from of_one(d.erf, "erf")
    yield from of_one(d.sigmoid, "sigmoid", at=9 * X)


def activations() -> Iterator[Case]:
    yield from of_one(lambda x: max(x, arb(0)), "relu")
    yield Case("leaky_relu", {"self": X, "negative_slope": 0.2}, d.each(d.leaky, "self", "negative_slope"))
    yield Case("elu", {"self": X, **ELU}, d.each(d.elu, "self", *ELU), SAVED)
    yield Case("softplus", {"self": 4 * X, **SOFT}, d.each(d.softplus, "self", *SOFT))
    yield Case("softplus", {"self": FIVE}, d.each(lambda x: x if x > 20 else d.log(1 + d.exp(x)), "self"))
    yield from of_one(d.gelu, "gelu")
    yield Case("gelu", {"self": X, "approximate": "tanh"}, d.each(d.gelu_tanh, "self"), SAVED)
    yield from of_one(lambda x: x * d.sigmoid(x), "silu")


def choices() -> Iterator[Case]:
    for name, low, high in (("hardtanh", "min_val", "max_val"), ("clamp", "min", "max")):
        args = {"self": X, low: -0.3, high: 0.4}
        yield Case(name, args, d.each(d.clamp, *args))
    yield Case("clamp.Tensor", {"self": X, "min": Y, "max": W}, d.each(d.clamp, "self", "min", "max"))
    yield Case("clamp", {"self": X, "max": 0.4}, d.each(min, "self", "max"))
    yield Case("clamp_min", {"self": X, "min": 0.4}, d.each(max, "self", "min"))
    yield Case("clamp_max.Tensor", {"self": X, "max": W}, d.each(min, "self", "max"))
    yield of_two("maximum", max)
    yield of_two("minimum", min, W)
    for weight in (0.3, Y):
        args = {"self": X, "end": G, "weight": weight}
        yield Case(
            "lerp.Scalar" if weight is not Y else "lerp.Tensor", args, d.each(lambda x, y, w: x + w * (y - x), *args)
        )
    args = {"self": X, "tensor1": W, "tensor2": Y, "value": -0.3}
    yield Case("addcmul", args, d.each(lambda x, a, b, k: x + k * a * b, *args))
    yield Case("addcdiv", args, d.each(lambda x, a, b, k: x + k * a / b, *args))
    args = {"condition": FLAGS, "self": X, "other": W}
    yield Case("where.self", args, d.each(lambda c, x, y: x if c else y, *args))
    args = {"self": X, "mask": FLAGS, "value": -1e4}
    yield Case("masked_fill.Scalar", args, d.each(lambda x, c, y: y if c else x, *args))


def slopes() -> Iterator[Case]:
    yield slope("threshold_backward", lambda x, low: x if x > low else arb(7), "threshold", threshold=0.1)
    yield slope("leaky_relu_backward", d.leaky, "negative_slope", negative_slope=0.2, self_is_result=False)
    yield slope("gelu_backward", d.gelu)
    gelu_tanh = slope("gelu_backward", d.gelu_tanh, approximate="tanh")
    yield Case(gelu_tanh.operator, gelu_tanh.args, gelu_tanh.truth, SAVED)
    yield slope("silu_backward", lambda x: x * d.sigmoid(x))
    yield slope("softplus_backward", d.softplus, *SOFT, **SOFT)
    inverse = d.each(lambda y: d.log(y / (1 - y)), "output")
    yield slope("sigmoid_backward", d.sigmoid, start=inverse, output=X.sigmoid())
    inverse = d.each(lambda y: d.log((1 + y) / (1 - y)) / 2, "output")
    yield slope("tanh_backward", d.tanh, start=inverse, output=X.tanh())
    args = {"grad_output": G, "mask": FLAGS, "scale": 1.25}
    yield Case("native_dropout_backward", args, d.each(lambda g, kept, scale: g * scale if kept else arb(0), *args))


def conversions() -> Iterator[Case]:
    yield Case("copy_", {"self": X, "src": W}, d.each(lambda _, y: y, "self", "src"))
    yield Case("_to_copy", {"self": X, "dtype": torch.float32}, d.each(lambda x: x, "self"))
    for dtype, kept in ((torch.int64, d.truncated), (torch.bool, lambda x: x != 0)):
        yield Case("_to_copy", {"self": 9 * X, "dtype": dtype}, d.each(kept, "self"))
    yield from compared()
    for name in ("logical_and", "bitwise_and.Tensor"):
        args = {"self": FLAGS, "other": COUNTS > 0}
        yield Case(name, args, d.each(lambda a, b: a and b, *args))
    yield Case("bitwise_and.Tensor", {"self": COUNTS, "other": COUNTS + 5}, d.each(lambda a, b: a & b, "self", "other"))
    yield Case("remainder.Scalar", {"self": COUNTS, "other": 4}, d.each(lambda a: a % 4, "self"))
    yield of_two("remainder.Tensor", lambda x, y: x - (x / y).floor() * y, tolerance=SAVED)
    yield of_two("fmod.Tensor", lambda x, y: x - d.truncated(x / y) * y)
    for name, function in (("floor", arb.floor), ("ceil", arb.ceil), ("trunc", d.truncated)):
        yield from of_one(function, name, at=9 * X)
    yield from of_one(lambda x: (x + 0.5).floor(), "round", at=9 * X)
    for name in ("sign", "sgn"):
        yield from of_one(lambda x: arb(1 if x > 0 else -1 if x < 0 else 0), name)
    yield from of_one(lambda x: x < 0, "signbit")
    for name, ends in (("isinf", (1, -1)), ("isposinf", (1,)), ("isneginf", (-1,))):
        at = torch.tensor([1.5, float("inf"), -float("inf")])
        truth = np.array([False, 1 in ends, -1 in ends], dtype=object)
        yield Case(name, {"self": at}, lambda self, truth=truth: truth)
    yield of_two("fmax", max)
    yield of_two("fmin", min)
    yield of_two("copysign.Tensor", lambda x, y: abs(x) if y > 0 else -abs(x))
    args = {"self": torch.tensor([-1.0, 0.0, 2.0]).double(), "values": W[:3]}
    yield Case("heaviside", args, d.each(lambda x, v: v if x == 0 else arb(int(x > 0)), *args))
    for name, holds in (("logical_or", lambda a, b: a or b), ("logical_xor", lambda a, b: a != b)):
        args = {"self": FLAGS, "other": COUNTS > 0}
        yield Case(name, args, d.each(holds, *args))
    for name in ("logical_not", "bitwise_not"):
        yield Case(name, {"self": FLAGS}, d.each(lambda a: not a, "self"))
    yield Case("logical_not", {"self": X * FLAGS}, d.each(lambda a: a == 0, "self"))
    yield Case("bitwise_not", {"self": COUNTS}, d.each(lambda a: -1 - a, "self"))
    yield from of_one(lambda a: a.is_nan(), "isnan", at=NAN)


def sums() -> Iterator[Case]:
    given, one = normal(2, 3, 4), torch.tensor(1.5).double()
    for operator, function in (
        ("sum.dim_IntList", d.total),
        ("mean.dim", lambda x: d.total(x) / len(x)),
        ("linalg_vector_norm", lambda x: d.total(v * v for v in x).sqrt()),
        ("amax", max),
        ("amin", min),
    ):
        for dim in ([-1], [0, 2], []):
            yield Case(operator, {"self": given, "dim": dim}, d.along(function))
    for operator, function in (("sum", d.total), ("mean", d.total), ("max", max), ("min", min)):
        yield Case(operator, {"self": one}, d.along(function))
    for operator, function in (("max.dim", max), ("min.dim", min)):
        yield Case(operator, {"self": given, "dim": 1}, lambda f=function, **a: [d.along(f)(**a)])
    for order, function in (
        (0, lambda x: arb(sum(v != 0 for v in x))),
        (1, lambda x: d.total(abs(v) for v in x)),
        (3, lambda x: d.total(abs(v) ** 3 for v in x).root(3)),
        (float("inf"), lambda x: max(abs(v) for v in x)),
        (-float("inf"), lambda x: min(abs(v) for v in x)),
    ):
        args = {"self": given, "ord": order, "dim": [1]}
        yield Case("linalg_vector_norm", args, lambda self, dim, f=function, **_: d.along(f)(self=self, dim=dim), SAVED)
    for operator, args in (("prod", {"self": given}), ("prod.dim_int", {"self": given, "dim": 1})):
        yield Case(operator, args, d.along(d.product_of))
    for dim in (0, -1):
        running = d.slices(lambda x: [d.product_of(x[: k + 1]) for k in range(len(x))])
        yield Case("cumprod", {"self": given, "dim": dim}, running)
    norm = d.along(lambda x, p: (d.total(abs(v) ** int(p) for v in x)).root(int(p)))
    yield Case("norm.ScalarOpt_dim", {"self": given, "p": 2, "dim": [1]}, norm)
    for correction in (0, 1, 1.5):
        args = {"self": given, "dim": [0, 2], "correction": correction}
        yield Case("var.correction", args, d.along(d.variance))
        both = d.along(lambda x, **a: (d.variance(x, **a), d.total(x) / len(x)))
        yield Case("var_mean.correction", {**args, "keepdim": True}, both)
    for dim in (0, -1):
        running = d.slices(lambda x: [d.total(x[: k + 1]) for k in range(len(x))])
        yield Case("cumsum", {"self": given, "dim": dim}, running)
    for start, step, dtype in ((2, 3, torch.int64), (-1.0, 0.3, torch.float32), (0.5, -0.25, torch.float64)):
        args = {"start": start, "end": start + 8 * step, "step": step, "dtype": dtype}
        yield Case(
            "arange.start_step", args, lambda start, step, **_: d.balls([arb(start) + k * arb(step) for k in range(8)])
        )
    yield Case("cumsum", {"self": one, "dim": 0}, lambda self, dim: self)
    yield Case(
        "logcumsumexp",
        {"self": X, "dim": 1},
        lambda self, dim: by_place(self.shape, lambda i, j: d.total(x.exp() for x in self[i, : j + 1]).log()),
    )


def ranges() -> Iterator[Case]:
    for start, end, steps in ((-1.5, 2.25, 7), (3.0, 3.0, 1), (0.1, -0.7, 2)):
        yield Case(
            "linspace",
            {"start": start, "end": end, "steps": steps, "dtype": torch.float64},
            lambda start, end, steps, **_: by_place(
                (steps,), lambda k: arb(start) + (arb(end) - arb(start)) * k / max(steps - 1, 1)
            ),
        )


def products() -> Iterator[Case]:
    left, right, vector = normal(3, 4), normal(4, 5), normal(4)
    yield Case("mm", {"self": left, "mat2": right}, d.product)
    yield Case("bmm", {"self": normal(2, 3, 4), "mat2": normal(2, 4, 2)}, d.product)
    yield Case("mv", {"self": left, "vec": vector}, lambda self, vec: d.product(self, vec[:, None]))
    yield Case("dot", {"self": vector, "tensor": left[0]}, lambda self, tensor: d.product(self[None], tensor[:, None]))
    for scales in ({}, {"beta": 0.3, "alpha": 1.7}, {"beta": 0, "alpha": 1}, {"beta": 0, "alpha": 1.7}):

        def added(self: Array, beta: float = 1, alpha: float = 1, **a: Array) -> Array:
            return arb(beta) * self + arb(alpha) * d.product(*a.values())

        yield Case("addmm", {"self": W, "mat1": left, "mat2": right, **scales}, added)
        args = {"self": normal(2, 1, 2), "batch1": normal(2, 3, 4), "batch2": normal(2, 4, 2), **scales}
        yield Case("baddbmm", args, added)

        def added_up(self: Array, beta: float = 1, alpha: float = 1, **a: Array) -> Array:
            return arb(beta) * self + arb(alpha) * d.product(*a.values()).sum(axis=0)

        yield Case("addbmm", {**args, "self": normal(1, 2)}, added_up)
    yield Case(
        "_trilinear",
        {
            "i1": normal(2, 3),
            "i2": normal(2, 4),
            "i3": normal(3, 4),
            "expand1": [2],
            "expand2": [1],
            "expand3": [0],
            "sumdim": [1],
        },
        lambda i1, i2, i3, **_: by_place(
            (2, 4), lambda i, k: d.total(i1[i, j] * i2[i, k] * i3[j, k] for j in range(3))
        ),
    )
    for bias in (None, normal(3)):
        args = {"input": normal(2, 2, 4), "weight": left, "bias": bias}
        yield Case(
            "linear",
            args,
            lambda weight, bias, **a: (
                d.product(a["input"].reshape(-1, 4), weight.T) + (d.zeros([3]) if bias is None else bias)
            ),
        )


def places() -> Iterator[Case]:
    """Return the operators that add at indexes: each place more than once."""
    args = {"grad_output": normal(2, 4, 3), "indices": whole(0, 4, 2, 4), "num_weights": 5, "padding_idx": 2}
    rows = d.gradient(d.embedding_rows, "weight")
    yield Case("embedding_dense_backward", {**args, "scale_grad_by_freq": False}, partial(rows, weight=d.zeros([5, 3])))
    given, down, across = normal(3, 4, 2), torch.tensor([[0], [2], [0]]), torch.tensor([1, 1, -1])
    for indices, shape in (([down, across], (3, 3, 2)), ([down, across], (1, 3, 1)), ([None, across], (3, 3, 2))):
        yield Case(
            "index_put", {"self": given, "indices": indices, "values": normal(*shape), "accumulate": True}, d.put
        )
    mask, deep = torch.tensor([[True, False, True], [True, True, False], [True, True, True]]), torch.tensor(1)
    for indices in ([None, down, across % 2], [torch.tensor([[0], [2], [9]]), across, deep]):
        values = normal(3, 3, 3) if indices[0] is None else normal(3, 3)
        args = {
            "self": given,
            "mask": mask & (indices[-3 if indices[0] is not None else 1] < 9),
            "indices": indices,
            "values": values,
        }
        yield Case("_unsafe_masked_index_put_accumulate", args, d.put)
    for alpha in (1, 0.3):
        args = {"self": given, "dim": 1, "index": across % 4, "source": normal(3, 3, 2), "alpha": alpha}
        yield Case("index_add", args, d.index_add)
    args = {"self": given, "dim": 1, "index": whole(0, 4, 2, 5, 2), "src": normal(3, 5, 2)}
    yield Case("scatter_add", args, partial(d.scattered, add=True))
    yield Case("put", {"self": given, "index": across, "source": normal(3), "accumulate": True}, _put)
    for include_self, reduce in ((True, "sum"), (False, "mean"), (True, "prod"), (False, "amax"), (True, "amin")):
        # A product is computed in float64.
        tolerance = SAVED if reduce == "prod" else EXACT
        more = {"reduce": reduce, "include_self": include_self}
        yield Case("scatter_reduce.two", {**args, **more}, _reduced, tolerance)
        if reduce != "sum":
            rows = {"self": given, "dim": 1, "index": across % 4, "source": normal(3, 3, 2)}
            yield Case("index_reduce", {**rows, **more}, _reduced_rows, tolerance)


def _put(self: Array, index: Array, source: Array, **_: Any) -> Array:
    result = self.copy()
    for place, number in zip(index, source, strict=True):
        result.flat[place] += number
    return result


def _reduced(self: Array, index: Array, src: Array, reduce: str, *, include_self: bool, **_: Any) -> Array:
    """Along the middle one of three axes."""
    groups: dict[tuple[int, ...], list[arb]] = {}
    for i, j, k in np.ndindex(index.shape):
        groups.setdefault((i, int(index[i, j, k]), k), []).append(src[i, j, k])
    result = self.copy()
    for place, numbers in groups.items():
        every = [*numbers, *([self[place]] if include_self else [])]
        total = every[0]
        for number in every[1:]:
            total = total * number if reduce == "prod" else total + number
        result[place] = {"mean": total / len(every), "amax": max(every), "amin": min(every)}.get(reduce, total)
    return result


def _reduced_rows(self: Array, index: Array, source: Array, **more: Any) -> Array:
    return _reduced(self, np.broadcast_to(index[None, :, None], source.shape), source, **more)


def chosen() -> Iterator[Case]:
    """Return the operators that find, count and split numbers."""
    numbers, limits = torch.tensor([3.0, -1.0, 2.0, 2.0, 2.5, -1.0]).double(), torch.tensor([-1.0, 2.0, 2.25]).double()
    for right in (False, True):
        below = (lambda a, b: a <= b) if right else (lambda a, b: a < b)
        yield Case(
            "bucketize.Tensor",
            {"self": numbers, "boundaries": limits, "right": right},
            lambda self, boundaries, below=below, **_: by_place(
                self.shape, lambda i: arb(sum(bool(below(limit, self[i])) for limit in boundaries))
            ),
        )
    yield Case(
        "histc",
        {"self": numbers, "bins": 3, "min": -2.0, "max": 4.0},
        lambda self, **_: by_place((3,), lambda k: arb(sum(-2 + 2 * k <= x < 2 * k for x in self))),
    )
    yield Case("bincount", {"self": whole(0, 6, 20), "minlength": 8}, _counted)
    for every in (True, False):
        more = {"return_inverse": True, "return_counts": True}
        yield Case("unique_consecutive", {"self": numbers, **more}, partial(_unique, by_order=False))
        yield Case(
            "_unique", {"self": numbers, "return_inverse": True}, lambda self, **_: _unique(self, by_order=True)[:2]
        )
        yield Case("_unique2", {"self": numbers, "sorted": every, **more}, partial(_unique, by_order=True))
    yield Case(
        "mode", {"self": numbers[None, :4], "dim": 1}, lambda self, dim: (self[:, 2], by_place((1,), lambda i: 3))
    )
    yield Case("frexp.Tensor", {"self": FIVE}, _split)
    yield Case(
        "nextafter",
        {"self": X, "other": Y},
        lambda self, other: by_place(self.shape, lambda *i: arb(np.nextafter(float(self[i]), float(other[i])))),
    )
    turned = Case(
        "angle", {"self": X}, lambda self: by_place(self.shape, lambda *i: arb.pi() if self[i] < 0 else arb(0))
    )
    yield replace(turned, tolerance=SAVED)


def _counted(self: Array, minlength: int) -> Array:
    return by_place((minlength,), lambda i: arb(int((self == i).sum())))


def _unique(self: Array, *, by_order: bool, **_: Any) -> tuple[Array, ...]:
    numbers = [float(number) for number in self]
    groups = sorted({*numbers}) if by_order else [x for k, x in enumerate(numbers) if k == 0 or x != numbers[k - 1]]
    if not by_order:
        firsts = [k for k, x in enumerate(numbers) if k == 0 or x != numbers[k - 1]]
        inverse = [sum(first <= k for first in firsts) - 1 for k in range(len(numbers))]
    else:
        inverse = [groups.index(x) for x in numbers]
    counts = [inverse.count(k) for k in range(len(groups))]
    return tuple(by_place((len(row),), lambda i, row=row: arb(row[i])) for row in (groups, inverse, counts))


def _split(self: Array) -> tuple[Array, ...]:
    return tuple(by_place(self.shape, lambda i, k=k: arb(math.frexp(float(self[i]))[k])) for k in range(2))


def indexed_pools() -> Iterator[Case]:
    """Return the gradients of poolings that kept where each maximum stood."""
    for operator, axes in (
        *((f"adaptive_max_pool{axes}d_backward", axes) for axes in (2, 3)),
        *((f"fractional_max_pool{axes}d_backward", axes) for axes in (2, 3)),
        ("max_pool3d_with_indices_backward", 3),
    ):
        sides, small = (4,) * axes, (2,) * axes
        args: dict[str, Any] = {"self": normal(2, 3, *sides)}
        taken = torch.stack([torch.randperm(4**axes)[: 2**axes] for _ in range(6)]).reshape(2, 3, *small)
        args |= {"grad_output": normal(2, 3, *small), "indices": taken}
        if operator.startswith("fractional"):
            args |= {"kernel_size": [2] * axes, "output_size": list(small)}
        elif operator.startswith("max"):
            args |= {"kernel_size": [2] * 3, "stride": [2] * 3, "padding": [0] * 3, "dilation": [1] * 3}
            args |= {"ceil_mode": False}
        yield Case(operator, args, _taken)


def _taken(grad_output: Array, indices: Array, **a: Any) -> Array:
    result = d.zeros([6, a["self"][0, 0].size])
    for plane, (grads, places) in enumerate(zip(grad_output.reshape(6, -1), indices.reshape(6, -1), strict=True)):
        for grad, place in zip(grads, places, strict=True):
            result[plane, place] += grad
    return result.reshape(a["self"].shape)


def by_place(shape: Any, number: Callable[..., Any]) -> Array:
    found = np.empty(tuple(shape), dtype=object)
    for index in np.ndindex(found.shape):
        found[index] = number(*index)
    return found


def put_in(shape: Any, grad: Array, place: Callable[..., Any]) -> Array:
    found = np.zeros(tuple(shape), dtype=object)
    for index in np.ndindex(grad.shape):
        found[place(*index)] = grad[index]
    return found


def _written(self: Array, numbers: Array, place: Callable[..., Any]) -> Array:
    result = self.copy()
    for index in np.ndindex(numbers.shape):
        result[place(*index)] = numbers[index]
    return result


def _filled_by(mask: Array, numbers: Array, start: Array) -> Array:
    result, rest = start.copy(), iter(numbers.flat)
    for index in np.ndindex(mask.shape):
        if mask[index]:
            result[index] = next(rest)
    return result


def placements() -> Iterator[Case]:
    """Return the operators that write numbers, or take them, where indexes or a mask say."""
    x, row = normal(3, 4).float(), torch.tensor([2, 0])
    mask, other = FLAGS[:, :4], normal(12).float()
    yield Case(
        "index_put",
        {"self": x, "indices": [row, torch.tensor([1, 3])], "values": other[:2]},
        lambda self, indices, values: _written(self, values, lambda i: (indices[0][i], indices[1][i])),
    )
    yield Case(
        "put",
        {"self": x, "index": torch.tensor([5, -1]), "source": other[:2]},
        lambda self, index, source: _written(self, source, lambda i: divmod(int(index[i]) % 12, 4)),
    )
    yield Case(
        "masked_scatter",
        {"self": x, "mask": mask, "source": other},
        lambda self, mask, source: _filled_by(mask, source, self),
    )
    yield Case(
        "masked_select",
        {"self": x, "mask": mask},
        lambda self, mask: np.array([v for v, m in zip(self.flat, mask.flat, strict=True) if m]),
    )
    yield Case(
        "masked_scatter_backward",
        {"grad_output": x, "mask": mask, "sizes": [3, 5]},
        lambda grad_output, mask, sizes: np.array(
            ([v for v, m in zip(grad_output.flat, mask.flat, strict=True) if m] + [0.0] * 15)[:15]
        ).reshape(sizes),
    )
    index = torch.tensor([[7, 0], [-1, 3]])
    yield Case(
        "take", {"self": x, "index": index}, lambda self, index: by_place((2, 2), lambda i, j: self.flat[index[i, j]])
    )
    yield Case(
        "repeat_interleave.Tensor",
        {"repeats": torch.tensor([2, 0, 3])},
        lambda repeats: np.array([k for k, count in enumerate(repeats) for _ in range(count)]),
    )
    yield Case("eye.m", {"n": 3, "m": 2}, lambda n, m: by_place((n, m), lambda i, j: float(i == j)))
    yield Case("nonzero", {"self": mask}, lambda self: np.array([i for i in np.ndindex(self.shape) if self[i]]))
    yield Case(
        "diagonal_scatter",
        {"self": x, "src": other[:3], "offset": 1},
        lambda self, src, **_: _written(self, src, lambda i: (i, i + 1)),
    )
    yield Case(
        "diagonal_backward",
        {"grad_output": other[:3], "input_sizes": [4, 3], "offset": -1, "dim1": 0, "dim2": 1},
        lambda grad_output, **_: put_in((4, 3), grad_output, lambda i: (i + 1, i)),
    )
    yield Case(
        "as_strided_scatter",
        {"self": x, "src": normal(2, 2).float(), "size": [2, 2], "stride": [5, 2], "storage_offset": 1},
        lambda self, src, **_: _written(self, src, lambda i, j: divmod(1 + 5 * i + 2 * j, 4)),
    )


def moves() -> Iterator[Case]:
    """Return the operators that only move or fill numbers, here in float32, whole numbers and truth values."""
    yield from placements()
    x, y, n = normal(3, 4).float(), normal(3, 2).float(), whole(-9, 9, 3, 4)
    for one in (x.t(), n, FLAGS, torch.tensor([-0.0, torch.inf])):
        yield Case("clone", {"self": one}, lambda self: self)
    for name in ("_unsafe_view", "_reshape_copy"):
        yield Case(
            name, {"self": x, "size": [2, 6]}, lambda self, size: by_place(size, lambda i, j: self.flat[6 * i + j])
        )
    yield Case(
        "stack",
        {"tensors": [x, x + 1], "dim": 1},
        lambda tensors, dim: by_place((3, 2, 4), lambda i, j, k: tensors[j][i, k]),
    )
    for other in (y, y.double()):
        yield Case(
            "cat",
            {"tensors": [x, other], "dim": -1},
            lambda tensors, dim: by_place((3, 6), lambda i, j: tensors[0][i, j] if j < 4 else tensors[1][i, j - 4]),
        )
    at = torch.tensor([[2, 0, 0], [1, 1, 2]])
    yield Case(
        "embedding",
        {"weight": x, "indices": at},
        lambda weight, indices: by_place((2, 3, 4), lambda i, j, k: weight[indices[i, j], k]),
    )
    yield Case(
        "index_select",
        {"self": x, "dim": 1, "index": at[0]},
        lambda self, index, dim: by_place((3, 3), lambda i, j: self[i, index[j]]),
    )
    yield Case(
        "index.Tensor",
        {"self": x, "indices": [at[:, :1], at]},
        lambda self, indices: by_place((2, 3), lambda i, j: self[indices[0][i, 0], indices[1][i, j]]),
    )
    yield Case(
        "index.Tensor",
        {"self": x, "indices": [None, x[0] > 0]},
        lambda self, indices: by_place((3, int(sum(indices[1]))), lambda i, j: self[i, np.flatnonzero(indices[1])[j]]),
    )
    # The index may be smaller than the array in the other axes.
    yield Case(
        "gather",
        {"self": x, "dim": 1, "index": at},
        lambda self, dim, index: by_place((2, 3), lambda i, j: self[i, index[i, j]]),
    )
    yield Case(
        "gather",
        {"self": x, "dim": 0, "index": at[:1]},
        lambda self, dim, index: by_place((1, 3), lambda i, j: self[index[i, j], j]),
    )
    order = torch.tensor([[3, 0, 1], [1, 2, 0]])
    yield Case("scatter.src", {"self": x, "dim": 1, "index": order, "src": x + 1}, partial(d.scattered, add=False))
    yield Case(
        "scatter.value",
        {"self": n, "dim": -1, "index": order[:1], "value": 5},
        lambda value, **a: d.scattered(**a, src=value, add=False),
    )
    yield Case("flip", {"self": x, "dims": [-1]}, lambda self, dims: by_place((3, 4), lambda i, j: self[i, 3 - j]))
    yield Case(
        "roll",
        {"self": x, "shifts": [1, -2], "dims": [0, 1]},
        lambda self, **_: by_place((3, 4), lambda i, j: self[(i - 1) % 3, (j + 2) % 4]),
    )
    yield Case(
        "roll",
        {"self": x, "shifts": [5]},
        lambda self, **_: by_place((3, 4), lambda i, j: self.flat[(4 * i + j - 5) % 12]),
    )
    yield Case(
        "repeat",
        {"self": x, "repeats": [2, 1, 2]},
        lambda self, repeats: by_place((2, 3, 8), lambda _, i, j: self[i, j % 4]),
    )
    yield Case(
        "constant_pad_nd",
        {"self": x, "pad": [2, 1], "value": -1.5},
        lambda self, **_: by_place((3, 7), lambda i, j: self[i, j - 2] if 2 <= j < 6 else -1.5),
    )
    for diagonal in (0, -1, 2):
        args = {"self": x, "diagonal": diagonal}
        yield Case(
            "tril", args, lambda self, diagonal: by_place((3, 4), lambda i, j: self[i, j] if j - i <= diagonal else 0)
        )
        yield Case(
            "triu", args, lambda self, diagonal: by_place((3, 4), lambda i, j: self[i, j] if j - i >= diagonal else 0)
        )
    for start, end in ((1, 7), (-7, 2**63 - 1)):
        args = {"grad_output": x, "input_sizes": [3, 8], "dim": -1, "start": start, "end": end, "step": 2}
        args["grad_output"] = x[:, : len(range(8)[start:end:2])]
        yield Case(
            "slice_backward", args, lambda grad_output, **_: put_in((3, 8), grad_output, lambda i, j: (i, 1 + 2 * j))
        )
    args = {"grad_output": x, "input_sizes": [3, 5, 4], "dim": 1, "index": -2}
    yield Case("select_backward", args, lambda grad_output, **_: put_in((3, 5, 4), grad_output, lambda i, j: (i, 3, j)))
    for number, names in ((0, ("zeros", "zeros_like", "new_zeros", "zero_")), (1, ("ones", "ones_like", "new_ones"))):
        for name in names:
            args = {} if name in ("zeros", "ones") else {"self": n}
            args |= {} if name.endswith(("like", "_")) else {"size": [3, 4]}
            yield Case(name, args, lambda number=number, **_: by_place((3, 4), lambda *_: number))
    for name in ("full", "full_like", "new_full", "fill_.Scalar", "scalar_tensor"):
        args = {} if name in ("full", "scalar_tensor") else {"self": n if "fill_" in name else x}
        args |= {"size": [3, 4]} if name in ("full", "new_full") else {}
        # More than float64 holds.
        number = 2**60 + 1 if "fill_" in name else 0.1
        args["value" if "fill_" in name else "s" if name == "scalar_tensor" else "fill_value"] = number
        yield Case(
            name,
            args,
            lambda number=number, name=name, **_: by_place(() if "scalar" in name else (3, 4), lambda *_: number),
        )
