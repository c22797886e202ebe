"""A real Prefect server for the flow tests: its own process, its own database, and a password."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgresql import postgresql
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    temporary_settings,
)
from prefect_server import Server


@pytest.fixture(scope="session")
def database(pytestconfig: pytest.Config) -> Iterator[dict[str, str]]:
    """What a server needs to use the database that was asked for.

    One in a session: Prefect's client goes on sending events to the first server that it knew.
    """
    if pytestconfig.getoption("--database") == "sqlite":
        yield {}
        return
    with postgresql() as url:
        yield {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, database: dict[str, str]) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("prefect"), database)
    found.start()
    yield found
    found.end()


@pytest.fixture
def client(server: Server) -> Iterator[SyncPrefectClient]:
    """A client of the server, which flows called in this process use too."""
    settings = {
        PREFECT_API_URL: server.url,
        PREFECT_API_AUTH_STRING: server.auth,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
    }
    with temporary_settings(settings), get_client(sync_client=True) as found:
        yield found
