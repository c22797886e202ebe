"""Run the flow from the command line and bring its outcome back. Importing this imports Prefect."""

from __future__ import annotations

import asyncio

from flows.options import Common, Range
from flows.pipeline import pipeline as pipeline_flow
from flows.server import connected
from lntx.config import Pipeline
from lntx.errors import LntxError
from lntx.runs import Run
from lntx.store import Store


def run_flow(pipeline: Pipeline, range_: Range, common: Common) -> Run:
    """Run the flow on the server in reach, else on an embedded one.

    Raises: LntxError: what a stage or the server refused. Another exception: what a stage died of.
    """
    root = common.folder
    Store(root).prepare()
    with connected(root) as stays:
        came = asyncio.run(_outcome(pipeline, range_, root=str(root)))
    if isinstance(came, BaseException):
        raise came
    if not isinstance(came, Run):
        raise LntxError(f"the flow run ended without a verdict: {came!r}")
    return came if stays else came.model_copy(update={"flow_run_url": None})


async def _outcome(pipeline: Pipeline, range_: Range, *, root: str) -> object:
    state = await pipeline_flow(
        data=pipeline.data,
        train=pipeline.train,
        evaluate=pipeline.evaluate,
        export=pipeline.export,
        from_stage=range_.from_,
        until=range_.until,
        only=range_.only,
        force=range_.forced,
        root=root,
        return_state=True,
    )
    return await state.aresult(raise_on_failure=False)
