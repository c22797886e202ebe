"""lntx: a known-answer training pipeline.

The public names are imported on first use, so that importing lntx is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lntx.base.version import __version__ as __version__

if TYPE_CHECKING:
    from lntx.api import fit, plot, predict, residuals, run, run_canary, run_sweep
    from lntx.export.formats import load_model
    from lntx.proof.hard_inputs import assert_proved, hard_inputs
    from lntx.proof.kernels import prove_kernel
    from lntx.proof.program import check_program
    from lntx.proof.prove import prove
    from lntx.training.model import LNTXLinearModel

__all__ = [
    "LNTXLinearModel",
    "assert_proved",
    "check_program",
    "fit",
    "hard_inputs",
    "load_model",
    "plot",
    "predict",
    "prove",
    "prove_kernel",
    "residuals",
    "run",
    "run_canary",
    "run_sweep",
]

_HOMES = {
    "LNTXLinearModel": "lntx.training.model",
    "fit": "lntx.api",
    "assert_proved": "lntx.proof.hard_inputs",
    "check_program": "lntx.proof.program",
    "hard_inputs": "lntx.proof.hard_inputs",
    "load_model": "lntx.export.formats",
    "plot": "lntx.api",
    "predict": "lntx.api",
    "residuals": "lntx.api",
    "prove": "lntx.proof.prove",
    "prove_kernel": "lntx.proof.kernels",
    "run": "lntx.api",
    "run_canary": "lntx.api",
    "run_sweep": "lntx.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lntx' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("lntx"):
            raise
        raise ImportError(f"lntx-prove has no lntx.{name}: pip uninstall lntx-prove; pip install lntx") from None


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
