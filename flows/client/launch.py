"""Run flows from the command line and return their results. Importing this module imports Prefect."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import tags
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from flows.client.connection import connected, refusal
from flows.killed import settle_killed
from flows.pipeline import pipeline as pipeline_flow
from lntx.base.errors import LntxError, WrongAnswer
from lntx.base.stages import STAGES, Stage
from lntx.base.text import quoted
from lntx.config.schema import Pipeline
from lntx.pipeline.table import import_ahead
from lntx.runs.run import Run
from lntx.store.store import Store

if TYPE_CHECKING:
    from lntx.canary.suite.options import CanaryOptions
    from lntx.canary.suite.results import Canary
    from lntx.cluster.nodes import NodesReport

_TOLD_ONCE = ("Finished in state", "Task run failed with state", "Crash detected! Execution was aborted")

_R = TypeVar("_R", "Run", "Canary", "NodesReport")


def run_flow(
    pipeline: Pipeline,
    *,
    root: Path,
    from_stage: Stage | None,
    until: Stage | None,
    only: Stage | None,
    force: list[str],
    work: Sequence[Stage],
) -> Run:
    """Run the pipeline's flow on the available server, else on an embedded one.

    work: the stages that are expected to compute: what they import is imported while an embedded server starts.

    Raises: LntxError: a stage or the server refused the run. Any other exception that a stage raised.
    """
    with tags("lntx"):
        start = functools.partial(
            pipeline_flow,
            data=pipeline.data,
            train=pipeline.train,
            evaluate=pipeline.evaluate,
            export=pipeline.export,
            from_stage=from_stage or STAGES[0],
            until=until or STAGES[-1],
            only=only or "all",
            force=force,
            return_state=True,
        )
        return _bring_back(start, Run, root, meanwhile=lambda: import_ahead(work))


def run_canary_flow(options: CanaryOptions, root: Path) -> Canary:
    """Run the canary's flow on the available server, else on an embedded one.

    Raises: the same errors as `run_flow`.
    """
    # Imported here: it imports torch, which a cached run does not need.
    from flows.canary import INJECTED, TAG
    from flows.canary import canary as canary_flow
    from lntx.canary.suite.results import Canary

    with tags("lntx", TAG, *([INJECTED] if options.inject is not None else [])):
        start = functools.partial(canary_flow, **options.model_dump(), return_state=True)
        return _bring_back(start, Canary, root)


def run_nodes_flow(options: CanaryOptions, root: Path) -> NodesReport:
    """Run a canary on every node of the cluster as a flow on the available server, else on an embedded one.

    Raises: the same errors as `run_flow`.
    """
    from flows.canary import TAG, canary_nodes
    from lntx.cluster.nodes import NodesReport

    with tags("lntx", TAG):
        start = functools.partial(
            canary_nodes, deep=options.deep, level=options.level, seed=options.seed, return_state=True
        )
        return _bring_back(start, NodesReport, root)


def _bring_back(
    start: Callable[[], Awaitable[State[Any]]],
    kind: type[_R],
    root: Path,
    *,
    meanwhile: Callable[[], object] = lambda: None,
) -> _R:
    """Start a flow run and return its result."""
    Store(root).prepare()
    os.environ["LNTX_ROOT"] = str(root.absolute())
    for handler in logging.getLogger().handlers:
        handler.addFilter(_tells_more)
    # The verdict is the last line.
    logging.getLogger("prefect").addFilter(lambda record: not str(record.msg).startswith("Stopping temporary server"))
    with connected(root, meanwhile=meanwhile) as stays:
        try:
            result = asyncio.run(_outcome(start, root))
        except PrefectHTTPStatusError as error:
            raise refusal(error, PREFECT_API_URL.value() or "its address") from None
    if isinstance(result, BaseException):
        raise result
    if not isinstance(result, kind):
        raise LntxError(f"the flow run ended without a verdict: {quoted(result)}")
    has_url = "flow_run_url" in type(result).model_fields
    return result if stays or not has_url else result.model_copy(update={"flow_run_url": None})


def _tells_more(record: logging.LogRecord) -> bool:
    """Whether a log line is not the failure of a run or a task, which the command itself reports once."""
    is_engine = record.name in ("prefect.flow_runs", "prefect.task_runs")
    says_failed = record.getMessage().startswith(_TOLD_ONCE)
    return not (is_engine and says_failed and record.levelno >= logging.ERROR)


async def _outcome(start: Callable[[], Awaitable[State[Any]]], root: Path) -> object:
    await settle_killed(root, get_client)
    result = await (await start()).aresult(raise_on_failure=False)
    return result.result if isinstance(result, WrongAnswer) else result
