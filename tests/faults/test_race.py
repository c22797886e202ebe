"""Runs that end while garbage is collected, over and over: nothing that a kept run needs is lost, and `verify` tells no
tales. Run: pytest tests/faults/test_race.py
"""

from __future__ import annotations

import multiprocessing
import queue
import random
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

import lntx
from lntx.runs.garbage import collect_garbage
from lntx.runs.records import load_runs, read_pointer
from lntx.runs.verify import verify
from lntx.store.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_WORKERS = 3
_ROUNDS = 17


def _run(root: Path, worker: int, told: Any) -> None:
    """Each configuration four times, with others in between: no run that is kept needs its results by then."""
    for number in range(_ROUNDS):
        for seed in (number + 3, number + 2, number + 1, number):
            run = lntx.run(
                data={"num_rows": 30},
                train={"seed": 1000 * worker + seed},
                export={"formats": ["safetensors"]},
                root=root,
            )
            latest = next((one for one in load_runs(Store(root)) if one.run < run.run), None)
            kept = () if latest is None else {report.key for report in latest.stages.values()}
            train = run.stages["train"]
            told.put((run.verdict, train.state == "cached", train.key in kept))


def _collect(root: Path, over: Event, told: Any) -> None:
    pause = random.Random(1)
    while not over.is_set():
        told.put(len(collect_garbage(Store(root), keep=1).removed))
        # Without a pause nothing would be left to hit.
        time.sleep(pause.uniform(0, 4))


def _verify(root: Path, over: Event, told: Any) -> None:
    while not over.is_set():
        found = verify(Store(root))
        told.put([f"{one.path}: {one.problem}" for one in (*found.damaged, *found.losses)])


def test_runs_that_end_under_a_collection_lose_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    Store(root).prepare()
    spawned = multiprocessing.get_context("spawn")
    over = spawned.Event()
    runs, collections, checks = spawned.Queue(), spawned.Queue(), spawned.Queue()
    beside = [
        spawned.Process(daemon=True, target=_collect, args=(root, over, collections)),
        spawned.Process(daemon=True, target=_verify, args=(root, over, checks)),
    ]
    workers = [spawned.Process(daemon=True, target=_run, args=(root, number, runs)) for number in range(_WORKERS)]
    for process in (*beside, *workers):
        process.start()
    ended = [runs.get(timeout=300) for _ in range(_WORKERS * _ROUNDS * 4)]
    for process in workers:
        process.join()
    over.set()
    found, removed = _all_of(checks), sum(_all_of(collections))
    for process in beside:
        process.join()
    hits = sum(is_cached for _, is_cached, _ in ended)
    unneeded = sum(is_cached and not is_needed for _, is_cached, is_needed in ended)
    print(f"{len(ended)} runs, {hits} hits, {unneeded} of results that no other run needs; {removed} removals")
    assert len(ended) >= 200
    # How many depends on the load of the machine; a few show that the race took place.
    assert unneeded >= 10
    assert removed > 20
    assert {verdict for verdict, _, _ in ended} == {"pass"}
    assert [lines for lines in found if lines] == []
    store = Store(root)
    pointer = read_pointer(store)
    assert pointer is not None
    for exports in (pointer.exports, *(run.exports for run in load_runs(store))):
        assert all((root / path).exists() for path in exports.values())
    assert verify(store).damaged == ()


def _all_of(told: Any) -> list[Any]:
    """What was told by processes that are about to end."""
    time.sleep(2)
    found = []
    while True:
        try:
            found.append(told.get(timeout=1))
        except queue.Empty:
            return found
