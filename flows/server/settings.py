"""Environment variables of a hardened Prefect server on loopback and of its clients. Starts nothing."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from flows.folders import served_folders
from flows.server.home import Home
from lntx.config.schema import Section

HOST = "127.0.0.1"

_YEAR_S = 366 * 86400

MAX_HOURS = _YEAR_S / 3600
"""Longest allowed time without a passing canary before the alert, in hours."""

HEARTBEAT_S = 30
"""Interval between heartbeats of a flow run, in seconds."""

SILENT_S = 100
"""A run without a heartbeat for this many seconds counts as dead: three intervals and a margin."""


LAST_WORDS_S = 15.0
"""Seconds that the serving process has to end its runs after it is asked to stop."""


BUSY_RUNS = 1000
"""Number of flow runs in an hour above which PostgreSQL is advised; all that Prefect keeps is in one file of SQLite."""

POSTGRESQL = "lntx down && lntx up --database postgresql+asyncpg://USER:PASSWORD@HOST/NAME"
"""What to do where SQLite is too slow."""


class ServerOptions(Section):
    """Start options of a server."""

    port: int = Field(4200, ge=1, le=65535)
    """Port on loopback."""

    database: str | None = None
    """URL of a PostgreSQL database, postgresql+asyncpg://…; None means SQLite under the root."""

    retention_days: float = Field(90.0, gt=0.05, le=36500)
    """Age in days after which Prefect deletes flow runs and events."""

    cron: str | None = None
    """Cron schedule of the pipeline."""

    interval_s: float | None = Field(None, ge=1, le=_YEAR_S)
    """Interval between runs of the pipeline, in seconds."""

    canary_cron: str | None = None
    """Cron schedule of the canary."""

    canary_interval_s: float | None = Field(3600.0, ge=1, le=_YEAR_S)
    """Interval between runs of the canary, in seconds, if it has no cron schedule."""

    deep_cron: str | None = None
    """Cron schedule of the deep canary; None: it runs on demand."""

    timezone: str = "UTC"
    """Time zone of the cron schedules."""

    keep_runs: int = Field(100, ge=1, le=10**9)
    """Minimum number of runs that the daily garbage collection keeps."""

    keep_days: float = Field(30.0, gt=0, le=36_500)
    """Age in days up to which it keeps every run."""

    webhook: str | None = None
    """URL that alerts are posted to, if any."""

    notify: str | None = None
    """Apprise's address of a service that alerts are sent to, if any."""

    host_names: tuple[str, ...] = ()
    """Names, other than those of loopback, under which a proxy reaches the server."""

    folders: tuple[str, ...] = ()
    """Folders, other than the root, that flows may read tables from."""

    dead_man_hours: float = Field(6.0, gt=0, le=MAX_HOURS)
    """Hours without a passing canary after which an alert is raised."""

    pipeline: dict[str, dict[str, object]] = Field(default_factory=dict)
    """Sections of the configuration that are the defaults of the deployments."""

    @property
    def schedules_canary(self) -> bool:
        """Whether the canary has a schedule."""
        return self.canary_cron is not None or self.canary_interval_s is not None

    @property
    def url(self) -> str:
        """URL of the UI."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """URL of the API."""
        return f"{self.url}/api"


def client_environment(home: Home, options: ServerOptions) -> dict[str, str]:
    """Return the variables for clients of the server, including flow runs."""
    return {
        **_without_prefect(),
        "PREFECT_HOME": str(prefect_home(home)),
        "PREFECT_API_URL": options.api_url,
        "PREFECT_API_AUTH_STRING": home.secret(),
        **link_variables(options.url),
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "DO_NOT_TRACK": "1",
        "LNTX_ROOT": str(home.root),
        # The table of the configuration may be read too.
        **served_folders([home.root, *options.folders, *_configured(options)]),
        "PYTHONUNBUFFERED": "1",
        # They start in the root: a folder named flows there must not shadow this package.
        "PYTHONSAFEPATH": "1",
        **without_proxy(os.environ),
    }


def link_variables(url: str) -> dict[str, str]:
    """Return the variables of a client with the addresses of pages: those of the UI that the login opens, and reports.

    url: that of the server.
    """
    return {"PREFECT_UI_URL": f"{url}/v2", "LNTX_REPORTS_URL": f"{url}/lntx/reports"}


def server_environment(home: Home, options: ServerOptions) -> dict[str, str]:
    """Return the variables for the server itself."""
    more = {} if options.database is None else {"PREFECT_SERVER_DATABASE_CONNECTION_URL": options.database}
    return {
        **client_environment(home, options),
        **more,
        "PREFECT_SERVER_API_HOST": HOST,
        # Not --port: the UI would still call port 4200.
        "PREFECT_SERVER_API_PORT": str(options.port),
        "PREFECT_SERVER_API_AUTH_STRING": home.secret(),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": options.url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_API_URL": options.api_url,
        # Leases in memory would be lost with the server, and runs that outlive its restart would be ended.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"PT{round(options.retention_days * 86400)}S",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(round(options.retention_days * 86400)),
    }


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that keep requests to loopback, and the password in them, away from a proxy."""
    variables = {}
    for name in ("NO_PROXY", "no_proxy"):
        hosts = environment.get(name, "")
        variables[name] = hosts if HOST in hosts.split(",") or hosts == "*" else ",".join(filter(None, (hosts, HOST)))
    return variables


def prefect_home(home: Home) -> Path:
    """Create and return the folder of the database and profile, shared with the embedded server for one history."""
    folder = home.root / "artifacts" / ".prefect"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def database_path(home: Home) -> Path:
    """Return the path of the database, if it is one of SQLite."""
    return prefect_home(home) / "prefect.db"


def runs_of_last_hour(root: Path) -> int:
    """Return how many flow runs of a root began in the last hour, as SQLite's database says; 0 without one."""
    path = root / "artifacts" / ".prefect" / "prefect.db"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            query = "SELECT count(*) FROM flow_run WHERE start_time > strftime('%Y-%m-%d %H:%M:%S', 'now', '-1 hour')"
            return int(database.execute(query).fetchone()[0])
    except sqlite3.Error:
        return 0


def _configured(options: ServerOptions) -> list[str]:
    path = options.pipeline.get("data", {}).get("path")
    return [] if path is None else [str(path)]


def _without_prefect() -> dict[str, str]:
    # An inherited setting could undo the hardening.
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def is_healthy(api_url: str) -> bool:
    """Whether the server of `lntx up` answers."""
    try:
        # Without a proxy: the server is on loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{api_url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
