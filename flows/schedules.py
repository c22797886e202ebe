"""When scheduled runs are due: checks of what was asked, before a server is up to refuse it."""

from __future__ import annotations

import asyncio
import datetime
import itertools
from typing import TYPE_CHECKING

from lntx.errors import BadInput

if TYPE_CHECKING:
    from flows.settings import ServerOptions

_FIELDS = 5


def check_schedules(options: ServerOptions) -> None:
    """Refuse what Prefect would refuse once the server is up.

    Raises: BadInput.
    """
    from prefect.client.schemas.schedules import CronSchedule

    for option, cron in (("--cron", options.cron), ("--canary-cron", options.canary_cron)):
        if cron is None:
            continue
        try:
            CronSchedule(cron=cron)
            is_one = cron.startswith("@") or len(cron.split()) == _FIELDS
        except ValueError:
            is_one = False
        if not is_one:
            raise BadInput(f'{option} must be five fields such as "0 6 * * *", got {cron!r}')
    try:
        CronSchedule(cron="0 6 * * *", timezone=options.timezone)
    except ValueError:
        raise BadInput(f"--timezone must be a name such as Europe/Berlin, got {options.timezone!r}") from None


def patient_hours(options: ServerOptions) -> float:
    """Hours without a passing canary that are too many: six, or room for one that fails between two that pass."""
    if options.canary_cron is None:
        return max(6.0, 2 * (options.canary_interval_s or 0) / 3600)
    from prefect.server.schemas.schedules import CronSchedule

    dates = asyncio.run(CronSchedule(cron=options.canary_cron, timezone=options.timezone).get_dates(n=50))
    gaps = [after - before for before, after in itertools.pairwise(dates)]
    return max(6.0, 2 * max(gaps, default=datetime.timedelta()).total_seconds() / 3600)
