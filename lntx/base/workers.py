"""Work on many items, several at once; results come in the order of the items.

The only place that knows where work is done: code with work for many parts of the rows calls `map_in_order`. By
default the threads of this process do it; `use_engine` hands it to others, such as the workers of a cluster
(`lntx/cluster/engine.py`).
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# More threads would wait for Python's lock.
_MOST = 16


class Engine(Protocol):
    """Does work on items, and yields the results in the order of the items."""

    def __call__(self, work: Callable[[Any], Any], items: Sequence[Any], /) -> Iterator[Any]:
        """Yield work(item) for every item, in order. work and items can be pickled."""
        ...


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(work: Callable[[Any], Any], items: Sequence[Any], /) -> Iterator[Any]:
    """Do the work in as many threads as there are cores.

    Work that releases Python's lock (numpy, pyarrow, torch, compiled loops) runs at the same time.
    """
    import threadpoolctl

    count = min(cores(), len(items), _MOST)
    # BLAS would start as many threads again for each of ours.
    one_each = threadpoolctl.threadpool_limits(1, user_api="blas")
    with one_each, ThreadPoolExecutor(count, thread_name_prefix="lntx") as pool:
        waiting: deque[Future[Any]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


# Of the process, not of a context: Prefect runs tasks in threads and contexts of its own.
_engine: list[Engine] = [threads]


@contextlib.contextmanager
def use_engine(engine: Engine) -> Iterator[None]:
    """Let an engine do the work of this process during the block."""
    _engine.append(engine)
    try:
        yield
    finally:
        _engine.remove(engine)


def map_in_order(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield work(item) for every item, in order.

    Results must not depend on where they are computed. A single item is worked on here and now. An exception ends the
    iteration; items that have not begun are dropped.
    """
    if len(items) <= 1:
        return map(work, items)
    return _engine[-1](work, items)
