"""Where the rows of a run are worked on: the threads of its process, or the workers of a Ray cluster.

Read from LNTX_ENGINE and LNTX_RAY_ADDRESS: a flow has no parameter for it, because who starts a run must not choose the
machines that do the work.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from lntx.base.errors import BadInput
from lntx.base.text import quoted, suggest

if TYPE_CHECKING:
    from lntx.cluster.engine import Cluster

logger = logging.getLogger("lntx.engines")

Engine = Literal["threads", "ray"]

_ENGINE, _ADDRESS = "LNTX_ENGINE", "LNTX_RAY_ADDRESS"


def choose(engine: Engine | None, ray_address: str | None) -> None:
    """Set the engine of this process; None leaves what the environment says.

    Raises: BadInput: an address without an engine that has one.
    """
    if engine is not None:
        os.environ[_ENGINE] = engine
    if ray_address is not None:
        if os.environ.get(_ENGINE) != "ray":
            raise BadInput(f"--ray-address {quoted(ray_address)} belongs to --engine ray: add it")
        os.environ[_ADDRESS] = ray_address


def is_ray() -> bool:
    """Whether a Ray cluster does the work.

    Raises: BadInput: LNTX_ENGINE names no engine.
    """
    engine = os.environ.get(_ENGINE) or "threads"
    if engine not in get_args(Engine):
        known = get_args(Engine)
        raise BadInput(f"{_ENGINE} must be one of {', '.join(known)}, got {quoted(engine)}{suggest(engine, known)}")
    return engine == "ray"


@contextlib.contextmanager
def working(root: Path) -> Iterator[Cluster | None]:
    """Have the rows of runs in this root worked on by the chosen engine during the block.

    Yields: the cluster, if it is one.

    Raises: LntxError: there is no such cluster, or its nodes do not fit.
    """
    if not is_ray():
        yield None
        return
    from lntx.base.files import network_disk
    from lntx.base.workers import use_engine
    from lntx.cluster.engine import connected
    from lntx.pipeline.table import TABLE
    from lntx.store.store import Store

    Store(root).prepare()
    kind = network_disk(root)
    if kind is not None:
        logger.warning(
            "the root is on a network disk (%s), whose locks other machines may not see: start runs in it from this "
            "machine alone",
            kind,
        )
    modules = sorted({name for entry in TABLE.values() for name in entry.modules})
    with connected(os.environ.get(_ADDRESS) or None, root, modules) as cluster, use_engine(cluster):
        yield cluster
