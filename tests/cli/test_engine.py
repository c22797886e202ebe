"""Where the rows are worked on: what is refused before any work. tests/cluster has the real thing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commandline import Cli


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("run", "--local", "--ray-address", "10.0.0.1:6379"), "--ray-address '10.0.0.1:6379' belongs to --engine ray"),
        (("canary", "--every-node"), "--every-node needs a cluster: add --engine ray"),
        (("canary", "--engine", "ray"), "a canary with --engine ray runs on every node: add --every-node"),
        (("canary", "--engine", "ray", "--every-node", "--repeat", "2"), "--repeat does not go with --every-node"),
        (("run", "--engine", "dask"), "dask"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(cli: Cli, words: tuple[str, ...], line: str) -> None:
    done = cli(*words)
    assert done.code == 2
    assert line in done.err


def test_an_unknown_engine_in_the_environment_is_refused(cli: Cli) -> None:
    done = cli("run", "--local", env={"LNTX_ENGINE": "dask"})
    assert (done.code, "LNTX_ENGINE must be one of threads, ray, got 'dask'" in done.err) == (2, True)


def test_without_ray_the_option_says_what_to_install(process: Cli, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError('no ray here')")
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = process("run", "--local", "--engine", "ray", env={"PYTHONPATH": paths})
    assert done.code == 2
    assert "--engine ray needs Ray: pip install 'lntx[ray]'" in done.err
