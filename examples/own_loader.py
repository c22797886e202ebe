"""Your loader before the pipeline: rows from a database, a model that is proved, every morning at six.

Run once: python examples/own_loader.py houses.db. Serve it: python examples/own_loader.py houses.db --serve
"""

import contextlib
import sqlite3
import sys
from pathlib import Path

import pandas as pd
from prefect import flow, task

from flows.pipeline import pipeline
from lntx.config.schema import Data, Train

TABLE = Path("houses.parquet")


@task(retries=3, retry_delay_seconds=10)
def load(database: str) -> None:
    """Copy the rows that the model learns from."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        pd.read_sql("SELECT area, rooms, price FROM houses", connection).to_parquet(TABLE)


@flow(name="houses")
async def houses(database: str) -> None:
    """Load, then train and prove; a wrong answer fails this flow too."""
    load(database)
    await pipeline(data=Data(path=str(TABLE), target="price"), train=Train(bias=True))


if __name__ == "__main__":
    if "--serve" in sys.argv:
        houses.serve(name="houses", cron="0 6 * * *", parameters={"database": sys.argv[1]})
    else:
        import asyncio

        asyncio.run(houses(sys.argv[1]))
