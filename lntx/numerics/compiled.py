"""Compile loops over rows to machine code (numba), for passes over many rows.

The first use on a machine takes a second to compile; the code is kept beside the module, or in the user's cache.
Importing this takes a third of a second: import it only where rows are many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from lntx.numerics import doubledouble

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function, *, any_order: bool = False) -> Function:
    """Compile a function of numbers and arrays; it releases Python's lock, and rounds as Python does.

    any_order: its sums may be taken in any order; only for sums without rounding.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    if any_order:
        options["fastmath"] = {"reassoc", "contract", "nsz"}
    try:
        return cast(Function, njit(cache=True, **options)(function))
    except RuntimeError:
        # No folder for the code can be written: compile in each process.
        return cast(Function, njit(**options)(function))


@cast(Callable[..., Any], intrinsic)
def _fused(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a · b + c, rounded once."""

    def generate(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


two_sum = compiled(doubledouble.two_sum)


@compiled
def two_product(a: float, b: float) -> tuple[float, float]:
    """Return the rounded product and its error; exact without over- or underflow."""
    product = a * b
    return product, _fused(a, b, -product)
