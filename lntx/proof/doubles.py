"""A program run in float64, whatever formats it names, and the formats that it does use."""

from __future__ import annotations

from typing import Any

import torch
import torch.utils._pytree as pytree
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_RANDOM = frozenset({"rand", "randn", "rand_like", "randn_like", "normal", "normal_", "uniform_", "exponential_"})


class Doubles(TorchFunctionMode):
    """Takes float64 wherever a program names a narrower format, so that no difference drowns in rounding."""

    _NARROW = (torch.float32, torch.bfloat16, torch.float16)
    _CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)

    def __enter__(self) -> Any:
        self._default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch.set_default_dtype(self._default)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if func in self._CASTS:
            return args[0].double()
        if name in _RANDOM:
            return self._draw(func, name, args, kwargs or {})
        args, kwargs = pytree.tree_map_only(
            torch.dtype, lambda dtype: torch.float64 if dtype in self._NARROW else dtype, (args, kwargs or {})
        )
        return func(*args, **kwargs)

    def _draw(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Draw in float32, as the program does: other numbers would be drawn in float64."""
        if name.endswith("_"):
            numbers = getattr(torch.empty_like(args[0], dtype=torch.float32), name)(*args[1:], **kwargs)
            return args[0].copy_(numbers)
        args, kwargs = pytree.tree_map_only(
            torch.Tensor, lambda t: t.float() if t.dtype == torch.float64 else t, (args, kwargs)
        )
        torch.set_default_dtype(torch.float32)
        try:
            numbers = func(*args, **kwargs)
        finally:
            torch.set_default_dtype(torch.float64)
        return numbers.double() if numbers.is_floating_point() else numbers


class Widths(TorchDispatchMode):
    """Notes the widths of the floating-point numbers that are computed, in bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.widths: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                self.widths.add(value.element_size())
        return out
