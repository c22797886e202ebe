"""The Prefect server of `lntx up`: what no setting of Prefect gives. `python -m flows.server.api ROOT` runs it.

- On SQLite, transactions that write wait for each other. Prefect begins them as readers: the second of two fails at
  once as soon as it writes, whatever the time limit, and its request is refused with 503.
- Other names of this machine are refused in the header Host, so that no page of a browser reaches the server under a
  name of its own (DNS rebinding).
- The documentation of the API needs the password, as the API does.
- Events that Prefect drops are counted.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import re
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from prefect.server.api.server import create_app
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.settings import get_current_settings
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

# Its block is loaded in this process.
from flows.server import alerts  # noqa: F401
from flows.server.home import Home
from flows.server.metrics import server_metrics
from flows.server.orphans import patient_client
from flows.server.settings import HOST, ServerOptions
from lntx.store.places import is_run_name

_PROTECTED = {"/metrics", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_UNAUTHORIZED = {"WWW-Authenticate": 'Basic realm="lntx"'}


def main(home: Home) -> None:
    """Serve until asked to stop."""
    options = ServerOptions.model_validate(home.read_options())
    let_writers_wait()
    logging.getLogger("prefect.server.events.services.event_persister").addHandler(DroppedEvents(home))
    settings = get_current_settings().server.api
    uvicorn.run(
        protected(create_app(final=True), home, [HOST, "localhost", *options.host_names]),
        host=HOST,
        port=options.port,
        timeout_keep_alive=settings.keepalive_timeout,
        ws_ping_interval=settings.websocket_ping_interval,
        ws_ping_timeout=settings.websocket_ping_timeout,
        log_level="warning",
    )


def let_writers_wait() -> None:
    """Begin each transaction of SQLite that may write as a writer, so that it waits for the others."""
    begin = AioSqliteConfiguration.begin_transaction

    def begin_as_writer(self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = True) -> Any:
        return begin(self, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = begin_as_writer  # type: ignore[method-assign]


class DroppedEvents(logging.Handler):
    """Counts the events that Prefect's log says it dropped: alerts come from events, so one that is lost may be one."""

    def __init__(self, home: Home) -> None:
        super().__init__(logging.WARNING)
        self._home = home

    def emit(self, record: logging.LogRecord) -> None:
        """Add what a line says to the count."""
        match = re.search(r"dropping (?:(\d+) )?event", record.getMessage())
        if match:
            self._home.count_dropped_events(int(match[1] or 1))


def protected(app: FastAPI, home: Home, host_names: list[str]) -> ASGIApp:
    """Return the app with the pages of lntx, behind checks of host and password.

    They wrap the app: its own requests to itself, which it makes without a network, are not checked.
    """
    pages = {"/lntx/reports/{run}.html": _report_page(home), "/metrics": _metrics_page(home)}
    app.router.routes[:0] = [Route(path, page) for path, page in pages.items()]
    asking = _Password(app, secret=home.secret())
    return TrustedHostMiddleware(asking, allowed_hosts=host_names, www_redirect=False)


class _Password:
    """Ask for the password where Prefect does not: for the documentation of the API and the pages of lntx."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app, self._login = app, b"Basic " + base64.b64encode(secret.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path in _PROTECTED or path.startswith("/lntx/"):
            header = dict(scope.get("headers", ())).get(b"authorization", b"")
            if not hmac.compare_digest(header, self._login):
                await PlainTextResponse("Unauthorized", 401, _UNAUTHORIZED)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _metrics_page(home: Home) -> Any:
    async def metrics_page(_request: Request) -> Response:
        """Return the figures of this server."""
        async with patient_client() as client:
            return PlainTextResponse(await server_metrics(client, home))

    return metrics_page


def _report_page(home: Home) -> Any:
    async def report_page(request: Request) -> Response:
        """Return the report of a run, which is written when it is first asked for."""
        run = request.path_params["run"]
        path = home.root / "artifacts" / "reports" / f"{run}.html"
        if not is_run_name(run):
            return PlainTextResponse("no such run", 404)
        if not path.is_file():
            words = ["-P", "-m", "flows.cli", "report", run, "--root", str(home.root), "--quiet"]
            process = await asyncio.create_subprocess_exec(sys.executable, *words, stderr=asyncio.subprocess.PIPE)
            _, errors = await process.communicate()
            if process.returncode:
                return PlainTextResponse(errors.decode(errors="replace"), 404)
        return FileResponse(path, headers={"Content-Security-Policy": _POLICY})

    return report_page


if __name__ == "__main__":
    main(Home(Path(sys.argv[1])))
