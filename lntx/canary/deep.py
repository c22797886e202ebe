"""The deep canary: every operator of a training step of five networks against the truth. Nothing is published.

Keeps the usual share of the bound of each operator per kind of device under `artifacts/canary/`. Knows no orchestrator.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import secrets
import shutil
import statistics
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from lntx import __version__
from lntx.canary.drift import device_kind
from lntx.canary.levels import Device
from lntx.canary.not_run import NotRun, by_cause, find_cause, reason_without_verdict
from lntx.config.loading import explain
from lntx.config.schema import MAX_SEED, Section
from lntx.errors import BadInput
from lntx.files import read_json, write_json
from lntx.progress import tell
from lntx.proof.faults import PROOF_FAULTS, ProofFault, find_proof_fault, is_caught, prove_with
from lntx.proof.nets import Net, build, loss_of, pairs, prove_net, train_plainly
from lntx.proof.result import Proof
from lntx.stages import Blame
from lntx.store.key import digest_of
from lntx.store.store import Store

logger = logging.getLogger(__name__)

_FIXED_SEED = 20
_KEPT = 50
_UNUSUAL = 8.0
# A share below it says nothing: one rounding of a lucky number more or less.
_WORTH_TELLING = 0.05
_COMPILED = (("decoder, layer norm", "float32"), ("decoder, RMS norm", "bfloat16"))
_IN_PROCESSES = (("decoder, layer norm", "float32"), ("convolutions", "bfloat16"))


class DeepOrder(Section):
    """The options of a deep canary."""

    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    """Seed of the networks; None for fixed ones."""

    repeat: int = Field(1, ge=1, le=100_000)
    """Number of repetitions."""

    device: Device = "auto"
    """Where to train; auto is the CPU."""

    compiled: bool = False
    """Whether code of torch.compile is checked, too."""

    processes: bool = False
    """Whether training in two processes is checked, too."""

    inject: str | None = None
    """Name of a fault to plant."""


class OperatorReport(Section):
    """An operator in one format and phase."""

    phase: Literal["forward", "backward", "optimizer"]
    """Part of the step."""

    operator: str
    """Name without namespace and overload; or a whole step, the loss, a compiled region."""

    dtype: str
    """Format of the result."""

    calls: int
    """Number of calls."""

    elements: int
    """Number of elements that were compared."""

    largest: float
    """Largest share of the bound; over 1 is wrong."""

    median: float
    """Median over the calls of their largest share."""

    strict: float
    """Largest share with sums in float32, where the kernel adds in its own format of 16 bits."""


class DeepCase(Section):
    """The outcome of one network in one format."""

    name: str
    """Network and formats."""

    repetition: int
    """Number of the repetition, from 1."""

    verdict: Literal["pass", "fail"]
    """Whether everything was right."""

    blame: Blame | None
    """The part that is wrong: training."""

    operator: str | None
    """The operator, the step or the memory that is wrong."""

    reason: str | None
    """What is wrong, in one sentence."""

    calls: int
    """Number of operator calls."""

    checked: float
    """Share of the multiply-adds that were checked."""

    seconds: float
    """Duration in seconds."""


class DeepFault(Section):
    """The outcome of a planted fault."""

    name: str
    """Name of the fault."""

    caught: bool
    """Whether the canary failed."""

    operator: str | None
    """What was blamed."""

    expected: str
    """What must be blamed; "step" is that of any optimiser."""

    is_right: bool
    """Whether it was caught and the right operator, step or storage was blamed."""

    reason: str | None
    """The reason that the canary gave."""

    size: float | None
    """Size of the planted fault; None for a fault without a size."""

    seconds: float
    """Duration in seconds."""

    @property
    def culprit(self) -> str | None:
        """What was blamed."""
        return self.operator


class DeepCanary(Section):
    """The outcome of a deep canary."""

    verdict: Literal["pass", "fail"] | None
    """Whether everything that ran was right; None if nothing was wrong, and the canary failed or nothing ran."""

    blame: Blame | None
    """The part that is wrong: training."""

    operator: str | None
    """The operator, the step or the memory that is wrong first."""

    reason: str | None
    """What is wrong first: phase, operator, element, value, true value, bound; or why there is no verdict."""

    warnings: tuple[str, ...]
    """Operators whose share of the bound is unusual; the verdict does not depend on it."""

    not_run: tuple[NotRun, ...]
    """Networks that this build cannot run; the verdict does not depend on them."""

    unfinished: tuple[NotRun, ...]
    """Networks in which the canary itself failed."""

    blind_seed: int | None
    """Seed that draws the networks again; None for fixed networks."""

    repetitions: int
    """Number of repetitions."""

    recurrence: Literal["deterministic", "intermittent"] | None
    """Whether every repetition failed in the same way; None without a failure or with one repetition."""

    cases: tuple[DeepCase, ...]
    """The networks, each in each format."""

    operators: tuple[OperatorReport, ...]
    """All operators."""

    unchecked: dict[str, str]
    """What was not checked, and why."""

    fault: DeepFault | None
    """The outcome of the planted fault, if there was one."""

    seconds: float
    """Duration in seconds."""

    device: str
    """Model of the processor or GPU."""

    versions: dict[str, str]
    """Versions of lntx, torch and numpy, and the instruction set of torch's kernels."""

    flow_run_id: str | None = None
    """Prefect's id of the run."""

    flow_run_url: str | None = None
    """Its page in the UI."""


def settle_deep_order(
    *,
    blind: bool = False,
    seed: int | None = None,
    repeat: int = 1,
    device: Device = "auto",
    compiled: bool = False,
    processes: bool = False,
    inject: str | None = None,
) -> DeepOrder:
    """Return the options; a blind canary without a seed gets a random one.

    Raises: BadInput: a value is out of range, there is no such fault or no such device.
    """
    drawn = secrets.randbelow(2**63) if blind and seed is None else seed
    if inject is not None:
        find_proof_fault(inject)
        if repeat != 1:
            raise BadInput(f"--inject plants one fault once: drop --repeat {repeat}")
    try:
        order = DeepOrder(
            seed=drawn, repeat=repeat, device=device, compiled=compiled, processes=processes, inject=inject
        )
    except ValidationError as error:
        raise BadInput(*(line.replace("canary.", "--") for line in explain(error, section="canary"))) from None
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise BadInput("--device cuda: torch finds no GPU")
    return order


Piece = tuple[str, str, str]
"""What is checked at once: how (eager, compiled, processes), and a network and formats."""


def pieces(order: DeepOrder) -> list[Piece]:
    """Return what an order checks in one repetition."""
    found = [("eager", net, mode) for net, mode in pairs()]
    if order.compiled:
        found += [("compiled", net, mode) for net, mode in _COMPILED]
    if order.processes:
        found += [("processes", net, mode) for net, mode in _IN_PROCESSES]
    return found


def run_deep(order: DeepOrder, *, root: str | Path | None = None) -> DeepCanary:
    """Check every operator of the networks; a wrong answer is a result (`verdict`).

    root: the usual shares are stored here, under artifacts/canary/; None to store nothing.
    """
    if order.inject is not None:
        return sum_up_deep(order, [prove_fault(order)])
    work = [(piece, repetition) for repetition in range(1, order.repeat + 1) for piece in pieces(order)]
    results: list[Result] = []
    for piece, repetition in work:
        results.append(prove_piece(order, piece, repetition))
        tell(len(results), len(work), "networks")
    return sum_up_deep(order, results, root=root)


class Checked:
    """A piece that was checked: its case and its proof."""

    def __init__(self, case: DeepCase, proof: Proof, fault: DeepFault | None = None) -> None:
        self.case = case
        self.proof = proof
        self.fault = fault


Result = Checked | NotRun
"""The outcome of a piece."""


def prove_piece(order: DeepOrder, piece: Piece, repetition: int = 1) -> Result:
    """Check one network in one format. An error of torch is an outcome too."""
    how, net, mode = piece
    base = _FIXED_SEED if order.seed is None else order.seed
    number = pairs().index((net, mode))
    # Fixed networks are the same in each repetition; blind ones are drawn again.
    entropy = (base, number) if order.seed is None else (base, repetition, number)
    seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
    logger.info("deep canary: %s, %s, %s", how, net, mode)
    started = time.perf_counter()
    device = "cuda" if order.device == "cuda" else "cpu"
    name = f"{net}; {mode}" + ("" if how == "eager" else f"; {'two ' if how == 'processes' else ''}{how}")
    prove, plain = _work(how, net, mode, seed, device)
    # Two threads wait for each other longer than such small networks compute.
    with _threads(1 if order.seed is None else 1 + seed % 2):
        try:
            proof = prove()
        except Exception as error:
            return find_cause(name, error, plain)
    return Checked(_case(name, repetition, proof, started), proof)


def _work(how: str, net: str, mode: str, seed: int, device: str) -> tuple[Callable[[], Proof], Callable[[], object]]:
    """Return what checks a network, and what takes the same steps without a check."""
    if how == "processes":
        from lntx.proof.processes import prove_processes, train_in_processes

        return lambda: prove_processes(net, mode, seed=seed), lambda: train_in_processes(net, mode, seed)
    if how == "compiled":
        return lambda: _prove_compiled(net, mode, seed), lambda: _compiled_step(_for_compiler(net, mode, seed))
    return (
        lambda: prove_net(build(net, mode, seed, device), seed=seed),
        lambda: train_plainly(build(net, mode, seed, device)),
    )


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Compute in so many threads in the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prove_fault(order: DeepOrder, fault: ProofFault | None = None) -> Result:
    """Plant a fault in its network, and check whether it is seen."""
    planted = fault or find_proof_fault(order.inject or "")
    started = time.perf_counter()
    seed = _FIXED_SEED if order.seed is None else order.seed
    with _threads(1):
        try:
            proof = prove_with(planted, seed=seed)
        except Exception as error:
            return find_cause(planted.name, error, lambda: train_plainly(build(planted.net, planted.mode, seed)))
    case = _case(f"{planted.net}; {planted.mode}", 1, proof, started)
    report = DeepFault(
        name=planted.name,
        caught=not proof.passed,
        operator=case.operator,
        expected=planted.blame,
        is_right=is_caught(planted, proof),
        reason=proof.reason,
        size=planted.sizes[0] if planted.sizes else None,
        seconds=case.seconds,
    )
    return Checked(case, proof, report)


def prove_faults(order: DeepOrder) -> Iterator[DeepFault | NotRun]:
    """Plant every fault in turn, and yield its outcome."""
    for number, fault in enumerate(PROOF_FAULTS.values()):
        tell(number, len(PROOF_FAULTS), "faults")
        result = prove_fault(order, fault)
        if isinstance(result, Checked):
            assert result.fault is not None
            yield result.fault
        else:
            yield result


def _case(name: str, repetition: int, proof: Proof, started: float) -> DeepCase:
    wrong = proof.wrong[0] if proof.wrong else None
    return DeepCase(
        name=name,
        repetition=repetition,
        verdict="pass" if wrong is None else "fail",
        blame=None if wrong is None else "training",
        operator=None if wrong is None else wrong.operator,
        reason=None if wrong is None else wrong.what,
        calls=proof.calls,
        # What was skipped, as a region without a compiler, is not checked.
        checked=proof.checked_products if proof.table else 0.0,
        seconds=round(time.perf_counter() - started, 3),
    )


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
    from lntx.proof.nets import soften

    built = build(net, mode, seed)
    # Without dropout: its random numbers would be made inside the region.
    built.module.eval()
    # Nor with sharp attention and small variances: bounds that pass through a whole region grow there without limit.
    soften(built)
    return built


def _compiled_step(net: Net, backend: Any = "inductor") -> None:
    """Compile a network, and take its loss and its gradients."""
    import torch

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
    return None if importlib.util.find_spec("torch._inductor") else "torch has no compiler"


def sum_up_deep(order: DeepOrder, results: Sequence[Result], *, root: str | Path | None = None) -> DeepCanary:
    """Return one result for all networks, and keep the shares of the bound if all are right."""
    checked = [result for result in results if isinstance(result, Checked)]
    wrong = [result.case for result in checked if result.case.verdict == "fail"]
    not_run, unfinished = by_cause(results)
    rows = _merged(result.proof for result in checked)
    device = device_kind("cuda" if order.device == "cuda" else "cpu")
    versions = _versions()
    usual = None if root is None else _Usual(Store(root), device, versions["kernels"])
    if usual is not None:
        not_run = [case.model_copy(update={"ran_before": case.name in usual.cases}) for case in not_run]
    warnings: tuple[str, ...] = ()
    if usual is not None and checked and not wrong and order.seed is None:
        # Of fixed networks: with other sizes, other shares are usual.
        warnings = usual.compare({result.case.name for result in checked}, rows)
    reason = wrong[0].reason if wrong else reason_without_verdict(len(checked), not_run, unfinished)
    return DeepCanary(
        verdict="fail" if wrong else "pass" if reason is None else None,
        blame=wrong[0].blame if wrong else None,
        operator=wrong[0].operator if wrong else None,
        reason=reason,
        warnings=warnings,
        not_run=tuple(not_run),
        unfinished=tuple(unfinished),
        blind_seed=order.seed,
        repetitions=order.repeat,
        recurrence=_recurrence(order, wrong),
        cases=tuple(result.case for result in checked),
        operators=tuple(rows),
        unchecked={name: row.why for result in checked for name, row in result.proof.unchecked.items()},
        fault=checked[0].fault if checked else None,
        seconds=round(sum(result.case.seconds for result in checked), 3),
        device=device,
        versions=versions,
    )


def _recurrence(order: DeepOrder, wrong: Sequence[DeepCase]) -> Literal["deterministic", "intermittent"] | None:
    """Whether every repetition failed in the same way: the same operators."""
    if not wrong or order.repeat == 1:
        return None
    ways: dict[int, set[tuple[str, str | None]]] = {}
    for case in wrong:
        ways.setdefault(case.repetition, set()).add((case.name if order.seed is None else "", case.operator))
    every = list(ways.values())
    is_always = len(every) == order.repeat and all(way == every[0] for way in every)
    return "deterministic" if is_always else "intermittent"


def _merged(proofs: Iterable[Proof]) -> list[OperatorReport]:
    """Return one row per phase, operator and format, over all proofs."""
    rows: dict[tuple[str, str, str], list[Any]] = {}
    for proof in proofs:
        for row in proof.in_order():
            rows.setdefault((row.phase, row.operator, row.dtype), []).append(row)
    return [
        OperatorReport(
            phase=found[0].phase,
            operator=found[0].operator,
            dtype=found[0].dtype,
            calls=sum(row.calls for row in found),
            elements=sum(row.elements for row in found),
            # JSON has no infinity.
            largest=min(max(row.largest for row in found), 1e300),
            median=min(statistics.median(share for row in found for share in row.shares), 1e300),
            strict=min(max(row.strict for row in found), 1e300),
        )
        for found in rows.values()
    ]


def _versions() -> dict[str, str]:
    import torch

    return {
        "lntx": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "kernels": torch.backends.cpu.get_cpu_capability(),
    }


class _Usual:
    """What earlier canaries on this kind of device kept: the networks that ran, and the shares of the bound."""

    def __init__(self, store: Store, device: str, kernels: str) -> None:
        self._store = store
        self._kind = {"device": device, "kernels": kernels}
        self._key = digest_of(self._kind)
        self._path = store.artifacts / "canary" / f"deep-{self._key[:16]}.json"
        self.cases, _ = self._load()

    def compare(self, cases: set[str], rows: Sequence[OperatorReport]) -> tuple[str, ...]:
        """Return a warning for each operator whose median share is unusual; keep the shares and names of the cases."""
        shares = {"/".join((row.phase, row.operator, row.dtype)): row.median for row in rows}
        try:
            self._store.locks.mkdir(parents=True, exist_ok=True)
            with self._store.lock(f"canary-deep-{self._key}"):
                names, records = self._load()
                if not records and self._path.exists():
                    self._store.set_aside(self._path)
                content = {"cases": sorted(names | cases), "records": [*records, shares][-_KEPT:]}
                write_json(self._path, {**self._kind, **content})
        except OSError as error:
            logger.warning("the shares of this canary are not kept: %s", error)
            return ()
        warnings = []
        for name, share in shares.items():
            usual = [record[name] for record in records if name in record]
            if usual and share > max(_UNUSUAL * statistics.median(usual), _WORTH_TELLING):
                phase, operator, dtype = name.split("/")
                times = share / max(statistics.median(usual), 1e-12)
                warnings.append(
                    f"{operator} ({dtype}, {phase}) takes {share:.2g} of its bound, {times:.0f} times the usual share"
                )
        return tuple(warnings)

    def _load(self) -> tuple[set[str], list[dict[str, float]]]:
        try:
            content = read_json(self._path)
            records = [{str(name): float(share) for name, share in row.items()} for row in content["records"]]
            return {str(name) for name in content["cases"]}, records
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return set(), []
