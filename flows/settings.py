"""The environment of a hardened Prefect server on loopback, and of those who talk to it. Starts nothing."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from flows.home import Home
from lntx.config import Section

HOST = "127.0.0.1"

HEARTBEAT_S = 30
"""How often a flow run says that it is alive."""

SILENT_S = 100
"""A run that has said nothing for so long is dead: three heartbeats and a little."""


class ServerOptions(Section):
    """What a server is started with."""

    port: int = Field(4200, ge=1, le=65535)
    """Port on loopback."""

    database: str | None = None
    """URL of a PostgreSQL database, postgresql+asyncpg://…; none: SQLite under the root."""

    retention_days: float = Field(90.0, gt=0.05)
    """Age from which Prefect forgets flow runs and events."""

    cron: str | None = None
    """When the pipeline runs."""

    interval_s: float | None = Field(None, gt=0)
    """How often the pipeline runs, in seconds."""

    canary_cron: str | None = None
    """When the canary runs."""

    canary_interval_s: float | None = Field(3600.0, gt=0)
    """How often the canary runs, in seconds, where no cron says when."""

    timezone: str = "UTC"
    """Time zone of both crons."""

    keep_runs: int = Field(100, ge=1)
    """Runs that the daily garbage collection keeps at least."""

    keep_days: float = Field(30.0, gt=0)
    """Days that it keeps any run."""

    webhook: str | None = None
    """Where alerts are posted."""

    dead_man_hours: float = Field(6.0, gt=0)
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
        "PYTHONUNBUFFERED": "1",
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
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(round(options.retention_days * 86400)),
    }


def prefect_home(home: Home) -> Path:
    """Where the server's database and profile are: those of the embedded server, so that both show one history."""
    folder = home.root / "artifacts" / ".prefect"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def _without_prefect() -> dict[str, str]:
    # A setting from elsewhere could undo the hardening.
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
