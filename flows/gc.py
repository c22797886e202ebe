"""Garbage collection as a Prefect flow, for a schedule."""

import logging
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import Field

from flows.tasks import root, send_core_logs
from lntx.base.errors import LntxError
from lntx.runs.garbage import collect_garbage
from lntx.store.store import Store


@flow(
    name="lntx-gc",
    description="Free what no kept run needs; the last passing run, pinned and running ones stay whole.",
    flow_run_name="keep {keep} runs, or {older_than_days:g} days",
    persist_result=False,
)
async def clean(
    keep: Annotated[int, Field(strict=True, ge=1, le=10**9)] = 100,
    older_than_days: Annotated[float, Field(strict=True, ge=0, le=36_500)] = 30.0,
) -> State[Any]:
    """Remove old runs and the results that only they need.

    Args:
        keep: Minimum number of runs to keep, the latest ones.
        older_than_days: Age in days up to which every run is kept.
    """
    send_core_logs()
    try:
        store = Store(root())
        store.prepare()
        collection = collect_garbage(store, keep=keep, older_than_s=older_than_days * 86400)
        for reason in collection.held:
            logging.getLogger("lntx").warning("%s", reason)
    except LntxError as error:
        return Failed(name=error.kind, message=str(error), data=error)
    return Completed(
        message=f"{len(collection.removed)} files removed, {collection.freed_bytes:,} bytes freed", data=None
    )
