"""What a server that `lntx up` starts keeps under the root: its secret, its options, its state and its logs.

Knows files and locks; imports no Prefect, so that a command can ask in no time whether a server is up.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from lntx.config.schema import Section
from lntx.errors import LntxError
from lntx.files import open_regular, read_json, read_regular
from lntx.text import shown

_LOOKS_WITHIN_S = 1.0


def refuse_other_database(prefect_home: Path) -> None:
    """Refuse a file in the place of the server's database that is none: the server would die of it, and not say why.

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
            # Locked, or to be recovered: the server knows how.
            return
        raise LntxError(f"{shown(path)} is not a database: move it away, and Prefect makes a new one") from None
    except OSError as error:
        raise LntxError(f"{shown(path)} cannot be used: {error.strerror}: move it away") from None


class Running(LntxError):
    """A server of this root is up already."""

    kind = "Running"


class ServerState(Section):
    """A server that is up."""

    pid: int
    """The process that watches over it."""

    url: str = Field(pattern=r"^http://127\.0\.0\.1:[0-9]{1,5}$")
    """Where its UI is, on loopback: the password is sent there; its API is below /api."""

    started_at: str
    """When, ISO 8601 in UTC."""

    @property
    def api_url(self) -> str:
        """Where its API is."""
        return f"{self.url}/api"


class Home:
    """The folder of a root's server, for its owner's eyes alone."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.folder = self.root / "artifacts" / ".server"
        self.logs = self.folder / "logs"
        self._secret = self.folder / "auth"
        self._options = self.folder / "options.json"
        self._state = self.folder / "state.json"
        self._lock = self.folder / "lock"

    def prepare(self) -> None:
        """Make the folders."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.logs.mkdir(exist_ok=True)

    @property
    def secret_path(self) -> Path:
        """The file with the string that logs in."""
        return self._secret

    def secret(self) -> str:
        """The string that logs in, `user:password`; drawn once, in a file that only its owner may read."""
        if not self._secret.exists():
            # Whole or not at all: an empty string would let anyone in.
            beside = self._secret.with_name(f".auth-{os.getpid()}")
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as handle:
                handle.write(f"lntx:{secrets.token_urlsafe(24)}\n")
            with contextlib.suppress(FileExistsError):
                os.link(beside, self._secret)
            beside.unlink()
        try:
            found = read_regular(self._secret, most=1000).decode("ascii", errors="replace").strip()
        except OSError as error:
            raise LntxError(
                f"{shown(self._secret)} cannot be read: {error.strerror}: remove it for a new one"
            ) from None
        if not re.fullmatch(r"[!-9;-~]+:[!-~]{8,}", found):
            raise LntxError(
                f"{self._secret} must hold USER:PASSWORD, eight characters or more: remove it for a new one"
            )
        return found

    @property
    def served_mark(self) -> Path:
        """The file that says that deployments are served."""
        return self.folder / "served"

    def write_options(self, options: dict[str, Any]) -> None:
        """Keep what the server is to be started with, for its owner alone: it may hold passwords."""
        beside = self._options.with_name(f".options-{os.getpid()}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            json.dump(options, handle)
        beside.replace(self._options)

    def read_options(self) -> dict[str, Any]:
        """What the server is to be started with."""
        try:
            found = read_json(self._options)
        except (OSError, ValueError) as error:
            raise LntxError(
                f"{shown(self._options)} cannot be read ({type(error).__name__}): run lntx up again"
            ) from None
        return found if isinstance(found, dict) else {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the one server of this root, while it runs; the operating system ends that with the process.

        Raises: Running: there is one.
        """
        with os.fdopen(os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+") as handle:
            deadline = time.monotonic() + _LOOKS_WITHIN_S
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    # Somebody may only be having a look.
                    if time.monotonic() > deadline:
                        raise Running("a server of this root is up already: lntx down ends it") from None
                    time.sleep(0.02)
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            try:
                yield
            finally:
                self._state.unlink(missing_ok=True)

    def write_state(self, state: ServerState) -> None:
        """Say that the server is up."""
        beside = self._state.with_suffix(".new")
        beside.write_text(state.model_dump_json(), encoding="utf-8")
        beside.replace(self._state)

    def tell_to_end(self) -> None:
        """Tell the process that holds the lock, if one does."""
        with contextlib.suppress(ValueError, OSError):
            pid = int(read_regular(self._lock, most=20))
            # 0 and below are groups of processes.
            if pid > 1 and self.is_held():
                os.kill(pid, signal.SIGTERM)

    def is_held(self) -> bool:
        """Whether a server of this root is up, or on its way up or down."""
        try:
            with open_regular(self._lock) as handle:
                # Shared: two who look do not take each other for a server.
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def running(self) -> ServerState | None:
        """The server that is up, if one is; a state that a killed one left is none."""
        if not self.is_held():
            return None
        try:
            return ServerState.model_validate(read_json(self._state))
        except (OSError, ValueError):
            return None
