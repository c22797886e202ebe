"""The command `doctor`: what this machine and its packages are, and what is wrong with them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from flows.cli.app import Flat, print_json
from flows.cli.options import Common
from flows.cli.printing import print_table, say
from flows.server.home import Home
from flows.server.settings import BUSY_RUNS, POSTGRESQL, is_healthy, runs_of_last_hour
from lntx.base.errors import ServerUnreachable
from lntx.doctor import Finding, examine
from lntx.store.leases import killed_flows
from lntx.store.store import Store

_PROBLEM = 1


def doctor(*, common: Annotated[Common, Flat] = Common()) -> int:
    """Look at versions, devices, threads, BLAS, server, disk, locks, clock and environment; name what is wrong.

    Each problem has a cure. Exit code 1 if there is a problem.
    """
    findings = [*examine(common.folder), *_server(common.folder)]
    problems = [finding for finding in findings if finding.state == "problem"]
    if common.json:
        print_json({"findings": [finding.model_dump() for finding in findings], "problems": len(problems)})
        return _PROBLEM if problems else 0
    marks = {"ok": "", "note": "note", "problem": "PROBLEM"}
    print_table([["", "", ""], *([finding.name, marks[finding.state], finding.said] for finding in findings)][1:])
    say()
    for finding in findings:
        if finding.cure is not None:
            say(f"{finding.name}: {finding.cure}")
    notes = sum(finding.state == "note" for finding in findings)
    fine = len(findings) - len(problems) - notes
    say(f"problems: {len(problems)}, notes: {notes}, as they should be: {fine}")
    return _PROBLEM if problems else 0


def _killed(root: Path) -> Iterator[Finding]:
    """Mark the runs of killed processes as crashed."""
    from prefect.client.orchestration import get_client

    from flows.client.connection import connected
    from flows.killed import settle_killed

    with connected(root, meanwhile=lambda: None):
        count = asyncio.run(settle_killed(root, get_client))
    if count:
        yield Finding(name="killed runs", state="ok", said=f"{count} marked as crashed")


def _server(root: Path) -> Iterator[Finding]:
    url = os.environ.get("PREFECT_API_URL")
    home = Home(root)
    runs = runs_of_last_hour(root)
    if runs > BUSY_RUNS:
        message = f"{runs:,} runs began in the last hour: beyond {BUSY_RUNS:,}, PostgreSQL is the safer database"
        yield Finding(name="load", state="note", said=message, cure=POSTGRESQL)
    own = home.running() if home.folder.is_dir() else None
    if url is not None:
        # Imported here: it imports Prefect.
        from flows.client.connection import check

        try:
            check(url)
            yield Finding(name="Prefect server", state="ok", said=f"{url} answers")
            yield from _killed(root)
        except ServerUnreachable as error:
            yield Finding(name="Prefect server", state="problem", said=str(error), cure="unset PREFECT_API_URL")
    elif own is None:
        yield Finding(name="Prefect server", state="ok", said="none is up for this root: a run starts its own")
        count = sum(1 for _ in killed_flows(Store(root).locks))
        if count:
            yield Finding(
                name="killed runs",
                state="note",
                said=f"{count}, which Prefect shows as running",
                cure="lntx run (it marks them as crashed)",
            )
    elif is_healthy(own.api_url):
        yield Finding(name="Prefect server", state="ok", said=f"{own.api_url} answers")
        yield from _killed(root)
        count = home.dropped_events()
        if count:
            message = f"the server has dropped {count}: it had more to do than its database can write"
            yield Finding(name="events", state="note", said=message, cure=POSTGRESQL)
    else:
        message = f"{own.api_url} does not answer"
        yield Finding(name="Prefect server", state="problem", said=message, cure="lntx down && lntx up")
