"""A Ray cluster of two nodes on this machine: the bits of one process, and what happens when a node does not fit."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commandline import Done
from driving import bits, command, lntx, until

pytest.importorskip("ray", reason="Ray is not installed: pip install 'lntx[ray]'")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # Ray's own, in the process of the tests.
    pytest.mark.filterwarnings("ignore"),
]

# Two files of rows, each of four parts.
ROWS = ("--data.num-rows", "20000000", "--data.noise", "0.5", "--export.formats", "safetensors")


@contextlib.contextmanager
def _two_nodes(**environment: str) -> Iterator[Any]:
    """Start a head and a second node, with more variables in the environment of the second."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.second = cluster.add_node(num_cpus=1, env_vars=environment)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with _two_nodes() as started:
        yield started


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The digests of every stage, computed in one process."""
    return bits(lntx("run", "--local", "--json", *ROWS, root=tmp_path_factory.mktemp("alone")))


def _on(cluster: Any, *words: str, root: Path, **options: Any) -> Done:
    return lntx(*words, "--engine", "ray", "--ray-address", cluster.address, root=root, **options)


def test_a_cluster_gives_the_bits_of_one_process(cluster: Any, alone: dict[str, list[str]], tmp_path: Path) -> None:
    assert bits(_on(cluster, "run", "--local", "--json", *ROWS, root=tmp_path)) == alone


def test_a_flow_run_works_on_a_cluster_too(cluster: Any, alone: dict[str, list[str]], tmp_path: Path) -> None:
    assert bits(_on(cluster, "run", "--json", *ROWS, root=tmp_path)) == alone


def test_a_table_and_a_sweep_work_on_a_cluster(cluster: Any, tmp_path: Path) -> None:
    table = Path(__file__).parents[1] / "data" / "Norris.csv"
    assert (
        _on(cluster, "fit", str(table), "--target", "y", "--local", "--json", root=tmp_path).json["verdict"] == "pass"
    )
    over = ("sweep", "--over", "train.gradient=autograd", "--over", "train.seed=1,2", "--json")
    assert {row["verdict"] for row in _on(cluster, *over, root=tmp_path).json["trials"]} == {"pass"}


def test_a_killed_node_costs_its_parts_and_not_the_run(alone: dict[str, list[str]], tmp_path: Path) -> None:
    with _two_nodes() as cluster:
        words = command("run", "--local", "--json", *ROWS, root=tmp_path)
        process = subprocess.Popen(
            [*words, "--engine", "ray", "--ray-address", cluster.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until(lambda: _begun(tmp_path), seconds=120, every=0.01)
            cluster.remove_node(cluster.second, allow_graceful=False)
            out, err = process.communicate(timeout=280)
        finally:
            process.kill()
        assert bits(Done(code=process.returncode, out=out, err=err)) == alone


def test_a_lost_driver_leaves_a_store_to_go_on_from(cluster: Any, alone: dict[str, list[str]], tmp_path: Path) -> None:
    words = command("run", "--local", "--json", *ROWS, root=tmp_path)
    process = subprocess.Popen([*words, "--engine", "ray", "--ray-address", cluster.address], stdout=subprocess.DEVNULL)
    until(lambda: _begun(tmp_path), seconds=120, every=0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert bits(_on(cluster, "run", "--local", "--json", *ROWS, root=tmp_path)) == alone


def test_a_wrong_node_is_named(tmp_path: Path) -> None:
    """On one node, SGD takes steps that are a little too long."""
    fault = tmp_path / "fault"
    fault.mkdir()
    (fault / "sitecustomize.py").write_text(_FAULT, encoding="utf-8")
    paths = os.pathsep.join([str(fault), os.environ.get("PYTHONPATH", "")])
    with _two_nodes(PYTHONPATH=paths) as cluster:
        wrong = cluster.second.node_id[:6]
        done = _on(cluster, "canary", "--local", "--every-node", "--json", root=tmp_path / "root")
        flow = _on(cluster, "canary", "--every-node", root=tmp_path / "root")
    assert (done.code, flow.code) == (3, 3)
    verdicts = {one["place"]: (one["verdict"], one["blame"]) for one in done.json["places"]}
    assert sorted(verdicts.values()) == [("fail", "training"), ("pass", None)]
    (place,) = (name for name, (verdict, _) in verdicts.items() if verdict == "fail")
    assert wrong in place
    assert done.json["reason"].startswith(f"{place}: training: ")
    assert f"{place}  " in flow.out
    assert "FAIL  1 of 2 places right" in flow.out


def test_a_node_with_other_versions_is_refused_before_any_work(tmp_path: Path) -> None:
    other = tmp_path / "other" / "pyarrow-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: pyarrow\nVersion: 0.0.1\n", encoding="utf-8")
    paths = os.pathsep.join([str(other.parent), os.environ.get("PYTHONPATH", "")])
    with _two_nodes(PYTHONPATH=paths) as cluster:
        done = _on(cluster, "run", "--local", "--json", *ROWS, root=tmp_path / "root")
    assert done.code == 1
    assert f"{cluster.second.node_id[:6]}) has pyarrow 0.0.1, this process has " in done.json["error"]["message"]
    assert not [*(tmp_path / "root").rglob("*.parquet")]


def test_a_node_without_the_shared_folder_is_refused(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or os.getuid() != 0:
        pytest.skip("needs the right to mount: run as root")
    root = tmp_path / "root"
    root.mkdir()
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--address", cluster.address, "--num-cpus", "1"]
    hidden = f"mount -t tmpfs none {root} && exec {' '.join(start)} --block"
    node = subprocess.Popen(["unshare", "--mount", "sh", "-c", hidden], stdout=subprocess.DEVNULL)
    try:
        cluster.connect()
        import ray

        until(lambda: sum(one["Alive"] for one in ray.nodes()) == 2, seconds=60)
        ray.shutdown()
        done = _on(cluster, "run", "--local", "--json", root=root)
    finally:
        node.terminate()
        node.wait()
        cluster.shutdown()
    assert done.code == 1
    assert "mount the same folder on every node" in done.json["error"]["message"]


def test_an_address_where_nothing_listens_is_an_error_of_one_line(tmp_path: Path) -> None:
    done = lntx("run", "--local", "--json", "--engine", "ray", "--ray-address", "127.0.0.1:1", root=tmp_path)
    assert done.code == 1
    assert "cannot reach '127.0.0.1:1'" in done.json["error"]["message"]


def _begun(root: Path) -> bool:
    """Whether a file of rows is being written."""
    return any(path.name.endswith(".parquet") for path in (root / "data").glob(".staging-*/work-*/*"))


_FAULT = """
import importlib.abc, importlib.util, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "torch.optim.sgd":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            init = module.SGD.__init__
            def wrong(self, *args, **options):
                init(self, *args, **options)
                for group in self.param_groups:
                    group["lr"] *= 1.001
            module.SGD.__init__ = wrong
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
