"""The command `canary`: prove that this stack still trains correctly, and that the proof can fail."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.app import Flat, Local, print_json
from flows.cli.canary_printing import print_canary, print_faults, print_fleet, show_faults
from flows.cli.deep import deep_canary, exit_code, list_deep_faults, try_deep_faults
from flows.cli.options import Common, Where, Whole
from flows.cli.outputs import refuse_output
from flows.engines import is_ray, working
from lntx.canary.levels import Device, Level
from lntx.errors import BadInput, LntxError, WrongAnswer
from lntx.store.store import Store

if TYPE_CHECKING:
    from lntx.canary.order import Order
    from lntx.canary.results import Canary

_EARLIER_JUNIT = b"<?xml version='1.0' encoding='utf-8'?>\n<testsuites>\n  <testsuite name=\"lntx canary\""


def canary(
    *,
    level: Level = 1,
    blind: Annotated[bool, Parameter(negative=())] = False,
    seed: Whole | None = None,
    repeat: Whole = 1,
    inject: str | None = None,
    device: Device = "auto",
    deep: Annotated[bool, Parameter(negative=())] = False,
    compiled: Annotated[bool, Parameter(negative=())] = False,
    processes: Annotated[bool, Parameter(negative=())] = False,
    every_node: Annotated[bool, Parameter(negative=())] = False,
    where: Annotated[Where, Flat] = Where(),
    junit: Path | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    local: Local = False,
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Prove that this stack still trains correctly: everything is computed again and compared with the known answers.

    Everything is done in a temporary root. Exit code 3 if an answer is wrong. With --inject FAULT: 3 if the fault is
    caught, 1 if it is missed.

    Args:
        level: 1: one case, a second plus the imports. 2: several shapes, dtypes, thread counts and formats, half a
            minute. 3: also as many rows as fit in a quarter of the free memory, minutes.
        blind: Draw new random weights, rows and settings, which neither a cache nor a leak can know.
        seed: Draw the blind cases of this seed again.
        repeat: Number of repetitions; they show whether a wrong answer is deterministic or intermittent.
        inject: A fault to plant, to check that it is caught; "list" lists the faults, "all" tries each of them and
            prints a table.
        device: Device to train on; auto: the CPU.
        deep: Check every operator of a training step instead: five networks in six formats, each result within its
            bound for rounding errors; ten seconds.
        compiled: With --deep: check code of torch.compile, too.
        processes: With --deep: check training in two processes, too.
        every_node: With --engine ray: run it on every node of the cluster, and on every GPU, and name the wrong ones.
        junit: JUnit file to write, for a CI system; the file of an earlier canary is replaced.
        force: Replace any other file at --junit.
        local: Run without Prefect.
    """
    if not deep and (compiled or processes):
        raise BadInput(f"--{'compiled' if compiled else 'processes'} belongs to --deep: add it")
    if deep and level != 1:
        raise BadInput(f"--deep has no levels: drop --level {level}")
    where.choose()
    _refuse_engine(every_node, inject=inject, repeat=repeat, deep=deep, junit=junit, device=device)
    if inject == "list":
        return list_deep_faults(common) if deep else _list_faults(common)
    from lntx.canary.faults import find_fault
    from lntx.canary.order import refuse_repeated_fault, settle_order

    order = settle_order(level=level, blind=blind, seed=seed, repeat=repeat, device=device)
    refuse_repeated_fault(inject, repeat)
    if every_node:
        return _every_node(order, common, local=local)
    if junit is not None:
        with contextlib.suppress(OSError):
            junit.parent.mkdir(parents=True, exist_ok=True)
        refuse_output("--junit", junit, Store(common.folder), earlier=_EARLIER_JUNIT, force=force)
    if deep:
        from lntx.canary.deep import settle_deep_order

        asked = settle_deep_order(
            seed=order.seed,
            repeat=repeat,
            device=device,
            compiled=compiled,
            processes=processes,
            inject=None if inject == "all" else inject,
        )
        with _errors_in(junit):
            if inject == "all":
                return try_deep_faults(asked, common, junit)
            return deep_canary(asked, common, local=local, junit=junit)
    if inject == "all":
        return _try_faults(order, junit, common)
    if inject is not None:
        find_fault(inject)
    with _errors_in(junit):
        found = _run(order, inject, common, local=local)
    return _told(found, common, junit)


def _told(found: Canary, common: Common, junit: Path | None) -> int:
    """Print a result, write its JUnit file, and return the exit code."""
    if common.json:
        print_json(found.model_dump(mode="json"))
    else:
        print_canary(found)
    if junit is not None:
        from lntx.canary.junit import write_junit

        write_junit(found, junit)
    return exit_code(found)


@contextlib.contextmanager
def _errors_in(junit: Path | None) -> Iterator[None]:
    """Write an error to the JUnit file, if there is one."""
    try:
        yield
    except Exception as error:
        if junit is not None:
            from lntx.canary.junit import write_error_junit

            write_error_junit(error, junit)
        raise


def _run(order: Order, inject: str | None, common: Common, *, local: bool) -> Canary:
    if local:
        from lntx.canary.faults import find_fault
        from lntx.canary.run import run_canary

        return run_canary(order, root=common.folder, fault=None if inject is None else find_fault(inject))
    from flows.launch import run_canary_flow

    return run_canary_flow(order, inject, common.folder)


def _refuse_engine(
    every_node: bool, *, inject: str | None, repeat: int, deep: bool, junit: Path | None, device: Device
) -> None:
    """Raise BadInput for what a canary on every node cannot do, and for a cluster without it."""
    if not every_node:
        if is_ray():
            raise BadInput("a canary with --engine ray runs on every node: add --every-node")
        return
    if not is_ray():
        raise BadInput("--every-node needs a cluster: add --engine ray")
    given = {"--inject": inject, "--repeat": repeat > 1, "--deep": deep, "--junit": junit, "--device": device != "auto"}
    for option in (name for name, is_given in given.items() if is_given):
        raise BadInput(f"{option} does not go with --every-node: drop one of them")


def _every_node(order: Order, common: Common, *, local: bool) -> int:
    root = common.folder.absolute()
    if local:
        from lntx.canary.fleet import run_on_every_node

        with working(root) as cluster:
            assert cluster is not None
            found = run_on_every_node(cluster, order)
    else:
        from flows.launch import run_fleet_flow

        found = run_fleet_flow(order, root)
    if common.json:
        print_json(found.model_dump(mode="json"))
    else:
        print_fleet(found)
    return WrongAnswer.exit_code if found.verdict == "fail" else LntxError.exit_code if found.verdict is None else 0


def _list_faults(common: Common) -> int:
    from lntx.canary.faults import FAULTS

    if common.json:
        rows = [
            {"name": fault.name, "blame": fault.blame, "limit": fault.limit, "what": fault.what}
            for fault in FAULTS.values()
        ]
        print_json({"faults": rows})
    else:
        print_faults([*FAULTS.values()])
    return 0


def _try_faults(order: Order, junit: Path | None, common: Common) -> int:
    """Plant every fault, one after the other, in this process."""
    from lntx.canary.not_run import NotRun, by_cause
    from lntx.canary.run import run_faults

    with _without_log():
        results = [*run_faults(order)]
    faults = [result for result in results if not isinstance(result, NotRun)]
    not_run, unfinished = by_cause(results)
    if junit is not None:
        from lntx.canary.junit import write_faults_junit

        write_faults_junit(faults, junit, not_run, unfinished)
    return show_faults(faults, not_run, unfinished, common)


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Silence the log of the core in the block: wrong answers are expected there."""
    core = logging.getLogger("lntx")
    level = core.level
    core.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        core.setLevel(level)
