"""Work on many items, one after the other or several at once; results come in the order of the items.

The only place that knows where work is done: whoever has work for many parts of the rows calls `each`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# More threads would wait for Python's lock.
_MOST = 16


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield work(item) for every item, in order, computed by as many threads as there are cores.

    Results must not depend on the number of threads. Work that releases Python's lock (numpy, pyarrow, torch, compiled
    loops) runs at the same time. An exception ends the iteration; items that have not begun are dropped.
    """
    if len(items) <= 1:
        yield from map(work, items)
        return
    import threadpoolctl

    count = min(cores(), len(items), _MOST)
    # BLAS would start as many threads again for each of ours.
    one_each = threadpoolctl.threadpool_limits(1, user_api="blas")
    with one_each, ThreadPoolExecutor(count, thread_name_prefix="lntx") as pool:
        waiting: deque[Future[Result]] = deque()
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
