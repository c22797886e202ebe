"""Graphs of torch.fx on numbers with bounds: code that torch compiles, and operators that torch takes apart.

The numbers travel through a graph as complex tensors, the value real and its bound imaginary, so that views and copies
of torch move both together. Float64 is computed in float64: its unit roundoff is doubled, for torch's rounding and for
that of the values here.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.fx

from lntx.proof.bounds.call import Call, in_format_of
from lntx.proof.bounds.numbers import EXACT, FORMATS, IN_FLOATS, Array, Bounded, as_balls
from lntx.proof.bounds.schema import named, plain_name
from lntx.proof.formulas import FORMULAS, is_move
from lntx.proof.formulas.pointwise import POINTWISE
from lntx.proof.formulas.selections import SELECTIONS

# The names that the arguments of torch's primitives have in ATen, in their order.
_PRIMITIVES = {
    **dict.fromkeys(POINTWISE, ("self", "other")),
    **dict.fromkeys(("sum", "prod", "amax", "amin", "var"), ("self", "dim")),
    "pow": ("self", "exponent"),
    "where": ("condition", "self", "other"),
}
_BY_PLACE = SELECTIONS | {"max", "min", "max_pool2d_with_indices"}
_CONVERSIONS = frozenset({"_to_copy", "convert_element_type", "copy"})
_MOST_IN_BALLS = 2**12
_MORE_MOVES = frozenset({"alias", "detach", "iota", "device_put", "unsafe_split", "_unsafe_index", "new_empty_strided"})


def evaluate(
    graph: torch.fx.Graph, inputs: Sequence[Any], *, own_format: torch.dtype | None = None
) -> list[Bounded | None]:
    """Return the outputs of a graph as flat numbers with bounds; None for what is no tensor.

    inputs: of its placeholders, exact. own_format: what every operator inside rounds to.

    Raises: NotImplementedError: an operator without a formula, or values that the bounds cannot carry.
    """
    known: dict[torch.fx.Node, Any] = {}
    constants: set[torch.fx.Node] = set()
    source = iter(inputs)
    for node in graph.nodes:
        if node.op == "placeholder":
            value = next(source)
            if isinstance(value, torch.Tensor) and value.is_complex():
                raise NotImplementedError("a complex number")
            known[node] = _with_bound(value) if isinstance(value, torch.Tensor) else value
        elif node.op == "call_function":
            args, kwargs = torch.fx.node.map_arg((node.args, dict(node.kwargs)), lambda value: known[value])
            is_constant = constants.issuperset(node.all_input_nodes)
            constants.update([node] if is_constant else [])
            known[node] = _apply(node.target, args, kwargs, node.meta.get("val"), own_format, is_constant=is_constant)
        elif node.op == "output":
            (results,) = node.args
            return [_numbers_of(known[value], value) if isinstance(value, torch.fx.Node) else None for value in results]
        elif node.op == "get_attr":
            known[node] = _with_bound(getattr(graph.owning_module, str(node.target)))
        else:
            raise NotImplementedError(f"a node {node.op}")
    raise NotImplementedError("a graph without an output")


def _with_bound(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to(torch.complex128) if tensor.dtype in FORMATS else tensor.detach()


def _numbers_of(value: Any, node: torch.fx.Node) -> Bounded | None:
    """Return the numbers of a result, in the format that its node has rounded them to."""
    if not isinstance(value, torch.Tensor):
        return None
    kind = IN_FLOATS.get(getattr(node.meta.get("val"), "dtype", torch.float64), IN_FLOATS[torch.float64])
    flat = value.detach().resolve_conj().reshape(-1).numpy()
    if value.is_complex():
        return Bounded(np.ascontiguousarray(flat.real), np.ascontiguousarray(flat.imag), kind)
    return Bounded.exactly(flat.astype(np.float64), EXACT)


def _apply(
    target: Any, args: Any, kwargs: dict[str, Any], result: Any, own_format: torch.dtype | None, *, is_constant: bool
) -> Any:
    """Compute one node. result: what it returns in the graph, for its shape and format. is_constant: whether it depends
    on no input.
    """
    if target is operator.getitem or not hasattr(target, "_schema"):
        return target(*args, **kwargs)
    name = plain_name(target._schema.name.split("::")[1])
    arguments = named(target, args, kwargs)
    if target.namespace == "prims" and name in FORMULAS:
        if name not in _PRIMITIVES:
            raise NotImplementedError(f"prims.{name}")
        names = (*_PRIMITIVES[name], *list(arguments)[2:])
        arguments = dict(zip(names, arguments.values(), strict=False))
    has_bounds = any(map(_is_packed, _flat(arguments.values())))
    kinds = [value.dtype for value in _flat([result]) if isinstance(value, torch.Tensor)]
    if name in _CONVERSIONS and has_bounds and kinds[0] in FORMATS:
        source = arguments["src"] if name == "copy" else next(iter(arguments.values()))
        return _rounded(_with_bound(source).expand(result.shape), kinds[0])
    rounds = bool(kinds) and kinds[0] in FORMATS and any(map(torch.is_tensor, _flat(arguments.values())))
    rounds = rounds and name in POINTWISE and not target.is_view and name not in _CONVERSIONS
    if not has_bounds and not rounds and "rand" not in name and "bernoulli" not in name:
        outcome = target(*args, **kwargs)
        return _with_bound(outcome) if isinstance(outcome, torch.Tensor) else outcome
    if name in {"view", "_unsafe_view"}:
        # Strides are those of the kernels, which are not kept here.
        return args[0].reshape(args[1])
    if name == "as_strided":
        # Its strides are those of numbers that lie one after the other.
        return args[0].contiguous().as_strided(*args[1:], **kwargs)
    if target.is_view or is_move(name, arguments) or name in _MORE_MOVES:
        outcome = target(*args, **kwargs)
        return _with_bound(outcome) if isinstance(outcome, torch.Tensor) else outcome
    if name not in FORMULAS:
        raise NotImplementedError(name)
    return _by_formula(name, arguments, result, own_format, is_constant=is_constant)


def _rounded(source: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    source = source.to(torch.complex128)
    numbers = source.numpy()
    bounded = Bounded(numbers.real, numbers.imag, IN_FLOATS[kind]).rounded(IN_FLOATS[kind])
    is_held = (source.imag == 0) & (source.real == source.real.to(kind).double())
    error = np.where(is_held.numpy(), 0.0, bounded.error)
    return _packed(bounded.like(bounded.value, error), tuple(source.shape))


def _packed(numbers: Bounded, shape: tuple[int, ...]) -> torch.Tensor:
    whole = np.empty(np.shape(numbers.value), dtype=np.complex128)
    whole.real, whole.imag = numbers.value, numbers.error
    return torch.from_numpy(whole.reshape(shape))


def _by_formula(
    name: str, arguments: dict[str, Any], result: Any, own_format: torch.dtype | None, *, is_constant: bool
) -> Any:
    results = list(result) if isinstance(result, tuple | list) else [result]
    if name in _BY_PLACE and any(tensor.dtype == torch.int64 for tensor in results if tensor is not None):
        # Their formulas ask the kernel which of equal numbers it chose.
        raise NotImplementedError(name)
    # What is not asked for, by an output mask, is None.
    outputs = [None if tensor is None else torch.empty(tuple(tensor.shape), dtype=tensor.dtype) for tensor in results]
    call = Call(name, arguments, outputs)
    call.is_in_graph = True
    values: list[Any] = [None] * len(outputs)
    # Places, of which a choice depends, are exact where the format holds them. Kernels may compute with other numbers
    # in another order.
    is_exact = is_constant and name in ("add", "sub", "mul") and arguments.get("alpha", 1) == 1
    is_exact &= all(not tensor.imag.any() for tensor in _flat(arguments.values()) if _is_packed(tensor))
    for slot, flat, numbers in FORMULAS[name](call):
        place = int(slot)
        output = outputs[place]
        assert output is not None
        value, error = np.zeros(output.numel()), np.zeros(output.numel())
        rounded = in_format_of(output, numbers, call)
        rounded = rounded if own_format is None else rounded.rounded(FORMATS[own_format])
        value[flat], error[flat] = rounded.value.reshape(-1), rounded.error.reshape(-1)
        if is_exact and output.dtype in FORMATS:
            is_held = _is_held(call, value, own_format or output.dtype)
            error = np.where(is_held, 0.0, error)
        if output.dtype in FORMATS:
            values[place] = _packed(Bounded(value, error, rounded.format), tuple(output.shape))
        else:
            values[place] = torch.from_numpy(value.reshape(tuple(output.shape))).to(output.dtype)
    return tuple(values) if isinstance(result, tuple | list) else values[0]


def _is_held(call: Call, value: Array, kind: torch.dtype) -> Array:
    """Return which results of a sum, difference or product of exact numbers a format holds without rounding."""
    if kind != torch.float64:
        held = torch.from_numpy(value)
        return np.asarray((held == held.to(kind)).numpy())
    if value.size > _MOST_IN_BALLS:
        return np.zeros(value.shape, dtype=bool)
    shape, flat = call.out.shape, np.arange(value.size)
    left, right = (as_balls(call.at(name, flat, shape).value) for name in ("self", "other"))
    exact = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[call.name](left, right)
    return np.asarray(exact == as_balls(value), dtype=bool)


def _is_packed(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_complex()


def _flat(values: Any) -> list[Any]:
    flat = []
    for value in values:
        flat += _flat(value) if isinstance(value, tuple | list) else [value]
    return flat
