"""Check the schedules that were asked for before the server is started."""

from __future__ import annotations

import asyncio
import datetime
import itertools
from typing import TYPE_CHECKING

from flows.server.settings import MAX_HOURS
from lntx.base.errors import BadInput
from lntx.base.text import quoted

if TYPE_CHECKING:
    from flows.server.settings import ServerOptions

_FIELDS = 5


def check_schedules(options: ServerOptions) -> None:
    """Refuse schedules that Prefect would refuse only after the server has started.

    Raises: BadInput.
    """
    crons = (("--cron", options.cron), ("--canary-cron", options.canary_cron), ("--deep-cron", options.deep_cron))
    if options.timezone == "UTC" and all(cron is None for _, cron in crons):
        return
    # Imported here: it takes as long as all else that this command imports.
    from prefect.client.schemas.schedules import CronSchedule

    for option, cron in crons:
        if cron is None:
            continue
        try:
            CronSchedule(cron=cron)
            is_one = cron.startswith("@") or len(cron.split()) == _FIELDS
        except ValueError:
            is_one = False
        if not is_one:
            raise BadInput(f'{option} must be five fields such as "0 6 * * *", got {quoted(cron)}')
        if not _dates(cron, "UTC", 1):
            raise BadInput(f"{option} {quoted(cron)} never matches a date")
    try:
        if not options.timezone:
            raise ValueError
        CronSchedule(cron="0 6 * * *", timezone=options.timezone)
    except ValueError:
        raise BadInput(f"--timezone must be a name such as Europe/Berlin, got {quoted(options.timezone)}") from None


def canary_alert_hours(options: ServerOptions) -> float:
    """Hours without a passing canary that are too many: six, or room for one that fails between two that pass."""
    if options.canary_cron is None:
        return _within(2 * (options.canary_interval_s or 0) / 3600)
    dates = _dates(options.canary_cron, options.timezone, 50)
    gaps = [after - before for before, after in itertools.pairwise(dates)]
    return _within(2 * max(gaps, default=datetime.timedelta()).total_seconds() / 3600)


def _within(hours: float) -> float:
    return min(max(6.0, hours), MAX_HOURS)


def _dates(cron: str, timezone: str, count: int) -> list[datetime.datetime]:
    """Return the next times of a cron schedule; an empty list for the 30th of February."""
    from prefect.server.schemas.schedules import CronSchedule

    try:
        return [*asyncio.run(CronSchedule(cron=cron, timezone=timezone).get_dates(n=count))]
    except ValueError:
        return []
