"""The deployments of lntx, each listed once. prefect.yaml lists them for a work pool, and a test compares the two.

Importing this module imports neither Prefect nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lntx.stages import STAGES

_SCHEDULED = "-scheduled"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A flow with parameters, to start by hand or by a schedule."""

    name: str
    """Its name. That of a scheduled one ends in -scheduled: at most one of its runs runs at a time."""

    flow: str
    """Name of the flow."""

    entrypoint: str
    """Module and function of the flow."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the flow's defaults; that of the pipeline also has the settings of the server."""

    tags: tuple[str, ...] = ()
    """Tags beside lntx."""

    @property
    def is_scheduled(self) -> bool:
        """Whether a schedule starts its runs."""
        return self.name.endswith(_SCHEDULED)


def _pipeline(name: str, **options: Any) -> Deployment:
    return Deployment(name=name, flow="lntx", entrypoint="flows.pipeline.pipeline", **options)


def _canary(name: str, **parameters: Any) -> Deployment:
    entrypoint = "flows.canary.canary"
    return Deployment(name=name, flow="lntx-canary", entrypoint=entrypoint, parameters=parameters, tags=("canary",))


DEPLOYMENTS = (
    _pipeline("pipeline"),
    _canary("canary"),
    _canary("canary-deep", deep=True),
    *(_pipeline(stage, parameters={"only": stage}, tags=("stage",)) for stage in STAGES),
    _pipeline(f"pipeline{_SCHEDULED}"),
    _canary(f"canary{_SCHEDULED}"),
    _canary(f"canary-deep{_SCHEDULED}", deep=True, blind=True),
    Deployment(name=f"gc{_SCHEDULED}", flow="lntx-gc", entrypoint="flows.gc.clean"),
)
"""All deployments. Manual and scheduled runs have separate ones: a manual run is never cancelled because of another."""

FLOWS = tuple(dict.fromkeys(deployment.flow for deployment in DEPLOYMENTS))
"""Names of all flows."""
