"""Files of the server that `lntx up` starts, under the root: its secret, options, state, lock and logs.

Imports no Prefect, so that a command can quickly check whether a server is up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from lntx.base.errors import LntxError
from lntx.base.files import open_regular, read_json, read_regular
from lntx.base.text import for_message
from lntx.config.schema import Section

_LOOKS_WITHIN_S = 1.0


def refuse_other_database(prefect_home: Path) -> None:
    """Refuse a file at the database path that is not a database: the server would fail and not report the reason.

    Raises: LntxError.
    """
    path = prefect_home / "prefect.db"
    if not (path.exists() or path.is_symlink()):
        return
    try:
        with open_regular(path):
            pass
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            # Locked, or in need of recovery: the server can handle both.
            return
        raise LntxError(f"{for_message(path)} is not a database: move it away, and Prefect makes a new one") from None
    except OSError as error:
        raise LntxError(f"{for_message(path)} cannot be used: {error.strerror}: move it away") from None


class Running(LntxError):
    """A server of this root is already up."""

    kind = "Running"


class ServerState(Section):
    """State of a server that is up."""

    pid: int
    """Process id of its supervisor."""

    url: str = Field(pattern=r"^http://127\.0\.0\.1:[0-9]{1,5}$")
    """URL of its UI, on loopback because the password is sent there; the API is below /api."""

    started_at: str
    """Start time, ISO 8601 in UTC."""

    @property
    def api_url(self) -> str:
        """URL of its API."""
        return f"{self.url}/api"


class Home:
    """The server folder of a root, accessible only to its owner."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.folder = self.root / "artifacts" / ".server"
        self.logs = self.folder / "logs"
        self._secret = self.folder / "auth"
        self._options = self.folder / "options.json"
        self._state = self.folder / "state.json"
        self._lock = self.folder / "lock"
        self._dropped_events = self.folder / "dropped-events"

    def prepare(self) -> None:
        """Create the folders."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.logs.mkdir(exist_ok=True)

    @property
    def secret_path(self) -> Path:
        """Path of the file that contains the login string."""
        return self._secret

    def secret(self) -> str:
        """Return the login string, `user:password`; it is generated once, in a file that only its owner can read."""
        if not self._secret.exists():
            # Created atomically: an empty string would let anyone log in.
            beside = self._secret.with_name(f".auth-{os.getpid()}")
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as handle:
                handle.write(f"lntx:{secrets.token_urlsafe(24)}\n")
            with contextlib.suppress(FileExistsError):
                os.link(beside, self._secret)
            beside.unlink()
        try:
            secret = read_regular(self._secret, most=1000).decode("ascii", errors="replace").strip()
        except OSError as error:
            raise LntxError(
                f"{for_message(self._secret)} cannot be read: {error.strerror}: remove it for a new one"
            ) from None
        if not re.fullmatch(r"[!-9;-~]+:[!-~]{8,}", secret):
            raise LntxError(
                f"{self._secret} must hold USER:PASSWORD, eight characters or more: remove it for a new one"
            )
        return secret

    @property
    def served_mark(self) -> Path:
        """Path of the file that exists while deployments are served."""
        return self.folder / "served"

    def write_options(self, options: dict[str, Any]) -> None:
        """Write the start options of the server, readable only by the owner because they may contain passwords."""
        self._write_private(self._options, json.dumps(options))

    def count_dropped_events(self, count: int) -> None:
        """Add to the number of events that the server dropped."""
        self._write_private(self._dropped_events, str(self.dropped_events() + count))

    def dropped_events(self) -> int:
        """Return how many events the server has dropped since this root has one."""
        with contextlib.suppress(OSError, ValueError):
            return int(read_regular(self._dropped_events, most=20))
        return 0

    def write_environment(self, variables: Mapping[str, str]) -> Path:
        """Write variables as systemd reads them (EnvironmentFile), readable only by the owner; return the path."""
        self.prepare()
        escaped = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in variables.items()}
        path = self.folder / "environment"
        self._write_private(path, "".join(f'{name}="{value}"\n' for name, value in escaped.items()))
        return path

    def _write_private(self, path: Path, text: str) -> None:
        beside = path.with_name(f".{path.stem}-{os.getpid()}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
        beside.replace(path)

    def read_options(self) -> dict[str, Any]:
        """Return the start options of the server."""
        try:
            options = read_json(self._options)
        except (OSError, ValueError) as error:
            raise LntxError(
                f"{for_message(self._options)} cannot be read ({type(error).__name__}): run lntx up again"
            ) from None
        return options if isinstance(options, dict) else {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock as the only server of this root; the operating system releases it when the process ends.

        Raises: Running: another server holds it.
        """
        with os.fdopen(os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+") as handle:
            deadline = time.monotonic() + _LOOKS_WITHIN_S
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    # `is_held` holds the lock for a moment.
                    if time.monotonic() > deadline:
                        state = self.running()
                        where = "" if state is None else f" at {state.url}"
                        raise Running(f"a server of this root is up already{where}: lntx down ends it") from None
                    time.sleep(0.02)
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            # That of a server that was killed.
            self._state.unlink(missing_ok=True)
            try:
                yield
            finally:
                self._state.unlink(missing_ok=True)

    def write_state(self, state: ServerState) -> None:
        """Record that the server is up."""
        beside = self._state.with_suffix(".new")
        beside.write_text(state.model_dump_json(), encoding="utf-8")
        beside.replace(self._state)

    def remove_state(self) -> None:
        """Record that the server is not up at the moment."""
        self._state.unlink(missing_ok=True)

    def tell_to_end(self) -> None:
        """Send SIGTERM to the process that holds the lock, if any."""
        with contextlib.suppress(ValueError, OSError):
            pid = int(read_regular(self._lock, most=20))
            # 0 and negative numbers mean process groups.
            if pid > 1 and self.is_held():
                os.kill(pid, signal.SIGTERM)

    def is_held(self) -> bool:
        """Whether a server of this root is up, starting or stopping."""
        try:
            with open_regular(self._lock) as handle:
                # A shared lock: two checks at once do not mistake each other for a server.
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def running(self) -> ServerState | None:
        """Return the state of the running server, or None; a state file left by a killed server is ignored."""
        if not self.is_held():
            return None
        try:
            state = ServerState.model_validate(read_json(self._state))
            return state if state.pid == int(read_regular(self._lock, most=20)) else None
        except (OSError, ValueError):
            return None
