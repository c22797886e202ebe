"""Your loader before the pipeline: rows from a database, and a model of them that is proved.

Run: python own_loader.py houses.db    Every morning at six: python own_loader.py houses.db --serve
"""

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from prefect import flow, task

from flows.pipeline import pipeline
from flows.tasks import root
from lntx.config.schema import Data


@task(retries=3, retry_delay_seconds=10)
def load(database: str) -> str:
    """Copy the rows to a table, which is replaced when it is complete; equal rows in one order are an equal file."""
    query = "SELECT area, rooms, price FROM houses ORDER BY id"
    rows = pd.read_sql(query, f"sqlite:///file:{database}?mode=ro&uri=true")
    with TemporaryDirectory(dir=root()) as unfinished:
        table = Path(unfinished, "houses.parquet")
        rows.to_parquet(table)
        return str(table.replace(root() / table.name))


@flow(name="houses")
async def houses(database: str) -> None:
    """Load, then train and prove: a wrong answer raises, so this flow fails too."""
    await pipeline(data=Data(path=load(database), target="price"))


if __name__ == "__main__" and "--serve" in sys.argv:
    houses.serve("houses", cron="0 6 * * *", parameters={"database": sys.argv[1]})
elif __name__ == "__main__":
    asyncio.run(houses(sys.argv[1]))
