"""What must change neither bits nor time: threads, the size of what is cached.

Run: pytest tests/faults/test_same_bits.py
"""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from driving import bits, lntx, run, states

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@pytest.mark.parametrize(
    "more", [(), ("--train.dtype", "float32"), ("--train.gradient", "moments"), ("--train.batch-size", "1000")], ids=str
)
def test_one_thread_or_two_make_the_same_files(tmp_path: Path, more: tuple[str, ...]) -> None:
    settings = ("--data.num-features", "3", "--data.num-rows", "150000", "--data.noise", "0.5", *more)
    one, two = (bits(run(tmp_path / count, *settings, env=dict.fromkeys(THREADS, count))) for count in ("1", "2"))
    assert one == two


def processor_seconds() -> float:
    """Of the commands that ended so far, reading files included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_large_dataset_costs_a_cached_run_and_a_plan_no_more_than_a_small_one(tmp_path: Path) -> None:
    """2 GB beside 1 MB: a hit on a file that did not change does not read it."""
    took: dict[tuple[str, str], list[float]] = {}
    asked: dict[str, tuple[str, ...]] = {}
    for size, num_rows in (("small", "62500"), ("large", "125000000")):
        asked[size] = ("--data.num-rows", num_rows, "--data.distribution", "uniform", "--until", "evaluate")
        assert run(tmp_path / size, *asked[size]).code == 0
    # Processor time: others use this machine too. In turn, and the least of each.
    for _ in range(4):
        for size, settings in asked.items():
            for what, words in (("run", ("run", "--local", "--json")), ("plan", ("plan",))):
                began = processor_seconds()
                done = lntx(*words, *settings, root=tmp_path / size)
                took.setdefault((size, what), []).append(processor_seconds() - began)
                assert done.code == 0
                if what == "run":
                    assert set(states(done).values()) == {"cached", "skipped"}
    stored = sum(path.stat().st_size for path in (tmp_path / "large" / "data").iterdir())
    least = {name: min(seconds) for name, seconds in took.items()}
    print(f"{stored / 1e9:.2f} GB; seconds {least}")
    assert stored > 1.99e9
    for what in ("run", "plan"):
        assert least["large", what] - least["small", what] <= 0.2
