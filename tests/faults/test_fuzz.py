"""Random bytes, random JSON and changed real files in the place of every file that is read back, but for .pt2 files:
a clear line and an exit code of the contract, never a traceback, a hang or a gigabyte.

Run: pytest tests/faults/test_fuzz.py -s; LNTX_FUZZ_SEED repeats one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from driving import command

import lntx
from flows.server.home import Home
from lntx.base.errors import LntxError
from lntx.canary.suite.baseline import Baseline
from lntx.canary.trainings.drift import TrainingBits
from lntx.config.loading import settle
from lntx.data.importing import import_table
from lntx.data.tables import look_at
from lntx.export.formats import load_predictor
from lntx.runs.records import load_runs, read_pointer, run_names
from lntx.store import stat_cache
from lntx.store.key import digest_of
from lntx.store.leases import in_use
from lntx.store.record import read_record
from lntx.store.sealed import DamagedFile
from lntx.store.store import Store
from lntx.sweep import sweep as sweeping
from lntx.training.checkpoints import Checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

_TIMES = 700
_COMMANDS = 8
_MOST_BYTES = 10**9


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a file of every kind."""
    root = tmp_path_factory.mktemp("real") / "root"
    lntx.run(root=root, export={"formats": ["safetensors", "onnx"]}, data={"num_rows": 50})
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.5, 9.25], "y": [2.0, 4.5, 7.0, 1.0]})
    frame.to_csv(root / "table.csv", index=False)
    frame.to_parquet(root / "table.parquet", index=False)
    (root / "settings.toml").write_text("[data]\nseed = 3\nweights = [1.5, 2]\n[train]\nlearning_rate = 'auto'\n")
    sweeping.sweep(settle(), {"train.seed": [1, 2]}, root=root)
    (root / "artifacts" / ".verified.json").write_text(
        json.dumps(
            {"data/dataset-0123456789abcdef.parquet": {"state": [1, 2, 3, 4], "sha256": "a" * 64, "read_at": 1.5}}
        )
    )
    record = TrainingBits(at="2024-01-01", versions={"torch": "2"}, bits=("a", "b"))
    _baseline(root).update(lambda records: (None, record))
    home = Home(root)
    home.prepare()
    home.secret()
    home.write_options({"port": 4200})
    (home.folder / "state.json").write_text('{"pid": 3, "url": "http://127.0.0.1:4200", "started_at": "2024"}')
    (home.folder / "lock").write_text("77")
    Checkpoints(root / "checkpoint").save({"epoch": 3})
    return root


def _one(root: Path, pattern: str) -> Path:
    return next(iter(sorted(root.glob(pattern))))


def _baseline(root: Path) -> Baseline[TrainingBits]:
    return Baseline(Store(root), TrainingBits, {"device": "a processor"})


def _read_table(path: Path) -> None:
    import_table(
        settle(overrides={"data": {"path": str(path), "target": "y"}}).data, look_at(path), path.with_suffix(".out")
    )


KINDS: dict[str, tuple[str, Callable[[Path, Path], object]]] = {
    "record": ("artifacts/records/train/*.json", lambda _root, path: read_record(path)),
    "run": ("artifacts/runs/*.json", lambda root, _path: ([*load_runs(Store(root))], run_names(Store(root)))),
    "pointer": ("artifacts/current.json", lambda root, _path: read_pointer(Store(root))),
    "memo": ("artifacts/.verified.json", lambda root, path: stat_cache.StatCache(root, path)._load()),
    "journal": ("artifacts/.journal.jsonl", lambda root, _path: Store(root).journal.known()),
    "model": ("artifacts/export/model-*.safetensors", lambda _root, path: load_predictor(path)(np.ones((1, 1)))),
    "onnx": ("artifacts/export/model-*.onnx", lambda _root, path: load_predictor(path)(np.ones((1, 1)))),
    "sweep": ("artifacts/sweeps/*.jsonl", lambda _root, path: sweeping._read_log(path)),
    "baseline": ("artifacts/canary/*.json", lambda root, _path: _baseline(root).load()),
    "checkpoint": ("checkpoint", lambda _root, path: Checkpoints(path).load()),
    "state": ("artifacts/.server/state.json", lambda root, _path: _with_lock(Home(root))),
    "options": ("artifacts/.server/options.json", lambda root, _path: Home(root).read_options()),
    "secret": ("artifacts/.server/auth", lambda root, _path: Home(root).secret()),
    "marker": ("artifacts/.locks/*.lock", lambda root, _path: in_use(root / "artifacts" / ".locks", sweep=False)),
    "settings": ("settings.toml", lambda _root, path: settle(file=path)),
    "csv": ("table.csv", lambda _root, path: _read_table(path)),
    "parquet": ("table.parquet", lambda _root, path: _read_table(path)),
}


def _with_lock(home: Home) -> object:
    with home.held():
        return home.running()


def _random_json(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.randrange(9 if depth < 4 else 7)
    if kind == 7:
        return [_random_json(draw, depth + 1) for _ in range(draw.randrange(5))]
    if kind == 8:
        return {_text(draw): _random_json(draw, depth + 1) for _ in range(draw.randrange(5))}
    return (
        None,
        True,
        draw.randrange(-(10**30), 10**30),
        draw.uniform(-1e300, 1e300),
        _text(draw),
        "../" * 3 + "x",
        0,
    )[kind]


def _text(draw: random.Random) -> str:
    return "".join(draw.choice(string.printable + "\u202e\u0000é") for _ in range(draw.randrange(12)))


def _changed_json(draw: random.Random, value: Any) -> Any:
    """The value with one thing in it replaced, wherever it is."""
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(sorted(value))
        if draw.random() < 0.1:
            return {name: one for name, one in value.items() if name != key}
        return {**value, key: _changed_json(draw, value[key])}
    if isinstance(value, list) and value and draw.random() < 0.85:
        place = draw.randrange(len(value))
        return [*value[:place], _changed_json(draw, value[place]), *value[place + 1 :]]
    return _random_json(draw)


def _bytes(draw: random.Random, real: bytes) -> bytes:
    """What a file may be instead of what it was."""
    kind = draw.randrange(8)
    if kind == 0:
        return draw.randbytes(draw.randrange(300))
    if kind == 1:
        return json.dumps(_random_json(draw)).encode("utf-8", "surrogatepass")
    if kind == 2:
        return draw.choice([b"[", b'{"a":', b"(", b"\x08\x01", b"a = [["]) * draw.randrange(1, 60_000)
    if kind in (3, 4, 5):
        with contextlib.suppress(ValueError):
            value = _changed_json(draw, json.loads(real))
            if kind == 3 and isinstance(value, dict) and "digest" in value:
                # With a digest that is right.
                value = {name: one for name, one in value.items() if name != "digest"}
                value["digest"] = digest_of(value)
            return json.dumps(value).encode("utf-8", "surrogatepass")
    content = bytearray(real)
    for _ in range(draw.randrange(1, 6)):
        place = draw.randrange(len(content) + 1)
        change = draw.randrange(3)
        if change == 0:
            content[place : place + 1] = draw.randbytes(1)
        elif change == 1:
            del content[place : place + draw.randrange(30)]
        else:
            content[place:place] = draw.randbytes(draw.randrange(30))
    return bytes(content)


@pytest.fixture
def seed() -> int:
    found = int(os.environ.get("LNTX_FUZZ_SEED", random.SystemRandom().randrange(2**32)))
    print(f"LNTX_FUZZ_SEED={found}")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_back_may_be_anything(real: Path, tmp_path: Path, seed: int, kind: str) -> None:
    root = tmp_path / "root"
    shutil.copytree(real, root)
    pattern, read = KINDS[kind]
    path = _one(root, pattern)
    content = path.read_bytes()
    draw = random.Random(f"{seed} {kind}")
    before = _forget_peak_memory()
    for number in range(_TIMES):
        path.write_bytes(_bytes(draw, content))
        said = ""
        try:
            read(root, path)
        except (LntxError, DamagedFile) as error:
            said = str(error)
        assert said.replace("\n", "").isprintable(), number
        assert len(said) < 2100, number
    assert _memory("VmHWM") - before < _MOST_BYTES


def _memory(name: str) -> int:
    """A figure of this process, in bytes."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def _forget_peak_memory() -> int:
    """The memory that this process takes now; its peak is counted from here, not from the tests before."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


_HISTORY = [("verify",), ("runs",), ("show",), ("gc", "--keep", "1")]

_ASKED: dict[str, list[tuple[str, ...]]] = {
    "record": _HISTORY,
    "run": _HISTORY,
    "pointer": _HISTORY,
    "memo": _HISTORY,
    "journal": _HISTORY,
    "model": [("predict", "3", "--model", "{}")],
    "onnx": [("predict", "3", "--model", "{}")],
    "sweep": [("sweep", "--over", "train.seed=1,2")],
    "state": [("down",)],
    "secret": [("down",)],
    "settings": [("plan", "--config", "{}")],
    "csv": [("fit", "{}", "--target", "y", "--local", "--until", "generate")],
    "parquet": [("fit", "{}", "--target", "y", "--local", "--until", "generate")],
}


@pytest.mark.parametrize("kind", _ASKED)
def test_commands_answer_whatever_they_read(real: Path, tmp_path: Path, seed: int, kind: str) -> None:
    draw = random.Random(f"{seed} {kind} as a command")
    most = 0
    for number in range(_COMMANDS):
        root = tmp_path / f"{number}"
        shutil.copytree(real, root)
        path = _one(root, KINDS[kind][0])
        path.write_bytes(_bytes(draw, path.read_bytes()))
        words = [word.format(path) for word in _ASKED[kind][number % len(_ASKED[kind])]]
        code, out, used = _ran(command(*words, root=root), tmp_path)
        assert code in (0, 1, 2, 3, 4, 5), (number, out)
        assert "Traceback" not in out, (number, out)
        assert out.replace("\n", "").replace("\r", "").isprintable(), (number, out)
        if code:
            assert "lntx: " in out or code in (4, 5), (number, out)
        most = max(most, used)
        shutil.rmtree(root)
    print(f"{kind}: {most / 1e6:.0f} MB at most")
    assert most < _MOST_BYTES


# A process has at least the memory of the one that started it: this one has little.
_RUN = """
import json, os, sys
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024], file)
"""


def _ran(words: list[str], folder: Path) -> tuple[int, str, int]:
    """Exit code, what it said, and the most memory it had."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _RUN, str(folder / "usage"), *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=True,
    )
    code, most = json.loads((folder / "usage").read_text())
    return code, done.stdout.decode(errors="replace"), most
