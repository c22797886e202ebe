"""The deployments of lntx, each listed once. prefect.yaml lists them for a work pool, and a test compares the two.

Importing this module imports neither Prefect nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lntx.base.stages import Stage

_SCHEDULED = "-scheduled"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A flow with parameters, to start by hand or by a schedule."""

    description: str
    """What its runs do."""

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

    @property
    def stage(self) -> Stage | None:
        """The stage that its runs are restricted to, if any."""
        stage: Stage | None = self.parameters.get("only")
        return stage


def _pipeline(name: str, description: str, **options: Any) -> Deployment:
    entrypoint = "flows.pipeline.pipeline"
    return Deployment(name=name, flow="lntx", entrypoint=entrypoint, description=description, **options)


def _canary(name: str, description: str, **parameters: Any) -> Deployment:
    return Deployment(
        name=name,
        flow="lntx-canary",
        entrypoint="flows.canary.canary",
        description=description,
        parameters=parameters,
        tags=("canary",),
    )


_STAGES: dict[Stage, str] = {
    "generate": "the rows are generated, or read from the file",
    "train": "a model is trained on the stored rows",
    "evaluate": "the stored model is evaluated on the stored rows",
    "export": "the stored model is exported and read back",
}


DEPLOYMENTS = (
    _pipeline("pipeline", "All stages, to start by hand. What is stored and fresh is not computed again."),
    _canary("canary", "Does this stack still train correctly? A second; everything is computed again."),
    _canary("canary-deep", "Is every operator of a training step within its bound? Half a minute.", deep=True),
    *(
        _pipeline(stage, f"Only the stage {stage}: {what}.", parameters={"only": stage}, tags=("stage",))
        for stage, what in _STAGES.items()
    ),
    _pipeline(f"pipeline{_SCHEDULED}", "All stages, by schedule, with the settings of lntx up."),
    _canary(f"canary{_SCHEDULED}", "The canary, by schedule."),
    _canary(f"canary-deep{_SCHEDULED}", "The deep canary, by schedule, with new networks.", deep=True, blind=True),
    Deployment(
        name=f"gc{_SCHEDULED}",
        flow="lntx-gc",
        entrypoint="flows.gc.clean",
        description="Free what no kept run needs, once a day.",
    ),
)
"""All deployments. Manual and scheduled runs have separate ones: a manual run is never cancelled because of another."""

FLOWS = tuple(dict.fromkeys(deployment.flow for deployment in DEPLOYMENTS))
"""Names of all flows."""
