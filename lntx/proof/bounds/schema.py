"""What a call of an operator is: its arguments by name, what it writes, how much it computes. Checks nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import flop_registry

from lntx.proof.bounds.call import Call

# Written without a mark in the schema.
_WRITES_TOO = {"native_batch_norm": ("running_mean", "running_var")}


def plain_name(name: str) -> str:
    """Return the name of an operator without the final underscore of its in-place form."""
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def named(func: Any, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by their names in the schema, with defaults."""
    by_name = {}
    for place, argument in enumerate(func._schema.arguments):
        if place < len(args):
            by_name[argument.name] = args[place]
        elif argument.name in kwargs:
            by_name[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            by_name[argument.name] = argument.default_value
    # Zeros of autograd have no memory: torch reads beyond it when they are indexed.
    return {
        name: torch.zeros(value.shape, dtype=value.dtype, device=value.device)
        if isinstance(value, torch.Tensor) and value._is_zerotensor()
        else value
        for name, value in by_name.items()
    }


def written(func: Any, name: str, arguments: dict[str, Any]) -> list[str]:
    """Return the names of the arguments that a call writes to."""
    marked = [
        argument.name
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    if name in _WRITES_TOO and arguments.get("training", True):
        marked += _WRITES_TOO[name]
    return [argument for argument in marked if arguments.get(argument) is not None]


def tensors_of(values: Iterable[Any]) -> list[torch.Tensor]:
    """Return the tensors among values and in lists of them."""
    tensors: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            tensors.append(value)
        elif isinstance(value, tuple | list):
            tensors += tensors_of(value)
    return tensors


def has_bytes(tensor: torch.Tensor) -> bool:
    """Return whether a tensor has bytes of its own to hash."""
    return (
        tensor.layout == torch.strided
        and type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.device.type != "meta"
        and not tensor._is_zerotensor()
    )


def kept_apart(arguments: dict[str, Any], writes: list[str]) -> dict[str, Any]:
    """Return the arguments, with copies of those that the call will write over."""
    over = {
        element.untyped_storage()._cdata
        for element in tensors_of(arguments[name] for name in writes)
        if has_bytes(element)
    }
    if not over:
        return arguments

    def apart(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.detach().clone() if has_bytes(value) and value.untyped_storage()._cdata in over else value
        if isinstance(value, tuple | list):
            return [apart(element) for element in value]
        return value

    return {name: apart(value) for name, value in arguments.items()}


def calls_of(
    name: str, before: dict[str, Any], outputs: list[Any], after: dict[str, Any], sample: int, draw: np.random.Generator
) -> Iterable[Call]:
    """Return the calls that an operator stands for: one, or one for each tensor of its lists."""
    seed = int(draw.integers(2**63))
    is_list = name.startswith("_foreach_")
    # _fused_rms_norm takes one tensor.
    is_step = name.startswith("_fused_") and isinstance(before.get("self"), tuple | list)
    if not is_list and not is_step:
        yield Call(name, before, outputs, after=after, sample=sample, seed=seed)
        return
    single = {"norm": "linalg_vector_norm"}.get(name.removeprefix("_foreach_"), name.removeprefix("_foreach_"))
    lists = {key: value for key, value in before.items() if isinstance(value, tuple | list) and key != "scalars"}
    count = len(next(iter(lists.values()), ()))
    results = after.get("self") or outputs
    for k in range(count):
        args = {key: (value[k] if k < len(value) else None) if key in lists else value for key, value in before.items()}
        args = _with_scalars(single, args, k) if is_list else args
        wrote = {key: value[k] for key, value in after.items() if isinstance(value, tuple | list) and k < len(value)}
        yield Call(single if is_list else name, args, [results[k]], after=wrote, sample=sample, seed=seed + k)


# What the scalar of a list is called in the operator for one tensor, where it is not "other".
_SCALAR = {"clamp_max": "max", "clamp_min": "min", "pow": "exponent"}


def _with_scalars(name: str, args: dict[str, Any], k: int) -> dict[str, Any]:
    """Return the arguments of one call of a list, under the names of the operator for one tensor."""
    changed = dict(args)
    scalars = changed.pop("scalars", None)
    scalar = changed.pop("scalar", None)
    number = scalars[k] if isinstance(scalars, tuple | list | torch.Tensor) else scalar
    if number is not None:
        key = "value" if "tensor1" in changed else "weight" if "tensors1" in changed else _SCALAR.get(name, "other")
        changed[key] = number if not isinstance(number, torch.Tensor) else float(number)
    if "tensors1" in changed:
        changed["end"] = changed.pop("tensors1")
        if "weights" in changed:
            changed["weight"] = changed.pop("weights")
    changed.setdefault("dim", None)
    return changed


def multiply_adds(func: Any, args: Any, kwargs: dict[str, Any], out: Any, arguments: dict[str, Any]) -> int:
    """Return the number of multiply-adds of a product, a convolution, an attention or a recurrent layer; else 0."""
    packet = func.overloadpacket
    if packet in flop_registry:
        return int(flop_registry[packet](*args, **kwargs, out_val=out)) // 2
    if "attention_for_cpu" in str(packet):
        query, value = arguments["query"].shape, arguments["value"].shape
        scores, widths = math.prod(query[:-1]) * value[-2], (query[-1], value[-1])
        return int(scores * (3 * widths[0] + 2 * widths[1] if "backward" in str(packet) else sum(widths)))
    if "rnn_layer" in str(packet):
        inputs, size = arguments["input"], int(arguments["hidden_size"])
        once = math.prod(inputs.shape[:2]) * 4 * size * (inputs.shape[2] + size)
        return int(once) * (2 if "backward" in str(packet) else 1)
    return 0
