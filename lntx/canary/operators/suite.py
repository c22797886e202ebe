"""The suite of the deep canary: every operator of training steps of five networks, each within its rounding bound.

Keeps the usual share of the bound of each operator per kind of device.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import statistics
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lntx.base.errors import BadInput
from lntx.canary.operators import kernels
from lntx.canary.operators.faults import PROOF_FAULTS, ProofFault, prove_with
from lntx.canary.operators.nets import Net, build, loss_of, pairs, prove_net, train_plainly
from lntx.canary.suite.baseline import Baseline, device_kind, installed_versions
from lntx.canary.suite.not_run import find_cause
from lntx.canary.suite.options import CanaryOptions
from lntx.canary.suite.results import Canary, CaseReport, OperatorReport
from lntx.canary.suite.suite import Result, Suite
from lntx.config.schema import Section
from lntx.proof.kernels import KernelProof
from lntx.proof.result import Proof
from lntx.training.fit import threads

_FIXED_SEED = 20
_UNUSUAL = 8.0
# A share below it says nothing: one rounding of a lucky number more or less.
_SMALL_SHARE = 0.05
_COMPILED = (("decoder, layer norm", "float32"), ("decoder, RMS norm", "bfloat16"))
_IN_PROCESSES = (("decoder, layer norm", "float32"), ("convolutions", "bfloat16"))


How = Literal["eager", "compiled", "processes", "kernel"]


@dataclass(frozen=True, kw_only=True)
class OperatorCase:
    """A training step of a network in one format."""

    net: str
    """The network."""

    mode: str
    """Its formats."""

    how: How = "eager"
    """How it is computed; a kernel is one of liger-kernel, not a network."""

    seed: int
    """Seed of its weights and data."""

    num_threads: int = 1
    """Number of threads. Two wait for each other longer than such small networks compute."""

    @property
    def name(self) -> str:
        """Network, formats, and how it is computed unless that is eager."""
        how = {"eager": "", "compiled": "; compiled", "processes": "; two processes", "kernel": "; liger-kernel"}
        return f"{self.net}; {self.mode}{how[self.how]}"


class UsualShares(Section):
    """What a deep canary that passed took of the bounds."""

    cases: tuple[str, ...]
    """Names of the cases that ran."""

    shares: dict[str, float]
    """Median share of the bound, by phase, operator and format."""


class OperatorSuite(Suite[OperatorCase, ProofFault]):
    """Training steps of five networks in six formats.

    Raises: BadInput: there is no such device.
    """

    faults = PROOF_FAULTS
    option = "--deep "

    def __init__(self, options: CanaryOptions, *, root: Path | None = None, fault: ProofFault | None = None) -> None:
        super().__init__(options, root=root, fault=fault)
        if options.device == "cuda" and not torch.cuda.is_available():
            raise BadInput("--device cuda: torch finds no GPU")

    def cases(self, repetition: int) -> Sequence[OperatorCase]:
        """Return the cases of a repetition: fixed networks are the same in each, blind ones are drawn again."""
        cases = [self._case("eager", net, mode, repetition) for net, mode in pairs()]
        if self.options.compiled:
            cases += [self._case("compiled", net, mode, repetition) for net, mode in _COMPILED]
        if self.options.processes:
            cases += [self._case("processes", net, mode, repetition) for net, mode in _IN_PROCESSES]
        if kernels.can_run(self._device):
            cases += [self._case("kernel", name, "float32", repetition) for name in kernels.KERNELS]
        return cases

    def case_for_fault(self, fault: ProofFault, number: int) -> OperatorCase:
        """Return the network that a fault is planted in."""
        seed = _FIXED_SEED if self.options.seed is None else self.options.seed
        return OperatorCase(net=fault.net, mode=fault.mode, seed=seed)

    def run_case(self, case: OperatorCase, *, repetition: int = 1, fault: ProofFault | None = None) -> Result:
        """Take some training steps, and check each operator. An error of torch is an outcome too."""
        started = time.perf_counter()
        prove, plain = self._work(case, fault)
        with threads(case.num_threads):
            try:
                proof = prove()
            except Exception as error:
                cause = find_cause(case.name, error, plain)
                if self.store is None or cause.cause != "build":
                    return cause
                ran = {name for record in self._baseline().load() for name in record.cases}
                return cause.model_copy(update={"ran_before": case.name in ran})
        wrong = proof.wrong[0] if proof.wrong else None
        return CaseReport(
            name=case.name,
            repetition=repetition,
            verdict="pass" if wrong is None else "fail",
            blame=None if wrong is None else "training",
            operator=None if wrong is None else wrong.operator,
            reason=None if wrong is None else wrong.what,
            calls=1 if case.how == "kernel" else proof.calls,
            # What was skipped, as a region without a compiler, is not checked.
            checked=proof.checked_products if proof.table else float(case.how == "kernel" and not proof.unchecked),
            operators=tuple(_outputs(proof, case.net) if isinstance(proof, KernelProof) else _operators(proof)),
            unchecked={name: row.why for name, row in proof.unchecked.items()},
            seconds=round(time.perf_counter() - started, 3),
        )

    def compare(self, canary: Canary) -> tuple[str, ...]:
        """Return a warning for each operator whose median share is unusual, and keep the shares of fixed networks."""
        if self.options.seed is not None:
            # With other sizes, other shares are usual.
            return ()
        shares = {"/".join((row.phase, row.operator, row.dtype)): row.median for row in canary.operators}
        record = UsualShares(cases=tuple(sorted({case.name for case in canary.cases})), shares=shares)

        def warn(records: list[UsualShares]) -> tuple[tuple[str, ...], UsualShares]:
            usual = {name: [old.shares[name] for old in records if name in old.shares] for name in shares}
            return tuple(filter(None, (_warning(name, shares[name], usual[name]) for name in shares))), record

        return self._baseline().update(warn) or ()

    def _baseline(self) -> Baseline[UsualShares]:
        assert self.store is not None
        kind = {"device": device_kind(self._device), "kernels": installed_versions()["kernels"]}
        return Baseline(self.store, UsualShares, kind, prefix="deep-")

    @property
    def _device(self) -> str:
        return "cuda" if self.options.device == "cuda" else "cpu"

    def _case(self, how: How, net: str, mode: str, repetition: int) -> OperatorCase:
        names = [(name, mode) for name in kernels.KERNELS] if how == "kernel" else pairs()
        base, number = self.options.seed, names.index((net, mode))
        entropy = (_FIXED_SEED, number) if base is None else (base, repetition, number)
        seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
        return OperatorCase(how=how, net=net, mode=mode, seed=seed, num_threads=1 if base is None else 1 + seed % 2)

    def _work(self, case: OperatorCase, fault: ProofFault | None) -> tuple[Callable[[], Proof], Callable[[], object]]:
        """Return what checks a network, and what takes the same steps without a check."""
        net, mode, seed, device = case.net, case.mode, case.seed, self._device
        if fault is not None:
            return lambda: prove_with(fault, seed=seed), lambda: train_plainly(build(net, mode, seed))
        if case.how == "kernel":
            kernel, dtype = kernels.KERNELS[net], getattr(torch, mode)
            return (
                lambda: kernels.prove_liger(kernel, dtype, seed=seed, device=device),
                lambda: kernels.run_kernel(kernel, *kernels.draw_inputs(kernel, dtype, seed=seed, device=device)),
            )
        if case.how == "processes":
            from lntx.canary.operators.processes import prove_processes, train_in_processes

            return lambda: prove_processes(net, mode, seed=seed), lambda: train_in_processes(net, mode, seed)
        if case.how == "compiled":
            return lambda: _prove_compiled(net, mode, seed), lambda: _compiled_step(_for_compiler(net, mode, seed))
        return (
            lambda: prove_net(build(net, mode, seed, device), seed=seed),
            lambda: train_plainly(build(net, mode, seed, device)),
        )


def _warning(name: str, share: float, usual: Sequence[float]) -> str | None:
    """Return a sentence about an operator whose share of the bound is unusual; None if it is not."""
    if not usual or share <= max(_UNUSUAL * statistics.median(usual), _SMALL_SHARE):
        return None
    phase, operator, dtype = name.split("/")
    times = share / max(statistics.median(usual), 1e-12)
    return f"{operator} ({dtype}, {phase}) takes {share:.2g} of its bound, {times:.0f} times the usual share"


def _operators(proof: Proof) -> Iterator[OperatorReport]:
    for row in proof.in_order():
        yield OperatorReport(
            phase=row.phase,
            operator=row.operator,
            dtype=row.dtype,
            calls=row.calls,
            elements=row.elements,
            # JSON has no infinity.
            largest=min(row.largest, 1e300),
            median=min(row.median, 1e300),
            strict=min(row.strict, 1e300),
        )


def _outputs(proof: KernelProof, name: str) -> Iterator[OperatorReport]:
    """Yield a row for each output and gradient of a kernel."""
    for output in proof.outputs:
        share = min(output.share, 1e300)
        shares = {"largest": share, "median": share, "strict": share}
        same = {"phase": output.phase, "dtype": output.dtype, "elements": output.elements}
        yield OperatorReport(operator=name, calls=1, **same, **shares)


def _prove_compiled(net: str, mode: str, seed: int) -> Proof:
    proof = Proof(seed=seed)
    missing = no_compiler()
    if missing is not None:
        proof.miss("compiled region", missing)
        return proof
    from lntx.proof.compiled import checking_backend

    _compiled_step(_for_compiler(net, mode, seed), backend=checking_backend(proof))
    return proof


def _for_compiler(net: str, mode: str, seed: int) -> Net:
    from lntx.canary.operators.nets import soften

    built = build(net, mode, seed)
    # Without dropout: its random numbers would be made inside the region.
    built.module.eval()
    # Nor with sharp attention and small variances: bounds that pass through a whole region grow there without limit.
    soften(built)
    return built


def _compiled_step(net: Net, backend: Any = "inductor") -> None:
    """Compile a network, and take its loss and its gradients."""
    torch._dynamo.reset()
    module: Any = torch.compile(net.module, backend=backend)
    loss, _ = loss_of(dataclasses.replace(net, module=module))
    loss.backward()


def no_compiler() -> str | None:
    """Return what torch.compile lacks on this machine; None if it lacks nothing."""
    if shutil.which("g++") is None and shutil.which("c++") is None and shutil.which("clang++") is None:
        return "no C++ compiler is installed: apt-get install g++"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        return f"{header.name} is not installed: apt-get install python3-dev"
    if not importlib.util.find_spec("torch._inductor"):
        return "torch has no compiler"
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    if Path(cache_dir()).stat().st_uid != os.getuid():
        # In a folder for all users, anyone can have made it, and put code into it.
        return f"{cache_dir()} is another user's, and torch runs what is in it: export TORCHINDUCTOR_CACHE_DIR=FOLDER"
    return None
