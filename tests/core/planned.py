"""What the planner says of a root, as the tests compare it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lntx.base.stages import select
from lntx.config.loading import settle
from lntx.pipeline.plan import plan
from lntx.store.store import Store


def planned(root: Path, **options: Any) -> dict[str, tuple[str, str | None]]:
    """State and reason by stage; options are sections, a preset and a range."""
    range_ = {key: options.pop(key) for key in ("from_stage", "until", "only", "force") if key in options}
    plans = plan(Store(root), settle(preset=options.pop("preset", None), overrides=options), select(**range_))
    return {stage: (found.state, found.reason) for stage, found in plans.items()}
