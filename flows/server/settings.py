"""The environment of a hardened Prefect server on loopback, and of those who talk to it. Starts nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from flows.folders import served_folders
from flows.server.home import Home
from lntx.config.schema import Section

HOST = "127.0.0.1"

_YEAR_S = 366 * 86400

MAX_HOURS = _YEAR_S / 3600
"""Longest time that a dead man's clock waits."""

HEARTBEAT_S = 30
"""How often a flow run says that it is alive."""

SILENT_S = 100
"""A run that has said nothing for so long is dead: three heartbeats and a little."""


LAST_WORDS_S = 15.0
"""What the process that serves deployments has to end its runs, once it is told to end."""


class ServerOptions(Section):
    """What a server is started with."""

    port: int = Field(4200, ge=1, le=65535)
    """Port on loopback."""

    database: str | None = None
    """URL of a PostgreSQL database, postgresql+asyncpg://…; none: SQLite under the root."""

    retention_days: float = Field(90.0, gt=0.05, le=36500)
    """Age from which Prefect forgets flow runs and events."""

    cron: str | None = None
    """When the pipeline runs."""

    interval_s: float | None = Field(None, ge=1, le=_YEAR_S)
    """How often the pipeline runs, in seconds."""

    canary_cron: str | None = None
    """When the canary runs."""

    canary_interval_s: float | None = Field(3600.0, ge=1, le=_YEAR_S)
    """How often the canary runs, in seconds, where no cron says when."""

    timezone: str = "UTC"
    """Time zone of both crons."""

    keep_runs: int = Field(100, ge=1, le=10**9)
    """Runs that the daily garbage collection keeps at least."""

    keep_days: float = Field(30.0, gt=0, le=36_500)
    """Days that it keeps any run."""

    webhook: str | None = None
    """Where alerts are posted."""

    folders: tuple[str, ...] = ()
    """Folders, other than the root, that flows may read tables from."""

    dead_man_hours: float = Field(6.0, gt=0, le=MAX_HOURS)
    """Hours without a passing canary that raise an alert."""

    pipeline: dict[str, dict[str, object]] = Field(default_factory=dict)
    """Sections of the configuration that the deployments start from."""

    @property
    def schedules_canary(self) -> bool:
        """Whether the canary runs by itself."""
        return self.canary_cron is not None or self.canary_interval_s is not None

    @property
    def url(self) -> str:
        """Where the UI is."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """Where the API is."""
        return f"{self.url}/api"


def client_environment(home: Home, options: ServerOptions) -> dict[str, str]:
    """Variables for processes that talk to the server, run flows among them."""
    return {
        **_without_prefect(),
        "PREFECT_HOME": str(prefect_home(home)),
        "PREFECT_API_URL": options.api_url,
        "PREFECT_API_AUTH_STRING": home.secret(),
        "PREFECT_UI_URL": options.url,
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "DO_NOT_TRACK": "1",
        "LNTX_ROOT": str(home.root),
        # What a person configured may be read too.
        **served_folders([home.root, *options.folders, *_configured(options)]),
        "PYTHONUNBUFFERED": "1",
        # A folder named flows under the root, where they start, is not this package.
        "PYTHONSAFEPATH": "1",
        **without_proxy(os.environ),
    }


def server_environment(home: Home, options: ServerOptions) -> dict[str, str]:
    """Variables for the server itself."""
    more = {} if options.database is None else {"PREFECT_SERVER_DATABASE_CONNECTION_URL": options.database}
    return {
        **client_environment(home, options),
        **more,
        "PREFECT_SERVER_API_HOST": HOST,
        # Not --port: the UI would go on calling 4200.
        "PREFECT_SERVER_API_PORT": str(options.port),
        "PREFECT_SERVER_API_AUTH_STRING": home.secret(),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": options.url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_API_URL": options.api_url,
        # In memory they would end with the server, and with them the runs that it finds when it is back.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"PT{round(options.retention_days * 86400)}S",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(round(options.retention_days * 86400)),
    }


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that keep what goes to loopback, the password among it, from a proxy."""
    found = {}
    for name in ("NO_PROXY", "no_proxy"):
        said = environment.get(name, "")
        found[name] = said if HOST in said.split(",") or said == "*" else ",".join(filter(None, (said, HOST)))
    return found


def prefect_home(home: Home) -> Path:
    """Where the server's database and profile are: those of the embedded server, so that both show one history."""
    folder = home.root / "artifacts" / ".prefect"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def _configured(options: ServerOptions) -> list[str]:
    path = options.pipeline.get("data", {}).get("path")
    return [] if path is None else [str(path)]


def _without_prefect() -> dict[str, str]:
    # A setting from elsewhere could undo the hardening.
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
