"""Mark the flow runs of killed processes as crashed: a server would show them as running for ever.

Each flow run holds a marker in its root, which the operating system unlocks when its process ends. The next run, the
next `lntx up` and `lntx doctor` look for markers that nothing holds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Crashed

from flows.tasks import root
from lntx.store import leases
from lntx.store.store import Store


@contextlib.contextmanager
def marked() -> Iterator[None]:
    """Hold the marker of this flow run during the block."""
    run_id = flow_run.get_id()
    if run_id is None:
        yield
        return
    store = Store(root())
    store.prepare()
    with leases.flow_running(store.locks, run_id):
        yield


async def settle_killed(folder: Path, connect: Callable[[], AbstractAsyncContextManager[PrefectClient]]) -> int:
    """Mark the flow runs of killed processes as crashed, and return their number.

    folder: the root. connect: opens a client; it is called only if there are such runs. A marker of a run that this
    server does not know stays: the run may be another server's.
    """
    locks, count = Store(folder).locks, 0
    killed = [*leases.killed_flows(locks)]
    if not killed:
        return 0
    async with connect() as client:
        for run_id in killed:
            try:
                state = (await client.read_flow_run(UUID(run_id))).state
            except ObjectNotFound:
                continue
            if state is not None and not state.is_final():
                await client.set_flow_run_state(UUID(run_id), Crashed(message="its process was killed"), force=True)
                count += 1
            leases.forget_flow(locks, run_id)
    return count
