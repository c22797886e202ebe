"""Your publisher after the pipeline: a model that passed is copied to where it is served, under its digest.

Run: python examples/own_publisher.py /srv/models
"""

import asyncio
import shutil
import sys
from pathlib import Path

from prefect import flow, task

from flows.pipeline import pipeline
from flows.tasks import root
from lntx.config.schema import Data, Export
from lntx.runs.run import Run


@task(retries=3, retry_delay_seconds=10)
def publish(run: Run, folder: str) -> str:
    """Copy the export, then let `current` point to it: readers see the old model or the new one."""
    source = root() / run.exports["safetensors"]
    target = Path(folder) / source.name
    shutil.copyfile(source, target)
    link = target.with_name("next")
    link.symlink_to(target.name)
    link.replace(target.with_name("current"))
    return str(target)


@flow(name="published")
async def published(folder: str, data: Data = Data(noise=0.5)) -> str:
    """Train and prove; publish only what passed: a wrong answer raises before the copy."""
    return publish(await pipeline(data=data, export=Export(formats=("safetensors",))), folder)


if __name__ == "__main__":
    print(asyncio.run(published(sys.argv[1])))
