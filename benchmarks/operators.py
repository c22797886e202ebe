"""Sweep torch's own databases with `lntx.prove`: what is checked, what alarms, what is not checked and why.

usage: python benchmarks/operators.py [--of operators] [--dtype float32 ...] [--samples 2] [--seconds 20] [--only NAME]
[--why]; --of modules and --of optimizers take the other two databases.

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
from torch.testing._internal.common_modules import module_db
from torch.testing._internal.common_optimizers import optim_db
from torch.utils import _pytree as pytree

import lntx
from lntx.proof.result import Proof

RANDOM = "its values are random"
Entries = Iterator[tuple[str, Iterator[Proof]]]


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


def operators(dtype: torch.dtype, samples: int) -> Entries:
    """Return the operators that support a format."""
    for entry in op_db:
        if dtype in entry.supported_dtypes("cpu") and not entry.name.startswith("jiterator"):
            yield entry.full_name if hasattr(entry, "full_name") else entry.name, proofs(entry, dtype, samples)


def modules(dtype: torch.dtype, samples: int) -> Entries:
    """Return the layers, forward and backward, in training."""
    for entry in module_db:
        if dtype in entry.dtypes:
            yield entry.name, _of_module(entry, dtype, samples)


def _of_module(entry: Any, dtype: torch.dtype, samples: int) -> Iterator[Proof]:
    inputs = entry.module_inputs_func(entry, device="cpu", dtype=dtype, requires_grad=True, training=True)
    for sample in [sample for sample in inputs if sample.forward_input is not None][:samples]:
        module = entry.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs).to(dtype)
        with lntx.prove(seed=1) as proof:
            outputs = pytree.tree_leaves(module(*sample.forward_input.args, **sample.forward_input.kwargs))
            sums = [value.sum() for value in outputs if isinstance(value, torch.Tensor) and value.requires_grad]
            if sums:
                torch.autograd.backward(sums)
        yield proof


def optimizers(dtype: torch.dtype, samples: int) -> Entries:
    """Return the optimisers, two steps of each, on dense gradients."""
    for entry in optim_db:
        if not entry.only_supports_sparse_grads:
            kind: Any = entry.optim_cls
            yield kind.__name__, _of_optimizer(entry, dtype, samples)


def _of_optimizer(entry: Any, dtype: torch.dtype, samples: int) -> Iterator[Proof]:
    for sample in entry.optim_inputs_func(device="cpu")[:samples]:
        parameters = [torch.nn.Parameter(torch.randn(4, 3, dtype=dtype)) for _ in range(2)]
        optimizer = entry.optim_cls(parameters, **{"lr": 0.01, **sample.kwargs})

        def closure(parameters: Any = parameters, optimizer: Any = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss = torch.stack([(parameter**2).sum() for parameter in parameters]).sum()
            loss.backward()
            return loss

        closure()
        with lntx.prove(seed=1) as proof:
            for _ in range(2):
                optimizer.step(closure) if entry.step_requires_closure else optimizer.step()
        yield proof


DATABASES = {"operators": operators, "modules": modules, "optimizers": optimizers}


def sweep(
    dtype: torch.dtype, *, samples: int, seconds: int, only: str | None = None, database: str = "operators"
) -> Sweep:
    """Prove samples of each entry that supports a format."""
    result = Sweep()
    for name, runs in DATABASES[database](dtype, samples):
        if only is not None and name != only:
            continue
        is_whole, seen = True, 0
        try:
            with _within(seconds):
                for proof in runs:
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
    parser.add_argument("--of", choices=DATABASES, default="operators")
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
        result = sweep(
            getattr(torch, name),
            samples=options.samples,
            seconds=options.seconds,
            only=options.only,
            database=options.of,
        )
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
