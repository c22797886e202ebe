"""The deep canary: every operator of a training step of five networks against the truth. Nothing is published.

Keeps the usual share of the bound of each operator per kind of device under `artifacts/canary/`. Knows no orchestrator.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import secrets
import shutil
import statistics
import sysconfig
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from lntx import __version__
from lntx.canary.drift import device_kind
from lntx.canary.levels import Device
from lntx.config.loading import explain
from lntx.config.schema import MAX_SEED, Section
from lntx.errors import BadInput
from lntx.files import read_json, write_json
from lntx.progress import tell
from lntx.proof.faults import PROOF_FAULTS, ProofFault, find_proof_fault, is_caught, prove_with
from lntx.proof.nets import build, loss_of, pairs, prove_net
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


class DeepCanary(Section):
    """The outcome of a deep canary."""

    verdict: Literal["pass", "fail"]
    """Whether everything was right."""

    blame: Blame | None
    """The part that is wrong: training."""

    operator: str | None
    """The operator, the step or the memory that is wrong first."""

    reason: str | None
    """What is wrong first: phase, operator, element, value, true value, bound."""

    warnings: tuple[str, ...]
    """Operators whose share of the bound is unusual; the verdict does not depend on it."""

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
    done: list[Checked] = []
    for piece, repetition in work:
        done.append(prove_piece(order, piece, repetition))
        tell(len(done), len(work), "networks")
    return sum_up_deep(order, done, root=root)


class Checked:
    """A piece that was checked: its case and its proof."""

    def __init__(self, case: DeepCase, proof: Proof, fault: DeepFault | None = None) -> None:
        self.case = case
        self.proof = proof
        self.fault = fault


def prove_piece(order: DeepOrder, piece: Piece, repetition: int = 1) -> Checked:
    """Check one network in one format."""
    how, net, mode = piece
    base = _FIXED_SEED if order.seed is None else order.seed
    number = pairs().index((net, mode))
    # Fixed networks are the same in each repetition; blind ones are drawn again.
    entropy = (base, number) if order.seed is None else (base, repetition, number)
    seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
    logger.info("deep canary: %s, %s, %s", how, net, mode)
    started = time.perf_counter()
    device = "cuda" if order.device == "cuda" else "cpu"
    # Two threads wait for each other longer than such small networks compute.
    with _threads(1 if order.seed is None else 1 + seed % 2):
        if how == "processes":
            from lntx.proof.processes import prove_processes

            proof = prove_processes(net, mode, seed=seed)
        elif how == "compiled":
            proof = _prove_compiled(net, mode, seed)
        else:
            proof = prove_net(build(net, mode, seed, device), seed=seed)
    name = f"{net}; {mode}" + ("" if how == "eager" else f"; {'two ' if how == 'processes' else ''}{how}")
    return Checked(_case(name, repetition, proof, started), proof)


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


def prove_fault(order: DeepOrder, fault: ProofFault | None = None) -> Checked:
    """Plant a fault in its network, and check whether it is seen."""
    planted = fault or find_proof_fault(order.inject or "")
    started = time.perf_counter()
    with _threads(1):
        proof = prove_with(planted, seed=_FIXED_SEED if order.seed is None else order.seed)
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


def prove_faults(order: DeepOrder) -> Iterator[DeepFault]:
    """Plant every fault in turn, and yield its outcome."""
    for number, fault in enumerate(PROOF_FAULTS.values()):
        tell(number, len(PROOF_FAULTS), "faults")
        found = prove_fault(order, fault).fault
        assert found is not None
        yield found


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
    import dataclasses

    import torch

    from lntx.proof.compiled import checking_backend
    from lntx.proof.nets import soften

    built = build(net, mode, seed)
    # Without dropout: its random numbers would be made inside the region.
    built.module.eval()
    # Nor with sharp attention and small variances: bounds that pass through a whole region grow there without limit.
    soften(built)
    torch._dynamo.reset()
    module: Any = torch.compile(built.module, backend=checking_backend(proof))
    loss, _ = loss_of(dataclasses.replace(built, module=module))
    loss.backward()
    return proof


def no_compiler() -> str | None:
    """Return what torch.compile lacks on this machine; None if it lacks nothing."""
    if shutil.which("g++") is None and shutil.which("c++") is None and shutil.which("clang++") is None:
        return "no C++ compiler is installed: apt-get install g++"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        return f"{header.name} is not installed: apt-get install python3-dev"
    return None if importlib.util.find_spec("torch._inductor") else "torch has no compiler"


def sum_up_deep(order: DeepOrder, done: Sequence[Checked], *, root: str | Path | None = None) -> DeepCanary:
    """Return one result for all networks, and keep the shares of the bound if all are right."""
    wrong = [one for one in done if one.case.verdict == "fail"]
    rows = _merged(one.proof for one in done)
    unchecked = {name: one.why for found in done for name, one in found.proof.unchecked.items()}
    device = device_kind("cuda" if order.device == "cuda" else "cpu")
    versions = _versions()
    warnings: tuple[str, ...] = ()
    if root is not None and not wrong and order.seed is None:
        warnings = _compare_with_usual(Store(root), device, versions, rows)
    return DeepCanary(
        verdict="fail" if wrong else "pass",
        blame=wrong[0].case.blame if wrong else None,
        operator=wrong[0].case.operator if wrong else None,
        reason=wrong[0].case.reason if wrong else None,
        warnings=warnings,
        blind_seed=order.seed,
        repetitions=order.repeat,
        recurrence=_recurrence(order, [one.case for one in wrong]),
        cases=tuple(one.case for one in done),
        operators=tuple(rows),
        unchecked=unchecked,
        fault=done[0].fault if done else None,
        seconds=round(sum(one.case.seconds for one in done), 3),
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


def _compare_with_usual(
    store: Store, device: str, versions: dict[str, str], rows: Sequence[OperatorReport]
) -> tuple[str, ...]:
    """Return a warning for each operator whose median share is unusual, and keep the shares.

    Of fixed networks: with other sizes, other shares are usual.
    """
    kind = {"device": device, "kernels": versions["kernels"]}
    key = digest_of(kind)
    path = store.artifacts / "canary" / f"deep-{key[:16]}.json"
    now = {"/".join((row.phase, row.operator, row.dtype)): row.median for row in rows}
    try:
        store.locks.mkdir(parents=True, exist_ok=True)
        with store.lock(f"canary-deep-{key}"):
            records = _load(path)
            if not records and path.exists():
                store.set_aside(path)
            write_json(path, {**kind, "records": [*records, now][-_KEPT:]})
    except OSError as error:
        logger.warning("the shares of this canary are not kept: %s", error)
        return ()
    told = []
    for name, share in now.items():
        usual = [record[name] for record in records if name in record]
        if usual and share > max(_UNUSUAL * statistics.median(usual), _WORTH_TELLING):
            phase, operator, dtype = name.split("/")
            times = share / max(statistics.median(usual), 1e-12)
            told.append(
                f"{operator} ({dtype}, {phase}) takes {share:.2g} of its bound, {times:.0f} times the usual share"
            )
    return tuple(told)


def _load(path: Path) -> list[dict[str, float]]:
    try:
        records = read_json(path)["records"]
        return [{str(name): float(share) for name, share in one.items()} for one in records]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
