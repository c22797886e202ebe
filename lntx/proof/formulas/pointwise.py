"""Operators that work element by element, one line each.

Sources: the documentation of torch and its derivatives.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch

from lntx.proof.bounds.call import Call
from lntx.proof.bounds.functions import FUNCTIONS, ULPS
from lntx.proof.bounds.numbers import FORMATS, Array, Bounded, apply, as_balls, magnitude, middle

Found = Iterator[tuple[str, Array, Bounded]]
"""What a formula yields: the slot of a result, flat indexes of it, and the numbers that must be there."""

Read = Callable[[str], Bounded]
"""Reads an argument at the elements that are checked."""


def _scaled(call: Call, name: str, number: Bounded) -> Bounded:
    """Multiply by a scalar argument, unless it is 1."""
    factor = call.args.get(name, 1)
    return number if factor == 1 else number * float(factor)


def _add(x: Read, call: Call) -> Bounded:
    return x("self") + _scaled(call, "alpha", x("other"))


def _sub(x: Read, call: Call) -> Bounded:
    return x("self") - _scaled(call, "alpha", x("other"))


def _div(x: Read, call: Call) -> Bounded:
    mode = call["rounding_mode"]
    quotient = x("self") / x("other")
    if mode is None:
        return quotient
    floor = _floor(quotient.value)
    if mode == "floor":
        # What is larger than the whole numbers of the format is rounded, and has no fraction to cut off.
        is_large = 2 * quotient.format.u * quotient.size >= 1
        return quotient.like(floor, np.where(is_large, quotient.error, 0.0))
    # Kernels cut off the rounded quotient.
    near = np.abs(middle(quotient.value) - np.rint(middle(quotient.value))) <= quotient.error
    return quotient.like(np.where(middle(quotient.value) < 0, -_floor(-quotient.value), floor), near * 1.0)


def _floor(value: Array) -> Array:
    return np.floor(value) if value.dtype != object else np.asarray(np.frompyfunc(lambda x: x.floor(), 1, 1)(value))


def _lerp(x: Read, call: Call) -> Bounded:
    start, end, weight = x("self"), x("end"), x("weight")
    step = end - start
    return (start + weight * step).or_form(end - step * (1.0 - weight))


def _clamp(x: Read, call: Call) -> Bounded:
    value = x("self")
    for name, picks in (("min", np.maximum), ("max", np.minimum)):
        if call[name] is not None:
            limit = x(name)
            value = _choose(value, limit, picks)
    return value


def _choose(left: Bounded, right: Bounded, picks: Callable[[Array, Array], Array]) -> Bounded:
    """Return the larger or the smaller of two."""
    value = picks(left.value, right.value)
    # Numpy's maximum of balls passes over what is not a number.
    for side in (left, right):
        unknown = np.isnan(middle(side.value))
        if unknown.any():
            value = np.where(unknown, side.value, value)
    # Where every version of one side wins, the error of the other does not matter.
    is_sure = np.abs(middle(left.value) - middle(right.value)) > left.error + right.error
    winner = np.where(middle(value) == middle(left.value), left.error, right.error)
    return left.like(value, np.where(is_sure, winner, np.maximum(left.error, right.error)))


def _where(x: Read, call: Call) -> Bounded:
    return x("self").where(middle(x("condition").value) != 0, x("other"))


def _masked_fill(x: Read, call: Call) -> Bounded:
    filled = x("value").rounded(FORMATS[call.out.dtype]) if call.out.dtype in FORMATS else x("value")
    inputs = x("self")
    return filled.where(middle(x("mask").value) != 0, inputs)


def _smooth_l1_backward(x: Read, call: Call) -> Bounded:
    beta = float(call["beta"])
    distance = x("self") - x("target")
    far = np.abs(middle(distance.value)) - distance.error >= beta
    scaled = _mean_factor(call, x("grad_output"))
    inside = scaled * distance / beta if beta else scaled * distance
    outside = scaled * distance.like(np.sign(middle(distance.value)) + 0 * distance.value, np.zeros(distance.shape))
    return outside.where(far, inside)


def _mean_factor(call: Call, grad: Bounded) -> Bounded:
    """Divide by the number of elements, if the loss is their mean."""
    inputs = call["self"]
    return grad / float(inputs.numel()) if call["reduction"] == 1 else grad


def _convert(x: Read, call: Call) -> Bounded:
    inputs = x("self" if "src" not in call.args else "src")
    result = call.result("0")
    if result.dtype not in FORMATS:
        if result.dtype == torch.bool:
            return _true(inputs)
        value = middle(inputs.value)
        if inputs.error.any() and (np.trunc(value - inputs.error) != np.trunc(value + inputs.error)).any():
            raise NotImplementedError("a choice that rounding can decide")
        return inputs.like(np.trunc(value), np.zeros(inputs.shape))
    return inputs.rounded(call.inner) if inputs.format.u else inputs


def _true(inputs: Bounded) -> Bounded:
    if ((inputs.error > 0) & (magnitude(inputs.value) <= inputs.error)).any():
        raise NotImplementedError("a choice that rounding can decide")
    return inputs.like((middle(inputs.value) != 0).astype(np.float64), np.zeros(inputs.shape))


def _compare(holds: Callable[[Array, Array], Array]) -> Callable[[Read, Call], Bounded]:
    def compare(x: Read, call: Call) -> Bounded:
        left, right = x("self"), x("other")
        close = left.error + right.error
        if ((close > 0) & (np.abs(middle(left.value) - middle(right.value)) <= close)).any():
            raise NotImplementedError("a comparison that rounding can decide")
        value = holds(middle(left.value), middle(right.value))
        return left.like(value.astype(np.float64), np.zeros(value.shape))

    return compare


def _of_flint(x: Read, call: Call) -> Bounded:
    ulps, arguments = ULPS.get(call.name, 16.0), _arguments(x, call)
    if "polynomial" in call.name:
        # By the cosine of a multiple of an angle, which is not known to more than a rounding of 1.
        arguments[0] = arguments[0].widened(np.array(ulps * arguments[0].format.u))
    return apply(FUNCTIONS[call.name], *arguments, ulps=ulps)


def _arguments(x: Read, call: Call) -> list[Bounded]:
    return [x(name) for name, value in call.args.items() if value is not None and name != "decimals"]


def _exactly(function: Callable[..., Array]) -> Callable[[Read, Call], Bounded]:
    """Return the formula of a function that rounds nothing, of numbers that are known exactly."""

    def exactly(x: Read, call: Call) -> Bounded:
        numbers = _arguments(x, call)
        if any(number.error.any() for number in numbers):
            raise NotImplementedError("a choice that rounding can decide")
        value = function(*(middle(number.value) for number in numbers)).astype(np.float64)
        exact = as_balls(value) if numbers[0].value.dtype == object else value
        return numbers[0].like(exact, np.zeros(np.shape(value)))

    return exactly


def _round(x: Read, call: Call) -> Bounded:
    if not call.args.get("decimals"):
        return _exactly(np.rint)(x, call)
    scale = 10.0 ** int(call["decimals"])
    scaled = x("self") * scale if scale > 1 else x("self") / (1 / scale)
    if (np.abs(np.mod(middle(scaled.value), 1.0) - 0.5) <= scaled.error).any():
        raise NotImplementedError("a choice that rounding can decide")
    whole = scaled.like(np.rint(middle(scaled.value)) + 0 * scaled.value, np.zeros(scaled.shape))
    return whole / scale if scale > 1 else whole * (1 / scale)


def _sign(numbers: Array) -> Array:
    """Return the signs; of what is no number, 0, as torch does."""
    return np.where(np.isnan(numbers), 0.0, np.sign(numbers))


def _next_after(x: Read, call: Call) -> Bounded:
    kinds = {torch.float32: np.float32, torch.float64: np.float64}
    if call.out.dtype not in kinds or x("self").error.any() or x("other").error.any():
        raise NotImplementedError(f"nextafter in {str(call.out.dtype).removeprefix('torch.')}")
    value = np.nextafter(*(middle(x(name).value).astype(kinds[call.out.dtype]) for name in ("self", "other")))
    exact = value.astype(np.float64)
    return x("self").like(as_balls(exact) if x("self").value.dtype == object else exact, np.zeros(value.shape))


def _half_turns(inputs: Bounded) -> tuple[Array, Array]:
    """Return the angle of real numbers, 0 or pi, and its rounding."""
    value = np.where(np.signbit(middle(inputs.value)) & (middle(inputs.value) != 0), np.pi, 0.0)
    value = np.where(np.isnan(middle(inputs.value)), np.nan, value)
    return value, 2 * inputs.format.u * value


def _relu(x: Read, call: Call) -> Bounded:
    inputs = x("self")
    return _choose(inputs, inputs.constant(0.0), np.maximum)


def _bitwise_not(x: Read, call: Call) -> Bounded:
    inputs = x("self")
    return inputs.like((inputs.value == 0) * 1.0 if call.out.dtype == torch.bool else -1 - inputs.value, inputs.error)


def _bitwise_and(x: Read, call: Call) -> Bounded:
    left, right = x("self"), x("other")
    both = middle(left.value).astype(np.int64) & middle(right.value).astype(np.int64)
    return left.like(both.astype(np.float64), left.error + right.error)


def _power(x: Read, call: Call) -> Bounded:
    if isinstance(call["exponent"], torch.Tensor) or isinstance(call["self"], float | int):
        return apply(pow, x("self"), x("exponent"))
    return x("self").power(float(call["exponent"]))


def _remainder(x: Read, call: Call) -> Bounded:
    inputs, divisor = x("self"), x("other")
    if inputs.error.any() or divisor.error.any():
        raise NotImplementedError("a choice that rounding can decide")
    value = np.mod(middle(inputs.value), middle(divisor.value))
    rest = inputs.like(as_balls(value) if inputs.value.dtype == object else value, np.zeros(np.shape(value)))
    # Where the signs differ, the divisor is added to a rest that is exact.
    return rest.widened(rest.format.u * magnitude(rest.value))


POINTWISE: Mapping[str, Callable[[Read, Call], Bounded]] = {
    "add": _add,
    "sub": _sub,
    "rsub": lambda x, call: x("other") - _scaled(call, "alpha", x("self")),
    "mul": lambda x, call: x("self") * x("other"),
    "div": _div,
    "neg": lambda x, call: -x("self"),
    "abs": lambda x, call: x("self").abs(),
    "exp": lambda x, call: x("self").exp(),
    "expm1": lambda x, call: x("self").expm1(),
    "log": lambda x, call: x("self").log(),
    "log1p": lambda x, call: x("self").log1p(),
    "sqrt": lambda x, call: x("self").sqrt(),
    "rsqrt": lambda x, call: x("self").rsqrt(),
    "reciprocal": lambda x, call: 1.0 / x("self"),
    "square": lambda x, call: x("self").square(),
    "pow": _power,
    "sin": lambda x, call: x("self").sin(),
    "cos": lambda x, call: x("self").cos(),
    "tanh": lambda x, call: x("self").tanh(),
    "erf": lambda x, call: x("self").erf(),
    "sigmoid": lambda x, call: x("self").sigmoid(),
    "relu": _relu,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp,
    "maximum": lambda x, call: _choose(x("self"), x("other"), np.maximum),
    "minimum": lambda x, call: _choose(x("self"), x("other"), np.minimum),
    "lerp": _lerp,
    "addcmul": lambda x, call: x("self") + _scaled(call, "value", x("tensor1") * x("tensor2")),
    "addcdiv": lambda x, call: x("self") + _scaled(call, "value", x("tensor1") / x("tensor2")),
    "where": _where,
    "masked_fill": _masked_fill,
    "smooth_l1_loss_backward": _smooth_l1_backward,
    "copy": _convert,
    "_to_copy": _convert,
    "eq": _compare(np.equal),
    "ne": _compare(np.not_equal),
    "lt": _compare(np.less),
    "le": _compare(np.less_equal),
    "gt": _compare(np.greater),
    "ge": _compare(np.greater_equal),
    "logical_and": _compare(lambda a, b: (a != 0) & (b != 0)),
    "remainder": _remainder,
    "bitwise_not": _bitwise_not,
    "bitwise_and": _bitwise_and,
    "logical_not": lambda x, call: x("self").like(1.0 - _true(x("self")).value, np.zeros(x("self").shape)),
    "isnan": lambda x, call: x("self").like(np.isnan(middle(x("self").value)) * 1.0, np.zeros(x("self").shape)),
    "isinf": _exactly(np.isinf),
    "isposinf": _exactly(np.isposinf),
    "isneginf": _exactly(np.isneginf),
    "signbit": _exactly(np.signbit),
    "floor": _exactly(np.floor),
    "ceil": _exactly(np.ceil),
    "trunc": _exactly(np.trunc),
    "round": _round,
    "sign": _exactly(_sign),
    "sgn": _exactly(_sign),
    "fmod": _exactly(np.fmod),
    "fmax": _exactly(np.fmax),
    "fmin": _exactly(np.fmin),
    "copysign": _exactly(np.copysign),
    "nextafter": _next_after,
    "angle": lambda x, call: x("self").like(*_half_turns(x("self"))),
    "heaviside": _exactly(np.heaviside),
    "logical_or": _exactly(np.logical_or),
    "logical_xor": _exactly(np.logical_xor),
    **dict.fromkeys(FUNCTIONS, _of_flint),
}
"""The formula of each operator that works element by element, on numbers read at the elements that are checked."""


def element_by_element(call: Call) -> Found:
    """Check an operator of the table above."""
    picked = call.pick()
    shape = call.out.shape

    def read(name: str) -> Bounded:
        # A scalar tensor, a mask or a whole number is read as it is; broadcasting is that of torch.
        return call.at(name, picked, shape)

    yield "0", picked, POINTWISE[call.name](read, call)
