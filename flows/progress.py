"""Show the progress of a long stage as a progress artifact in Prefect's UI."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from uuid import UUID

from prefect.artifacts import update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.runtime import flow_run

from lntx.base.progress import on_progress
from lntx.base.stages import Stage

logger = logging.getLogger("lntx.progress")

_LONG_S = 10.0
_EVERY_S = 5.0


@contextlib.contextmanager
def show_progress(stage: Stage) -> Iterator[None]:
    """Show the progress of a stage while the block runs, if it takes longer than a few seconds."""
    bar = _Bar(stage)
    is_done = False
    try:
        with on_progress(bar.hear):
            yield
        is_done = True
    finally:
        bar.end(is_done=is_done)


class _Bar:
    """One progress artifact, created at the first update that is shown."""

    def __init__(self, stage: Stage) -> None:
        self._key = f"lntx-{stage}-progress"
        self._artifact: UUID | None = None
        self._next = time.monotonic() + _LONG_S
        self._last = (0, 1, "")

    def hear(self, count: int, total: int, what: str) -> None:
        self._last = (count, total, what)
        if time.monotonic() >= self._next:
            self._show(100 * count / total, f"{what}: {count:,} of {total:,}")
            self._next = time.monotonic() + _EVERY_S

    def end(self, *, is_done: bool) -> None:
        if self._artifact is not None:
            count, total, what = self._last
            if is_done:
                self._show(100.0, f"done: {count:,} of {total:,} ({what})")
            else:
                self._show(100 * count / total, f"failed at {what}: {count:,} of {total:,}")

    def _show(self, percent: float, what: str) -> None:
        try:
            if self._artifact is None:
                # Of the flow run: one of the task run would lie over the task's bar.
                artifact = ArtifactCreate(
                    type="progress",
                    key=self._key,
                    description=what,
                    data=percent,
                    flow_run_id=UUID(flow_run.get_id()),
                )
                self._artifact = get_client(sync_client=True).create_artifact(artifact).id
            else:
                update_progress_artifact(self._artifact, percent, description=what)
        except Exception as error:
            # A stage must not fail because its progress cannot be shown.
            logger.warning("the progress of %s cannot be shown: %s", self._key, error)
