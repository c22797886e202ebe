"""How tests name the server that they share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    auth: str

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": self.auth}
