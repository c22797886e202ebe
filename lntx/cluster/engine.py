"""Work on the nodes of a Ray cluster: an engine for `lntx/base/workers.py`, and one task on every node.

The only module that imports Ray. All nodes see the root as the same folder, and have the same versions as this process;
others are refused before any work. Records and locks stay with this process: workers write parts of a dataset alone.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import logging
import os
import platform
import secrets
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lntx.base.errors import BadInput, LntxError
from lntx.base.text import for_message, quoted
from lntx.store.key import code_digest, digest_of

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# A part whose worker died is worked on again, by any worker.
_RETRIES = 5
_CONNECTS_WITHIN_S = 10
_PACKAGES = ("numba", "numpy", "pyarrow", "ray", "torch")


class Place(NamedTuple):
    """Where work can be done: the processors of a node, or one of its GPUs."""

    node: str
    """Id of the node in Ray, hexadecimal."""

    name: str
    """Host name and address of the node, and the number of the GPU, if it is one."""

    is_gpu: bool = False
    """Whether it is a GPU."""


class Cluster:
    """A connection to a cluster; call it with work and items to have the work done there.

    modules: modules of lntx whose code must be the same on every node.
    """

    def __init__(self, ray: Any, root: Path, modules: Sequence[str]) -> None:
        self._ray, self._root, self._modules = ray, root, tuple(modules)
        self._expected = software(self._modules)

    @property
    def places(self) -> list[Place]:
        """The nodes that are alive and have a processor for work, and their GPUs, in the order of their names."""
        places = []
        for node in self._ray.nodes():
            if node["Alive"] and node.get("Resources", {}).get("CPU", 0) >= 1:
                name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})"
                places.append(Place(node["NodeID"], name))
                gpus = int(node.get("Resources", {}).get("GPU", 0))
                places += [Place(node["NodeID"], f"{name}, GPU {number}", is_gpu=True) for number in range(gpus)]
        return sorted(places, key=lambda place: (place.name, place.node))

    def __call__(self, work: Callable[[Any], Any], items: Sequence[Any], /) -> Iterator[Any]:
        """Yield work(item) for every item, in order: each is a task of one processor."""
        task = self._ray.remote(num_cpus=1, max_retries=_RETRIES)(_worked)
        shared = self._ray.put((work, self._modules, self._expected))
        ahead = 2 * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(task.remote(shared, item))
                if len(waiting) > ahead:
                    yield self._answer(waiting.popleft())
            while waiting:
                yield self._answer(waiting.popleft())
        finally:
            for left in waiting if self._ray.is_initialized() else ():
                self._ray.cancel(left)

    def in_places(
        self, works: Sequence[tuple[Place, Callable[[], Result]]], *, processors: int = 1
    ) -> Iterator[tuple[Place, Result | Exception]]:
        """Yield what each work returns or raises in its place; all are done at once.

        processors: how many each waits for on a node; 0 for work that takes no time.
        """
        affinity = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        task = self._ray.remote(max_retries=0)(_called)
        futures = []
        for place, work in works:
            options = {"num_cpus": 0 if place.is_gpu else processors, "num_gpus": int(place.is_gpu)}
            there = task.options(scheduling_strategy=affinity(place.node, soft=False), **options)
            futures.append((place, there.remote(work)))
        for place, answer in futures:
            try:
                yield place, self._answer(answer)
            except Exception as error:
                yield place, error

    def check(self) -> None:
        """Refuse nodes with other versions, or that see another folder as the root.

        Raises: LntxError: such nodes, each with what differs.
        """
        token = secrets.token_hex(8)
        probe = self._root / "artifacts" / f".cluster-{token}"
        probe.write_text(token, encoding="ascii")
        try:
            look = functools.partial(_look, self._modules, str(probe))
            works = [(place, look) for place in self.places if not place.is_gpu]
            seen = self.in_places(works, processors=0)
            lines = [line for node, answer in seen for line in self._differences(node, answer, token)]
        finally:
            probe.unlink(missing_ok=True)
        if not works:
            lines = ["the cluster has no node with a processor for work: see ray status"]
        if lines:
            raise LntxError("\n".join(lines))

    def _differences(self, node: Place, answer: Any, token: str) -> list[str]:
        if isinstance(answer, Exception):
            return [f"node {node.name} cannot run lntx ({_first_line(answer)})"]
        versions, content = answer
        lines = [
            f"node {node.name} has {name} {versions.get(name)}, this process has {version}: install the same"
            for name, version in self._expected.items()
            if versions.get(name) != version
        ]
        if content != token:
            lines.append(
                f"node {node.name} does not see {for_message(self._root)}: mount the same folder on every node"
            )
        return lines

    def _answer(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise LntxError(f"the cluster could not do a part of the work ({_first_line(error)})") from None


@contextlib.contextmanager
def connected(address: str | None, root: Path, modules: Sequence[str]) -> Iterator[Cluster]:
    """Connect to a cluster, and check its nodes.

    address: of its head, such as 10.0.0.1:6379; None: RAY_ADDRESS, else the cluster of this machine, which is started
    if there is none. root: the folder that all nodes share. modules: modules of lntx that must be the same.

    Raises: BadInput: Ray is not installed. LntxError: there is no such cluster, or its nodes do not fit.
    """
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        raise BadInput("--engine ray needs Ray: pip install 'lntx[ray]'") from None
    if address is not None:
        _refuse_unreachable(address)
    # A cluster that is started here tells nobody about it, unless the user says so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = "start one here" if address is None else f"reach {quoted(address)}"
        raise LntxError(f"cannot {where} (Ray: {_first_line(error)}): see ray status") from None
    # Ray prints what happens to its nodes on stdout, until its shutdown; stdout is for results.
    with contextlib.redirect_stdout(_Log()):
        try:
            cluster = Cluster(ray, root, modules)
            cluster.check()
            yield cluster
        finally:
            ray.shutdown()


class _Log(io.StringIO):
    """A stream whose text goes to the log."""

    def write(self, text: str) -> int:
        if text.strip():
            logger.debug("Ray: %s", text.strip())
        return len(text)


def _refuse_unreachable(address: str) -> None:
    """Raise LntxError if nothing listens at an address HOST:PORT: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECTS_WITHIN_S).close()
        except (OSError, OverflowError) as error:
            message = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            raise LntxError(
                f"cannot reach {quoted(address)} ({message}): start it with ray start --head, or correct --ray-address"
            ) from None


@functools.cache
def software(modules: tuple[str, ...]) -> dict[str, str]:
    """Return the versions that decide the results of this process."""
    versions = {name: _version(name) for name in _PACKAGES}
    code = digest_of({name: code_digest(name) for name in sorted(modules)})[:12]
    return {"Python": platform.python_version(), **versions, "code of lntx": code}


def _first_line(error: Exception) -> str:
    message = next(iter(str(error).splitlines()), "")
    return for_message(f"{type(error).__name__}: {message}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _worked(shared: tuple[Callable[[Any], Any], tuple[str, ...], dict[str, str]], item: Any) -> Any:
    """Do the work on an item, in a worker of a node, which may have joined after the check."""
    work, modules, expected = shared
    here = software(modules)
    if here != expected:
        names = ", ".join(f"{name} {here[name]}" for name in expected if here[name] != expected[name])
        raise LntxError(f"node {platform.node()} has {names}, unlike this process: install the same")
    return work(item)


def _called(work: Callable[[], Any]) -> Any:
    return work()


def _look(modules: tuple[str, ...], probe: str) -> tuple[dict[str, str], str | None]:
    try:
        content = Path(probe).read_text(encoding="ascii")
    except OSError:
        content = None
    return software(modules), content
