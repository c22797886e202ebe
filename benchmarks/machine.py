"""A sentence about the machine and the packages, for the pages of results."""

from __future__ import annotations

import os
import platform

import numpy as np
import torch

from lntx.base.version import __version__
from lntx.canary.suite.baseline import device_kind


def described() -> str:
    return (
        f"{device_kind('cpu')}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
        f"torch {torch.__version__} with {torch.backends.cpu.get_cpu_capability()} kernels, numpy {np.__version__}, "
        f"lntx {__version__}."
    )
