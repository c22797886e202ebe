"""Select the Prefect server of a run: the configured one, that of `lntx up`, or an embedded one for this run."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import certifi
import httpx
import prefect
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    PREFECT_UI_URL,
    get_current_settings,
    temporary_settings,
)

from flows.server.home import Home, ServerState, refuse_other_database
from flows.server.settings import HEARTBEAT_S, is_healthy, link_variables, without_proxy
from lntx.base.errors import LntxError, ServerUnreachable
from lntx.base.files import write_whole
from lntx.base.text import for_message
from lntx.store.locks import locked

logger = logging.getLogger("lntx.connection")

_STARTUP_TIMEOUT_S = 180
_SLOW_S = 15.0


@contextlib.contextmanager
def connected(root: Path, *, meanwhile: Callable[[], object]) -> Iterator[bool]:
    """Connect to the configured server, else to the one that `lntx up` started, else to an embedded one for the block.

    root: where an embedded server keeps its database, unless PREFECT_HOME says otherwise. meanwhile: called while an
    embedded server starts.

    Yields: whether the server stays up afterwards.

    Raises: ServerUnreachable: the selected server does not answer, or refuses the request.
    """
    url = PREFECT_API_URL.value()
    if url:
        check(url)
        yield True
        return
    home = Home(root)
    own = _running(home)
    if own is not None:
        links = link_variables(own.url)
        settings: dict[Any, Any] = {
            PREFECT_API_URL: own.api_url,
            PREFECT_API_AUTH_STRING: home.secret(),
            # A run without heartbeats is marked as crashed.
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: HEARTBEAT_S,
            PREFECT_UI_URL: links["PREFECT_UI_URL"],
            PREFECT_API_SSL_CERT_FILE: _one_certificate(home.folder),
        }
        os.environ.update({**without_proxy(os.environ), **links})
        if not is_healthy(own.api_url):
            raise ServerUnreachable(f"the Prefect server at {own.url} does not answer: see {home.logs}, or lntx down")
        with temporary_settings(settings):
            yield True
        return
    with _embedded(root, meanwhile):
        yield False


def _one_certificate(folder: Path) -> str:
    """Return a file with one certificate: of a server on loopback none is read, yet each client of Prefect would load
    all that are known, which takes as long as its first request.
    """
    path = folder / "certificate.pem"
    if not path.is_file():
        end = "-----END CERTIFICATE-----\n"
        known = Path(certifi.where()).read_text(encoding="utf-8")
        write_whole(path, known[known.index("-----BEGIN") : known.index(end) + len(end)])
    return str(path)


def _running(home: Home) -> ServerState | None:
    """Return the server of this root, or None; wait for a server that is starting."""
    deadline = time.monotonic() + _STARTUP_TIMEOUT_S
    while (own := home.running()) is None and home.is_held():
        if time.monotonic() > deadline:
            raise ServerUnreachable(f"the server of this root does not come up: see {home.logs}, or lntx down")
        time.sleep(0.2)
    return own


def check(url: str) -> None:
    """Send a request that needs the right credentials. Raises: ServerUnreachable."""
    try:
        with get_client(sync_client=True) as client:
            client.read_flows(limit=1)
    except PrefectHTTPStatusError as error:
        raise refusal(error, url) from None
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = "start it, or unset PREFECT_API_URL for an embedded one"
        raise ServerUnreachable(f"the Prefect server at {url} does not answer ({message}): {advice}") from None


def refusal(error: PrefectHTTPStatusError, url: str) -> ServerUnreachable:
    """Return the error of a server that refuses a request, or cannot do what is asked."""
    status = error.response.status_code
    reason = f"{status} {error.response.reason_phrase}"
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return ServerUnreachable(f"the Prefect server at {url} refuses ({reason}): set PREFECT_API_AUTH_STRING")
    return ServerUnreachable(
        f"the Prefect server at {url} fails ({reason}): see its log, and whether the disk of its database is full"
    )


@contextlib.contextmanager
def _embedded(root: Path, meanwhile: Callable[[], object]) -> Iterator[None]:
    home = Path(os.environ.get("PREFECT_HOME") or root / "artifacts" / ".prefect").resolve()
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        # As private as the server of lntx up: it holds parameters and logs.
        home.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LntxError(f"cannot write to {for_message(home)}: {error.strerror}") from None
    refuse_other_database(home)
    settings: dict[Any, Any] = {
        PREFECT_HOME: home,
        PREFECT_SERVER_EPHEMERAL_ENABLED: True,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: _STARTUP_TIMEOUT_S,
        # On a first start, telemetry and migrations compete for the database.
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        # Heartbeats are useless on a server that ends with the run, and they cost a second.
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
        PREFECT_API_SSL_CERT_FILE: _one_certificate(home),
    }
    with temporary_settings(settings):
        # Two servers that migrate one new database at once lock each other out.
        with _told_if_slow(), locked(home / ".starting.lock"), ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(meanwhile)
            # In this thread: the server ends with the thread that started it.
            _start_server()
            waiting.result()
        yield


@contextlib.contextmanager
def _told_if_slow() -> Iterator[None]:
    """Say every few seconds what is waited for, until the block ends."""
    begin, is_up = time.monotonic(), threading.Event()

    def tell() -> None:
        while not is_up.wait(_SLOW_S):
            seconds = time.monotonic() - begin
            logger.warning("Prefect's server has been starting for %.0f s: a first start makes its database", seconds)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_up.set()


def _start_server() -> None:
    """Start an embedded server, which Ctrl-C in the terminal does not reach: the run needs it to end in order."""
    # Imported here: half of Prefect's import time, and only an embedded server needs it.
    from prefect.server.api import server

    class Server(server.SubprocessASGIServer):
        def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
            folder = str(Path(prefect.__file__).parent)
            words = ["--app-dir", folder, "--factory", "prefect.server.api.server:create_app"]
            words += ["--host", "127.0.0.1", "--port", str(self.port), "--log-level", "error", "--lifespan", "on"]
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "flows.server.die_with_parent", "uvicorn", *words],
                env={
                    **os.environ,
                    "PREFECT_UI_ENABLED": "0",
                    "PREFECT__SERVER_EPHEMERAL": "1",
                    "PREFECT__SERVER_FINAL": "1",
                    **get_current_settings().to_environment_variables(exclude_unset=True),
                },
                process_group=0,
            )

    # Prefect's clients find this one instance, and Prefect stops it at exit, once logs and events are sent.
    Server().start()
