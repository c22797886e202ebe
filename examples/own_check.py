"""Your check between the stages: the model is exported only if its weights have the signs that you expect.

Run: python examples/own_check.py
"""

import asyncio

from prefect import flow, task

from flows.tasks import TASKS, root
from lntx.config.schema import Data, Pipeline
from lntx.pipeline.conclude import conclude
from lntx.pipeline.outcome import Outcome, Request
from lntx.pipeline.runner import begin
from lntx.runs.run import Run
from lntx.store.leases import running


@task
def has_expected_signs(trained: Outcome, request: Request) -> None:
    """Raise an error if a weight is negative: in this business, more of anything costs more."""
    weights = trained.fit(begin(request)).weights
    if min(weights) < 0:
        raise ValueError(f"a weight is negative: {weights}")


@flow(name="checked")
async def checked(data: Data = Data(weights=(3.7, 1.2), noise=0.5)) -> Run:
    """Run the four stages as tasks, with a check before the export."""
    request = Request(pipeline=Pipeline(data=data), root=root())
    store, outcomes = begin(request), {}
    with running(store.locks):
        for stage, stage_task in TASKS.items():
            if stage == "export":
                has_expected_signs(outcomes["train"], request)
            outcomes[stage] = stage_task(request, outcomes)
        return conclude(store, request, outcomes)


if __name__ == "__main__":
    print(asyncio.run(checked()).verdict)
