"""Your publisher after the pipeline: a model that passed is copied to where it is served, and `current` points to it.

Run: python own_publisher.py models
"""

import asyncio
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from prefect import flow, task

from flows.pipeline import pipeline
from flows.tasks import root
from lntx.config.schema import Data
from lntx.runs.run import Run


@task(retries=3, retry_delay_seconds=10)
def publish(run: Run, folder: Path) -> Path:
    """Copy the export by renames alone: readers see the old model or the new one, and a retry starts again."""
    source = root() / run.exports["safetensors"]
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as unfinished:
        copy, link = Path(unfinished, source.name), Path(unfinished, "current")
        shutil.copyfile(source, copy).replace(folder / copy.name)
        link.symlink_to(copy.name)
        return link.replace(folder / link.name)


@flow(name="published")
async def published(folder: Path, data: Data = Data(noise=0.5)) -> Path:
    """Train and prove, then publish: a wrong answer raises before the copy."""
    return publish(await pipeline(data=data), folder)


if __name__ == "__main__":
    print(asyncio.run(published(Path(sys.argv[1]))))
