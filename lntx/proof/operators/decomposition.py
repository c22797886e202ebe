"""Operators without a formula are taken apart, by torch's own tables, into operators that have one.

Sources: torch._decomp and torch._refs. Where a kernel uses another algebraic form than the
decomposition, its bound holds as long as both have the same condition: each step of the decomposition adds to it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.fx
import torch.utils._pytree as pytree

from lntx.proof.bounds.call import WHOLE, Call, unravel
from lntx.proof.bounds.numbers import Array, Bounded
from lntx.proof.bounds.schema import plain_name
from lntx.proof.formulas import FORMULAS, MOVES
from lntx.proof.operators.graph import evaluate

_MOST_NUMBERS = 2**22
_MOST_GRAPHS = 2**10
_GRAPHS: dict[Any, torch.fx.Graph | NotImplementedError] = {}


class NoFormula(NotImplementedError):
    """An operator has neither a formula nor a decomposition."""


def by_decomposition(call: Call) -> Iterator[tuple[str, Array, Bounded]]:
    """Yield what the operators that an operator is made of give: slots, flat indexes, and true values.

    Raises: NoFormula; NotImplementedError: a decomposition that is not covered.
    """
    operator = _functional(call)
    size = sum(value.numel() for value in pytree.tree_leaves((call.args, call.outputs)) if _is_tensor(value))
    args, picked = call.args, None
    if torch.Tag.pointwise in operator.tags and call.out.numel() > WHOLE:
        picked = call.pick()
        args = {name: _picked(value, picked, call.out.shape) for name, value in call.args.items()}
    elif size > _MOST_NUMBERS:
        raise NotImplementedError(f"taking {size:,} numbers apart")
    flat, structure = pytree.tree_flatten(args)
    tensors = [value.detach() for value in flat if _is_tensor(value)]
    expected = evaluate(_graph(operator, flat, structure), tensors, own_format=call.dtype if call.own_format else None)
    for slot, (output, numbers) in enumerate(zip(call.outputs, expected, strict=True)):
        if _is_tensor(output) and numbers is not None and output.numel():
            flat_indexes = np.arange(output.numel()) if picked is None else picked
            if numbers.shape != flat_indexes.shape:
                raise NotImplementedError("a decomposition of another shape")
            yield str(slot), flat_indexes, numbers


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _picked(value: Any, picked: Array, shape: torch.Size) -> Any:
    """Return the elements that are checked. A tensor without axes stays one: it does not decide the format."""
    return value.detach().expand(shape)[unravel(picked, shape)] if _is_tensor(value) and value.dim() else value


def _functional(call: Call) -> Any:
    """Return the overload that takes the arguments of a call and writes to none of them."""
    packet = getattr(torch.ops.aten, call.name, None)
    # The mean of index_reduce is kept in the format of 16 bits, a sum of any length.
    if packet is None or call.after.keys() - {"self"} or call.name == "index_reduce":
        raise NoFormula("it has no formula")
    for name in packet.overloads():
        overload = getattr(packet, name)
        types = {argument.name: str(argument.type) for argument in overload._schema.arguments}
        fits = all(_fits(value, types[key]) for key, value in call.args.items() if key in types)
        if types.keys() == call.args.keys() and fits and not overload._schema.is_mutable:
            return overload
    raise NoFormula("it has no formula")


def _fits(value: Any, kind: str) -> bool:
    """Return whether a value may be an argument of a kind of the schema."""
    if _is_tensor(value):
        return "Tensor" in kind
    return kind != "Tensor" and ("List" in kind or not isinstance(value, list | tuple))


def _graph(operator: Any, flat: list[Any], structure: Any) -> torch.fx.Graph:
    """Return the graph of a call, from the cache if the same was called before on other numbers."""
    kinds = tuple((value.shape, value.stride(), value.dtype) if _is_tensor(value) else repr(value) for value in flat)
    key = (operator, str(structure), kinds)
    if key not in _GRAPHS:
        if len(_GRAPHS) == _MOST_GRAPHS:
            _GRAPHS.clear()
        try:
            with torch._C._DisableAutocast():
                _GRAPHS[key] = _trace(operator, flat, structure)
        except NotImplementedError as error:
            _GRAPHS[key] = error
        except Exception as error:
            _GRAPHS[key] = NotImplementedError(f"a decomposition that raises {type(error).__name__}")
    graph = _GRAPHS[key]
    if isinstance(graph, NotImplementedError):
        raise graph
    return graph


def trace(
    function: Callable[..., list[Any]], tensors: Sequence[torch.Tensor], *, may_write: bool = True
) -> torch.fx.Graph:
    """Return the graph of a function that returns a list, on copies of these tensors, taken apart by torch's tables.

    may_write: whether the function may write through views.

    Raises: NotImplementedError: it draws random numbers, or writes complex ones.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    def traced(function: Any) -> torch.fx.GraphModule:
        copies = [tensor.detach().clone() for tensor in tensors]
        module: torch.fx.GraphModule = make_fx(function, decomposition_table=_table(), tracing_mode="real")(*copies)
        return module

    module = traced(function)
    if may_write and any(node.op == "call_function" and _writes(node.target) for node in module.graph.nodes):
        values = [node.meta.get("val") for node in module.graph.nodes]
        if any(_is_tensor(value) and value.is_complex() for value in values):
            # torch 2.13 crashes when it takes such writes apart.
            raise NotImplementedError("writing complex numbers")
        # What is written through a view becomes a new tensor.
        try:
            module = traced(torch.func.functionalize(function, remove="mutations"))
        except RuntimeError:
            # It differentiates inside.
            module = traced(torch.func.functionalize(module, remove="mutations"))
    graph = module.graph
    for node in graph.nodes:
        is_seeded = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
        # Attention has the tag for its dropout; its formula refuses that.
        if is_seeded and plain_name(node.target._schema.name.split("::")[1]) not in FORMULAS:
            raise NotImplementedError("random numbers inside")
    return graph


def _writes(target: Any) -> bool:
    return hasattr(target, "_schema") and bool(target._schema.is_mutable)


def expected_results(function: Callable[..., Any], inputs: Sequence[Any]) -> list[Bounded | None]:
    """Return the true values of what a function of torch returns, and how far rounding may take them.

    inputs: tensors, and other arguments as they are.

    Raises: NotImplementedError: something in it is not covered.
    """
    tensors = [value.detach().cpu().contiguous() for value in inputs if _is_tensor(value)]

    def run(*given: torch.Tensor) -> list[Any]:
        source = iter(given)
        called = [next(source) if _is_tensor(value) else value for value in inputs]
        return [value for value in pytree.tree_leaves(function(*called)) if _is_tensor(value)]

    with np.errstate(all="ignore"):
        return evaluate(trace(run, tensors), tensors)


def _trace(operator: Any, flat: list[Any], structure: Any) -> torch.fx.Graph:
    places = [place for place, value in enumerate(flat) if _is_tensor(value)]

    def run(*tensors: torch.Tensor) -> list[Any]:
        filled = list(flat)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        return pytree.tree_leaves(operator(**pytree.tree_unflatten(filled, structure)))

    name = plain_name(operator._schema.name.split("::")[1])
    forward = getattr(getattr(torch.ops.aten, name.removesuffix("_backward"), None), "default", None)
    is_adjoint = name.endswith("_backward") and len(operator._schema.returns) == 1
    if is_adjoint and operator not in _table() and forward in _table():
        operator = functools.partial(_adjoint, forward)
    graph = trace(run, [flat[place] for place in places], may_write=False)
    if any(node.target is operator for node in graph.nodes):
        raise NoFormula("it has no formula")
    return graph


def _adjoint(forward: Any, **arguments: Any) -> torch.Tensor:
    """Return the gradient of an operator in its first argument, from torch's differentiation of its decomposition."""
    first, *others = (argument.name for argument in forward._schema.arguments)
    grad = next(value for name, value in arguments.items() if name.startswith("grad"))
    inputs = arguments[first] if first in arguments else grad.new_zeros(arguments["input_size"])
    # Within an operator that is being proved, torch would differentiate nothing.
    with torch._C._PreserveDispatchKeyGuard(), torch.enable_grad():
        torch._C._dispatch_tls_set_dispatch_key_excluded(torch._C.DispatchKey.AutogradFunctionality, False)
        inputs = inputs.detach().requires_grad_()
        # By place: decompositions name some arguments otherwise.
        outputs = _table()[forward](inputs, *(arguments[name] for name in others if name in arguments))
        gradients: tuple[torch.Tensor, ...] = torch.autograd.grad(outputs, inputs, grad)
    return gradients[0]


@functools.cache
def _table() -> Mapping[Any, Callable[..., Any]]:
    from torch._decomp import core_aten_decompositions, decomposition_table

    return {
        operator: function
        for operator, function in {**decomposition_table, **core_aten_decompositions()}.items()
        if not (
            hasattr(operator, "_schema") and plain_name(operator._schema.name.split("::")[1]) in {*FORMULAS, *MOVES}
        )
    }
