"""Where views lie: shape, strides, offset and storage of what a view operator returns, against torch's meta kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.utils._pytree as pytree

from lntx.proof.bounds.schema import has_bytes

Place = tuple[tuple[int, ...], tuple[int, ...], int]
"""Shape, strides, offset."""

_MOST_KNOWN = 2**14
_KNOWN: dict[Any, list[Place] | None] = {}


def wrong_view(func: Any, args: Any, kwargs: Any, out: Any) -> str | None:
    """Return a clause that says where a view lies wrong; None if it lies right, or if that cannot be said."""
    leaves, structure = pytree.tree_flatten((args, kwargs))
    tensors = [value for value in leaves if isinstance(value, torch.Tensor)]
    outputs = [value for value in pytree.tree_leaves(out) if isinstance(value, torch.Tensor)]
    if not all(map(_is_plain, (*tensors, *outputs))) or not tensors:
        return None
    key = (func, str(structure), tuple(_key(value) for value in leaves))
    if key not in _KNOWN:
        if len(_KNOWN) == _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = _expected(func, leaves, structure)
    expected = _KNOWN[key]
    if expected is None:
        return None
    if len(expected) != len(outputs):
        return f"returns {len(outputs)} views, not {len(expected)}"
    base = tensors[0].untyped_storage()._cdata
    for right, view in zip(expected, outputs, strict=True):
        for name, value, wanted in zip(("shape", "strides", "offset"), _place(view), right, strict=True):
            if value != wanted:
                return f"returns a view with the {name} {value}, not {wanted}"
        if view.untyped_storage()._cdata != base:
            return "returns a view of another storage"
    return None


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested and has_bytes(tensor)


def _place(tensor: torch.Tensor) -> Place:
    return tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())


def _key(value: Any) -> Any:
    is_tensor = isinstance(value, torch.Tensor)
    return (*_place(value), value.dtype, value.is_conj(), value.is_neg()) if is_tensor else repr(value)


def _expected(func: Any, leaves: Iterable[Any], structure: Any) -> list[Place] | None:
    try:
        args, kwargs = pytree.tree_unflatten([_on_meta(value) for value in leaves], structure)
        return [_place(view) for view in pytree.tree_leaves(func(*args, **kwargs)) if isinstance(view, torch.Tensor)]
    except Exception:
        # Not every view has a meta kernel for every argument.
        return None


def _on_meta(value: Any) -> Any:
    """Return a tensor of the same shape, strides and offset without bytes."""
    if not isinstance(value, torch.Tensor):
        return torch.device("meta") if isinstance(value, torch.device) else value
    size = value.untyped_storage().nbytes() // max(value.element_size(), 1)
    plain = torch.empty(size, dtype=value.dtype, device="meta")
    return plain.as_strided(value.shape, value.stride(), value.storage_offset())
