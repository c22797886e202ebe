"""Sweep torch's own database of operators with `lntx.prove`: what is checked, what alarms, what is not checked and why.

usage: python benchmarks/operators.py [--dtype float32 ...] [--samples 2] [--seconds 20] [--only NAME] [--why]

An entry is checked if every call that computes in its samples was (random numbers aside). --seconds: the most for an
entry. --why: list what is not checked.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import signal
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

import lntx
from lntx.proof.result import Proof

RANDOM = "its values are random"


@dataclass
class Sweep:
    """The results of a sweep in one format."""

    entries: int = 0
    whole: int = 0
    calls: int = 0
    alarms: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    missed: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)


class _TooLong(BaseException):
    pass


@contextlib.contextmanager
def _within(seconds: int) -> Iterator[None]:
    def end(*_: Any) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def proofs(entry: Any, dtype: torch.dtype, samples: int) -> Iterator[Proof]:
    """Run samples of an entry forward, and backward where it has a gradient, each in a proof."""
    backward = entry.supports_autograd and (dtype.is_floating_point or dtype.is_complex)
    inputs = entry.sample_inputs("cpu", dtype, requires_grad=backward)
    for sample, _ in zip(inputs, range(samples), strict=False):
        # What the entry itself refuses is no matter here.
        refusals = (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError)
        with lntx.prove(seed=1) as proof, contextlib.suppress(*refusals):
            outputs = pytree.tree_leaves(entry(sample.input, *sample.args, **sample.kwargs))
            tensors = [value for value in outputs if isinstance(value, torch.Tensor) and value.requires_grad]
            floats = [tensor for tensor in tensors if tensor.is_floating_point()]
            if floats:
                torch.autograd.backward([tensor.sum() for tensor in floats])
        yield proof


def sweep(dtype: torch.dtype, *, samples: int, seconds: int, only: str | None = None) -> Sweep:
    """Prove samples of each entry that supports a format."""
    result = Sweep()
    for entry in op_db:
        is_for_cpu = dtype in entry.supported_dtypes("cpu") and not entry.name.startswith("jiterator")
        if not is_for_cpu or (only is not None and entry.name != only):
            continue
        name, is_whole, seen = entry.full_name if hasattr(entry, "full_name") else entry.name, True, 0
        try:
            with _within(seconds):
                for proof in proofs(entry, dtype, samples):
                    seen += 1
                    result.calls += sum(row.calls for row in proof.in_order())
                    result.alarms += [f"{name}: {wrong.what}" for wrong in proof.wrong]
                    for missed in proof.unchecked.values():
                        if missed.why != RANDOM:
                            is_whole = False
                            result.missed[missed.operator, missed.why] += 1
                        if "its formula failed" in missed.why:
                            result.failed.append(f"{name}: {missed.operator}: {missed.why}")
        except _TooLong:
            is_whole = False
            result.missed[name, f"takes more than {seconds} s"] += 1
        except Exception as error:
            is_whole = False
            result.failed.append(f"{name}: {type(error).__name__}: {error}")
        result.entries += seen > 0
        result.whole += is_whole and seen > 0
    return result


def main() -> None:
    """Print a row for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", nargs="+", default=["float32", "float64", "bfloat16", "float16", "int64"])
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--only")
    parser.add_argument("--why", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("| dtype | entries | checked as a whole | calls checked | alarms | formulas that failed | seconds |")
    print("|---|---|---|---|---|---|---|")
    details = []
    for name in options.dtype:
        started = time.perf_counter()
        result = sweep(getattr(torch, name), samples=options.samples, seconds=options.seconds, only=options.only)
        share = f"{result.whole} ({100 * result.whole / max(result.entries, 1):.0f} %)"
        print(
            f"| {name} | {result.entries} | {share} | {result.calls} | {len(result.alarms)} | {len(result.failed)} "
            f"| {time.perf_counter() - started:.0f} |",
            flush=True,
        )
        details.append((name, result))
    for name, result in details:
        for line in (*result.alarms, *result.failed):
            print(f"{name}: {line}")
        for (operator, why), count in result.missed.most_common() if options.why else ():
            print(f"{name}: {count:4d} {operator}: {why}")


if __name__ == "__main__":
    main()
