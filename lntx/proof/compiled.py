"""Code of `torch.compile`: each compiled region is checked as one operator, against the graph that it stands for.

Inside `prove` compiled code runs uncompiled, so this is a backend of its own around Inductor. The graph of a region is
computed on numbers with bounds; these travel through it as complex numbers, the value real and its bound imaginary, so
that views and copies of torch move both together. Float64 is left out: its regions would need balls.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.fx

from lntx.proof.call import Call
from lntx.proof.formulas import FORMULAS, MOVES
from lntx.proof.numbers import FORMATS, Bounded
from lntx.proof.result import Proof
from lntx.proof.rows import Phase, in_format_of, judge_numbers
from lntx.proof.schema import named, plain_name

_CONVERSIONS = frozenset({"_to_copy", "convert_element_type", "copy"})
_MORE_MOVES = frozenset({"alias", "detach", "iota", "device_put", "unsafe_split", "_unsafe_index", "new_empty_strided"})


def checking_backend(proof: Proof) -> Any:
    """Return a backend for `torch.compile(model, backend=...)` that checks each region as it runs.

    proof: takes in the results, as operator "compiled region".
    """
    from torch._dynamo.backends.common import aot_autograd
    from torch._inductor.decomposition import select_decomp_table

    return aot_autograd(
        fw_compiler=_compiler(proof, "forward"),
        bw_compiler=_compiler(proof, "backward"),
        decompositions=select_decomp_table(),
    )


def _compiler(proof: Proof, phase: Phase) -> Callable[..., Any]:
    from torch._inductor.compile_fx import compile_fx_inner

    def compiler(module: torch.fx.GraphModule, inputs: Any) -> Any:
        # The compiler changes the graph that it is given.
        module_before = copy.deepcopy(module)
        run = compile_fx_inner(module, inputs)

        def checked(arguments: list[Any]) -> Any:
            # It also writes over inputs that it needs no more.
            source = [value.detach().clone() if isinstance(value, torch.Tensor) else value for value in arguments]
            outputs = run(arguments)
            proof.calls += 1
            _check(proof, phase, module_before.graph, source, outputs)
            return outputs

        checked._boxed_call = True  # type: ignore[attr-defined]
        return checked

    return compiler


def _check(proof: Proof, phase: Phase, graph: torch.fx.Graph, inputs: list[Any], outputs: Any) -> None:
    name = "compiled region"
    if any(isinstance(value, torch.Tensor) and value.dtype == torch.float64 for value in outputs):
        proof.miss(name, "its format is float64")
        return
    try:
        with np.errstate(all="ignore"), torch.no_grad():
            expected = _evaluate(graph, inputs)
    except NotImplementedError as error:
        proof.miss(name, f"{error} is not covered")
        return
    for want, got in zip(expected, outputs, strict=True):
        if isinstance(got, torch.Tensor) and got.dtype in FORMATS and isinstance(want, torch.Tensor):
            call = Call(name, {}, [got])
            flat = want.reshape(-1).numpy()
            numbers = Bounded(np.ascontiguousarray(flat.real), np.ascontiguousarray(flat.imag), call.inner)
            try:
                judged = judge_numbers(call, [("0", np.arange(got.numel()), numbers)])
            except NotImplementedError as error:
                proof.miss(name, str(error))
            else:
                proof.add(phase, name, str(got.dtype).removeprefix("torch."), judged)


def _evaluate(graph: torch.fx.Graph, source: list[Any]) -> list[Any]:
    """Return the outputs of a graph, numbers with bounds as complex tensors."""
    known: dict[torch.fx.Node, Any] = {}
    inputs = iter(source)
    for node in graph.nodes:
        if node.op == "placeholder":
            value = next(inputs)
            known[node] = _with_bound(value) if isinstance(value, torch.Tensor) else value
        elif node.op == "call_function":
            args, kwargs = torch.fx.node.map_arg((node.args, dict(node.kwargs)), lambda value: known[value])
            known[node] = _apply(node.target, args, kwargs, node.meta.get("val"))
        elif node.op == "output":
            (results,) = node.args
            return [None if value is None else known[value] for value in results]
        else:
            raise NotImplementedError(f"a node {node.op}")
    raise NotImplementedError("a graph without an output")


def _with_bound(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to(torch.complex128) if tensor.dtype in FORMATS else tensor


def _apply(target: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
    """Compute one node. result: what it returns in the graph, for its shape and format."""
    if target is operator.getitem or not hasattr(target, "_schema"):
        return target(*args, **kwargs)
    name = plain_name(target._schema.name.split("::")[1])
    arguments = named(target, args, kwargs)
    has_bounds = any(isinstance(value, torch.Tensor) and value.is_complex() for value in _flat(arguments.values()))
    kinds = [value.dtype for value in _flat([result]) if isinstance(value, torch.Tensor)]
    if name in _CONVERSIONS and has_bounds and kinds[0] in FORMATS:
        source = next(value for value in _flat(arguments.values()) if isinstance(value, torch.Tensor))
        return _rounded(source, kinds[0])
    if not has_bounds and "rand" not in name and "bernoulli" not in name:
        outcome = target(*args, **kwargs)
        return _with_bound(outcome) if isinstance(outcome, torch.Tensor) else outcome
    if name in {"view", "_unsafe_view"}:
        # Strides are those of the kernels, which are not kept here.
        return args[0].reshape(args[1])
    if name == "as_strided":
        raise NotImplementedError(name)
    if target.is_view or name in MOVES or name in _MORE_MOVES:
        outcome = target(*args, **kwargs)
        return _with_bound(outcome) if isinstance(outcome, torch.Tensor) else outcome
    if name not in FORMULAS:
        raise NotImplementedError(name)
    return _by_formula(name, arguments, result)


def _rounded(source: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    numbers = source.numpy()
    bounded = Bounded(numbers.real, numbers.imag, FORMATS[kind]).rounded(FORMATS[kind])
    return _packed(bounded, tuple(source.shape))


def _packed(numbers: Bounded, shape: tuple[int, ...]) -> torch.Tensor:
    whole = np.empty(np.shape(numbers.value), dtype=np.complex128)
    whole.real, whole.imag = numbers.value, numbers.error
    return torch.from_numpy(whole.reshape(shape))


def _by_formula(name: str, arguments: dict[str, Any], result: Any) -> Any:
    results = list(result) if isinstance(result, tuple | list) else [result]
    outputs = [torch.empty(tuple(tensor.shape), dtype=tensor.dtype) for tensor in results]
    call = Call(name, arguments, outputs)
    call.everything = True
    values: list[Any] = [None] * len(outputs)
    for slot, flat, numbers in FORMULAS[name](call):
        place = int(slot)
        output = outputs[place]
        value, error = np.zeros(output.numel()), np.zeros(output.numel())
        rounded = in_format_of(output, numbers, call)
        value[flat], error[flat] = rounded.value.reshape(-1), rounded.error.reshape(-1)
        if output.dtype in FORMATS:
            values[place] = _packed(Bounded(value, error, rounded.format), tuple(output.shape))
        else:
            values[place] = torch.from_numpy(value.reshape(tuple(output.shape))).to(output.dtype)
    return tuple(values) if isinstance(result, tuple | list) else values[0]


def _flat(values: Any) -> list[Any]:
    flat = []
    for value in values:
        flat += _flat(value) if isinstance(value, tuple | list) else [value]
    return flat
