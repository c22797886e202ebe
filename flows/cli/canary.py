"""The command `canary`: prove that this stack still trains correctly, and that the proof can fail."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.cli.app import Flat, Local, print_result
from flows.cli.options import Common, Where, Whole
from flows.cli.outputs import refuse_metrics, refuse_output, write_metrics
from flows.cli.printing import print_page
from flows.engines import is_ray, working
from lntx.base.errors import BadInput, LntxError, WrongAnswer
from lntx.base.files import write_whole
from lntx.canary.suite.options import CanaryOptions, Device, Level, settle_options
from lntx.config.schema import Section
from lntx.store.store import Store

if TYPE_CHECKING:
    from lntx.canary.suite.results import Canary
    from lntx.cluster.nodes import NodesReport
    from lntx.report.page import Page

_EARLIER_JUNIT = b'<?xml version="1.0" encoding="utf-8"?>\n<testsuites>\n\t<testsuite name="lntx canary"'


def canary(
    *,
    deep: Annotated[bool, Parameter(negative=())] = False,
    level: Level = 1,
    blind: Annotated[bool, Parameter(negative=())] = False,
    seed: Whole | None = None,
    repeat: Whole = 1,
    compiled: Annotated[bool, Parameter(negative=())] = False,
    processes: Annotated[bool, Parameter(negative=())] = False,
    inject: str | None = None,
    device: Device = "auto",
    every_node: Annotated[bool, Parameter(negative=())] = False,
    where: Annotated[Where, Flat] = Where(),
    junit: Path | None = None,
    html: Path | None = None,
    prom: Path | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
    local: Local = False,
    common: Annotated[Common, Flat] = Common(),
) -> int:
    """Prove that this stack still trains correctly: everything is computed again and compared with the known answers.

    Everything is done in a temporary root. Exit code 3 if an answer is wrong. With --inject FAULT: 3 if the fault is
    caught, 1 if it is missed.

    Args:
        deep: Check every operator of a training step instead: five networks in six formats, each result within its
            bound for rounding errors; half a minute.
        level: 1: one case, a second plus the imports. 2: several shapes, dtypes, thread counts and formats, half a
            minute. 3: also as many rows as fit in a quarter of the free memory, minutes.
        blind: Draw new random weights, rows and settings, which neither a cache nor a leak can know.
        seed: Draw the blind cases of this seed again.
        repeat: Number of repetitions; they show whether a wrong answer is deterministic or intermittent.
        compiled: With --deep: check code of torch.compile, too.
        processes: With --deep: check training in two processes, too.
        inject: A fault to plant, to check that it is caught; "list" lists the faults, "all" tries each of them and
            prints a table.
        device: Device to train on; auto: the CPU.
        every_node: With --engine ray: run it on every node of the cluster, and on every GPU, and name the wrong ones.
        junit: JUnit file to write, for a CI system; the file of an earlier canary is replaced.
        html: File to write the result to, as a page that opens in any browser, without a network.
        prom: File of metrics to write, for the textfile collector of node_exporter (NAME.prom).
        force: Replace any other file at --junit, and an existing one at --html.
        local: Run without Prefect.
    """
    suite = {"deep": deep, "level": level, "compiled": compiled, "processes": processes}
    options = settle_options(blind=blind, seed=seed, repeat=repeat, inject=inject, device=device, **suite)
    where.choose()
    _refuse_engine(options, every_node, junit)
    refuse_metrics(prom, common)
    if inject == "list":
        return _list_faults(options, common)
    if html is not None:
        if inject == "all":
            raise BadInput("--html does not go with --inject all, which prints a table: drop one of them")
        refuse_output("--html", html, Store(common.folder), force=force)
    if every_node:
        return _run_on_nodes(options, common, local=local, html=html, prom=prom)
    if junit is not None:
        with contextlib.suppress(OSError):
            junit.parent.mkdir(parents=True, exist_ok=True)
        refuse_output("--junit", junit, Store(common.folder), earlier=_EARLIER_JUNIT, force=force)
    with _errors_in(junit):
        if inject == "all":
            return _try_faults(options.model_copy(update={"inject": None}), junit, common)
        result = _run(options, common, local=local)
    write_metrics(result, prom)
    return _report(result, junit, html, common)


def exit_code(canary: Canary | NodesReport) -> int:
    """Return the exit code of a canary: 0, 3 for a wrong answer, 1 for a missed fault or no verdict."""
    if canary.verdict == "fail":
        return WrongAnswer.exit_code
    is_missed = getattr(canary, "fault", None) is not None
    return LntxError.exit_code if canary.verdict is None or is_missed else 0


def _run(options: CanaryOptions, common: Common, *, local: bool) -> Canary:
    from lntx.canary.run import open_suite, run_canary

    # Bad options are refused before a server starts.
    open_suite(options, root=common.folder)
    if local:
        return run_canary(options, root=common.folder)
    from flows.client.launch import run_canary_flow

    return run_canary_flow(options, common.folder)


def _report(result: Canary, junit: Path | None, html: Path | None, common: Common) -> int:
    """Print a result, write its files, and return the exit code."""
    from lntx.canary.page import canary_page

    page = canary_page(result)
    page = dataclasses.replace(page, headline=page.headline + _next_step(result))
    print_result(common, result, lambda: print_page(page))
    _write_html(canary_page(result), html)
    if junit is not None:
        from lntx.canary.junit import write_junit

        write_junit(result, junit)
    return exit_code(result)


def _write_html(page: Page, path: Path | None) -> None:
    if path is not None:
        # Imported here: it draws, and few canaries need it.
        from lntx.report.page import to_html

        write_whole(path, to_html(page))


def _next_step(result: Canary) -> str:
    """Return the next command after a canary that passed."""
    if result.verdict != "pass" or result.fault is not None:
        return ""
    if result.deep:
        return "; next: lntx canary --deep --blind draws others" if result.blind_seed is None else ""
    if result.blind_seed is None and result.level < 3:
        return f"; next: lntx canary --level {result.level + 1} tries more"
    return "; next: lntx canary --inject all shows that it can fail"


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


def _refuse_engine(options: CanaryOptions, every_node: bool, junit: Path | None) -> None:
    """Raise BadInput for what a canary on every node cannot do, and for a cluster without it."""
    if not every_node:
        if is_ray():
            raise BadInput("a canary with --engine ray runs on every node: add --every-node")
        return
    if not is_ray():
        raise BadInput("--every-node needs a cluster: add --engine ray")
    excluded = {
        "--inject": options.inject,
        "--repeat": options.repeat > 1,
        "--compiled": options.compiled,
        "--processes": options.processes,
        "--junit": junit,
        "--device": options.device != "auto",
    }
    for option in (name for name, is_set in excluded.items() if is_set):
        raise BadInput(f"{option} does not go with --every-node: drop one of them")


def _run_on_nodes(options: CanaryOptions, common: Common, *, local: bool, html: Path | None, prom: Path | None) -> int:
    root = common.folder.absolute()
    if local:
        from lntx.cluster.nodes import run_on_every_node

        with working(root) as cluster:
            assert cluster is not None
            result = run_on_every_node(cluster, options)
    else:
        from flows.client.launch import run_nodes_flow

        result = run_nodes_flow(options, root)
    from lntx.cluster.nodes import nodes_page

    print_result(common, result, lambda: print_page(nodes_page(result)))
    _write_html(nodes_page(result), html)
    write_metrics(result, prom)
    return exit_code(result)


def _list_faults(options: CanaryOptions, common: Common) -> int:
    from lntx.canary.page import fault_list
    from lntx.canary.run import find_suite

    faults = [*find_suite(options.deep).faults.values()]
    keys = {"name": "name", "blame": "blame", "limit": "limit", "what": "sentence"}
    listed = {"faults": [{key: getattr(fault, name) for key, name in keys.items()} for fault in faults]}
    print_result(common, listed, lambda: print_page(fault_list(faults)))
    return 0


def _try_faults(options: CanaryOptions, junit: Path | None, common: Common) -> int:
    """Plant every fault in turn, in this process; return 0 if each is caught and blamed on the right part, else 1."""
    from lntx.canary.junit import write_faults_junit
    from lntx.canary.page import count_wrong, faults_page
    from lntx.canary.run import run_faults
    from lntx.canary.suite.not_run import NotRun, by_cause

    with _without_log():
        results = [*run_faults(options)]
    faults = [result for result in results if not isinstance(result, NotRun)]
    not_run, unfinished = by_cause(results)
    if junit is not None:
        write_faults_junit(faults, junit, (*not_run, *unfinished))
    missed, misjudged = count_wrong(faults)
    lists: dict[str, Sequence[Section]] = {"faults": faults, "not_run": not_run, "unfinished": unfinished}
    rows = {name: [row.model_dump(mode="json") for row in lists[name]] for name in lists}
    table = {**rows, "missed": missed, "blamed_wrongly": misjudged}
    print_result(common, table, lambda: print_page(faults_page(faults, (*not_run, *unfinished))))
    return 0 if faults and not (missed or misjudged or unfinished) else LntxError.exit_code


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
