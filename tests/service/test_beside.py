"""Whatever stands in data/ and artifacts/ beside lntx's own files stays, commands and crashes of them notwithstanding.

Run: pytest tests/service/test_beside.py
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from driving import command, lntx, run, until
from service import serving, up

from flows.server.home import Home

pytestmark = [pytest.mark.flow, pytest.mark.slow, pytest.mark.timeout(1200)]

_SETTINGS = ("--data.num-rows", "20000", "--data.noise", "1", "--data.bias", "1")


def _plant(root: Path, draw: random.Random) -> dict[Path, bytes]:
    """Files whose names are those of the store's own but for a digit or an ending, in every folder that it has."""
    ours = [path for top in ("data", "artifacts") for path in (root / top).rglob("*") if path.is_file()]
    folders = sorted({path.parent for path in ours} | {root / "artifacts" / "reports", root / "artifacts" / ".damaged"})
    planted: dict[Path, bytes] = {}
    for path in ours:
        digits = [k for k, sign in enumerate(path.name) if sign in "0123456789abcdef"]
        name = list(path.name)
        for k in draw.sample(digits, min(2, len(digits))):
            name[k] = draw.choice("0123456789")
        content = path.read_bytes() if draw.random() < 0.5 else draw.randbytes(20)
        planted[path.with_name("".join(name))] = content
        planted[draw.choice(folders) / path.name] = content
        planted[path.with_name(f".{path.name}-77-deadbeef")] = content
    for top in ("data", "artifacts/train", "artifacts/export"):
        planted[root / top / f".staging-{draw.randbytes(32).hex()}" / "model.safetensors"] = b"mine"
    old = time.time() - 60 * 86400
    kept = {}
    for path, content in planted.items():
        if not path.exists() and ".prefect" not in path.parts and ".server" not in path.parts:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            os.utime(path, (old, old))
            kept[path] = content
    return kept


@pytest.mark.parametrize("seed", range(3))
def test_commands_that_end_and_commands_that_are_killed_leave_it_alone(tmp_path: Path, seed: int) -> None:
    root, draw = tmp_path / "root", random.Random(seed)
    assert run(root, *_SETTINGS).code == 0
    planted = _plant(root, draw)
    assert len(planted) > 40
    for words in (("run", "--local", *_SETTINGS, "--train.seed", "1"), ("gc", "--keep", "0"), ("verify", "--heal")):
        for _ in range(4):
            process = subprocess.Popen(command(*words, root=root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(draw.uniform(0.5, 3.0))
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert lntx(*words, root=root).code == 0
        assert {path: path.read_bytes() for path in planted} == planted, words
    assert lntx("gc", "--keep", "1", "--older-than", "0s", root=root).code == 0
    assert {path: path.read_bytes() for path in planted} == planted


def test_a_server_that_runs_and_one_that_is_killed_leave_it_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert run(root, *_SETTINGS).code == 0
    with serving(root, "--no-canary", "--keep", "1", "--keep-days", "0.00001") as service:
        planted = _plant(root, random.Random(7))
        for deployment in ("pipeline", "gc-scheduled"):
            assert service.ended(service.start(deployment))["state"]["name"] == "Completed"
        os.kill(service.told["pid"], signal.SIGKILL)
        until(lambda: not Home(root).is_held())
        assert up(root, "--no-canary", port=service.port).code == 0
        assert {path: path.read_bytes() for path in planted} == planted
    assert {path: path.read_bytes() for path in planted} == planted
