"""Your check between two stages: a model is exported only if its weights have the signs that you expect.

Run: python own_check.py
"""

import asyncio

from prefect import flow, task

from flows.pipeline import pipeline
from lntx.config.schema import Data
from lntx.runs.run import Run


@task
def expect_signs(run: Run) -> None:
    """Refuse a model in which more of something lowers the price."""
    weights = dict(zip(run.features or (), run.learned_weights or (), strict=True))
    negative = {name: weight for name, weight in weights.items() if weight < 0}
    if negative:
        raise ValueError(f"weights that must not be negative: {negative}")


@flow(name="checked")
async def checked(data: Data = Data(weights=(3.7, 1.2), noise=0.5)) -> None:
    """Train and prove, check, export: after a wrong answer or a refusal, which both raise, nothing is exported."""
    expect_signs(await pipeline(data=data, until="evaluate"))
    # The stages before come from the cache, with their bits.
    await pipeline(data=data, from_stage="export")


if __name__ == "__main__":
    asyncio.run(checked())
