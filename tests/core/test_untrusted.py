"""Hostile files: no code runs, nothing hangs, a clear line is all. Run: pytest tests/core/test_untrusted.py"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy

import lntx
import lntx.export.formats
from lntx.base.errors import BadInput, LntxError
from lntx.config.loading import settle
from lntx.data.tables import look_at
from lntx.export.formats import FORMATS
from lntx.store.store import Store


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[Path, Path]:
    """A .pt2 archive that makes a file when it is loaded, and that file."""
    model = lntx.LNTXLinearModel(1)
    made, marker = tmp_path / "hostile.pt2", tmp_path / "code ran"
    content = tmp_path / "right.pt2"
    content.write_bytes(FORMATS["pt2"].write(model))
    code = f"__import__('pathlib').Path({str(marker)!r}).touch() or 1"
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("models/model.json"):
                # Sizes of tensors are evaluated as expressions.
                data, count = re.subn(
                    rb'"as_expr": ?\{ ?"expr_str": ?"[^"]*"',
                    b'"as_expr": {"expr_str": "' + code.replace('"', "'").encode() + b'"',
                    data,
                )
                assert count
            new.writestr(name, data)
    return made, marker


def test_a_pt2_file_of_others_runs_no_code(tmp_path: Path, hostile: tuple[Path, Path]) -> None:
    path, marker = hostile
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BadInput, match=f"can run code when it is loaded.*--trust {sha256}"):
        lntx.predict(3, model=path, root=tmp_path / "root")
    assert not marker.exists()
    # That it would run: what --trust is for.
    code = f"import lntx; lntx.predict(3, model={str(path)!r}, trust={sha256!r})"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, cwd=tmp_path)
    assert marker.exists()


def test_a_pt2_export_of_the_root_is_used_and_a_changed_one_is_not(tmp_path: Path, hostile: tuple[Path, Path]) -> None:
    run = lntx.run(root=tmp_path, export={"formats": ["pt2"]})
    path = tmp_path / run.exports["pt2"]
    assert lntx.predict(3, root=tmp_path).tolist() == [3 * 3.7]
    copied = tmp_path / "copied.pt2"
    copied.write_bytes(path.read_bytes())
    assert lntx.predict(3, model=copied, root=tmp_path).tolist() == [3 * 3.7]
    with pytest.raises(BadInput, match="no export of this root"):
        lntx.predict(3, model=copied, root=tmp_path / "other")
    path.write_bytes(hostile[0].read_bytes())
    for asked in ({}, {"run": run.run}, {"model": path}):
        with pytest.raises(LntxError, match=r"was altered|can run code"):
            lntx.predict(3, root=tmp_path, **asked)
    assert not hostile[1].exists()


def test_one_function_loads_archives() -> None:
    package = Path(lntx.__file__).parent
    calls = [
        path.name
        for folder in (package, package.parent / "flows")
        for path in folder.rglob("*.py")
        for line in path.read_text().splitlines()
        if "export.load(" in line and "`" not in line
    ]
    assert calls == ["formats.py"]


def test_onnx_with_weights_elsewhere_is_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(FORMATS["onnx"].write(lntx.LNTXLinearModel(3)))
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(3.0).tobytes())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BadInput, match="keeps its weights in other files"):
        lntx.predict([1.0, 2.0, 3.0], model=path, root=tmp_path)
    # As deep as it may lie.
    inner = onnx.helper.make_graph([], "inner", [], [], [tensor])
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    outer = onnx.helper.make_model(onnx.helper.make_graph([node], "outer", [], []))
    path.write_bytes(outer.SerializeToString())
    with pytest.raises(BadInput, match="keeps its weights in other files"):
        lntx.predict([1.0], model=path, root=tmp_path)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (np.zeros((1, 0)), "not a linear model"),
        (np.array([[np.nan]]), "NaN or infinite"),
        (np.array([[np.inf]]), "NaN or infinite"),
    ],
)
def test_weights_that_are_none_are_refused(tmp_path: Path, weight: np.ndarray, said: str) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"linear.weight": weight}, path)
    for use in (lntx.load_model, lambda file: lntx.predict([1.0], model=file, root=tmp_path)):
        with pytest.raises(BadInput, match=said):
            use(path)


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, Path]:
    """What is no regular file, under names of every kind that is read."""
    made = {}
    for suffix in ("csv", "parquet", "safetensors", "toml"):
        os.mkfifo(made.setdefault(f"pipe.{suffix}", tmp_path / f"pipe.{suffix}"))
        (tmp_path / f"folder.{suffix}").mkdir()
        made[f"folder.{suffix}"] = tmp_path / f"folder.{suffix}"
        (tmp_path / f"zero.{suffix}").symlink_to("/dev/zero")
        made[f"zero.{suffix}"] = tmp_path / f"zero.{suffix}"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket.csv"))
    server.close()
    return {**made, "socket.csv": tmp_path / "socket.csv"}


@pytest.mark.timeout(150)
def test_only_regular_files_are_read(tmp_path: Path, odd: dict[str, Path]) -> None:
    for path in odd.values():
        if path.suffix in (".csv", ".parquet"):
            with pytest.raises(BadInput, match=r"not a regular file|holds no Parquet file"):
                look_at(path)
        elif path.suffix == ".toml":
            with pytest.raises(BadInput, match="not a regular file"):
                settle(file=path)
        else:
            with pytest.raises(BadInput, match="not a regular file"):
                lntx.predict(1, model=path, root=tmp_path / "root")
    for device in ("/dev/zero", "/dev/stdin"):
        with pytest.raises(BadInput, match="not a regular file"):
            look_at(device)


@pytest.mark.timeout(150)
def test_pipes_in_the_store_hang_nothing(tmp_path: Path) -> None:
    run = lntx.run(root=tmp_path, export={"formats": ["safetensors"]})
    for path in [*(tmp_path / "artifacts" / "records").rglob("*.json"), *(tmp_path / "artifacts" / "runs").iterdir()]:
        path.unlink()
        os.mkfifo(path)
    for name in ("current.json", ".verified.json", ".journal.jsonl"):
        (tmp_path / "artifacts" / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / "artifacts" / name)
    with pytest.raises(BadInput):
        lntx.predict(3, root=tmp_path)
    with pytest.raises(BadInput, match="damaged"):
        lntx.predict(3, run=run.run, root=tmp_path)
    assert list(Store(tmp_path).records("train")) == []


def test_a_refused_file_is_not_quoted_where_values_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what is in a file is in a message of a served flow, whatever is wrong with it."""
    monkeypatch.setenv("LNTX_VALUES", "hidden")
    secret = "s3cr3t"
    for content in (
        f"{secret}:x:0:0\n{secret}\n",
        f"y,a\n1,{secret}\n",
        f"y,a\n{secret}\n",
        f"y,a\n1,2,{secret}\n",
        f'y,a\n"{secret}\n',
    ):
        path = tmp_path / "table.csv"
        path.write_text(content)
        with pytest.raises(BadInput) as caught:
            lntx.fit(path, target="y", features=["a"], root=tmp_path / "root")
        if not content.startswith(secret):
            assert secret not in str(caught.value)
    path = tmp_path / "table.parquet"
    path.write_text(secret)
    with pytest.raises(BadInput) as caught:
        lntx.fit(path, target="y", root=tmp_path / "root")
    assert secret not in str(caught.value)
    model = tmp_path / "model.safetensors"
    model.write_text(secret * 10)
    with pytest.raises(BadInput) as caught:
        lntx.load_model(model)
    assert secret not in str(caught.value)


def test_compressed_csv_is_read_as_what_it_holds(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "table.csv").write_text("y,a\n1,1\n2,2\n4,3\n")
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress((tmp_path / "table.csv").read_bytes()))
    found = [lntx.fit(tmp_path / name, target="y", root=tmp_path / "root") for name in ("table.csv", "table.csv.gz")]
    assert found[0].learned_weights == found[1].learned_weights


@pytest.mark.timeout(150)
def test_files_of_gigabytes_are_refused_unread(tmp_path: Path) -> None:
    """Sparse ones, which cost their maker nothing."""
    run = lntx.run(root=tmp_path, export={"formats": ["safetensors"]})
    for name in ("big.safetensors", "big.onnx", "big.pt2", "big.toml", run.exports["safetensors"]):
        with (tmp_path / name).open("ab") as stream:
            stream.truncate(3 * 10**9)
    for name in ("big.safetensors", "big.onnx", "big.pt2"):
        with pytest.raises(BadInput, match="larger than"):
            lntx.predict(1, model=tmp_path / name, root=tmp_path)
    with pytest.raises(BadInput, match="larger than"):
        settle(file=tmp_path / "big.toml")
    with pytest.raises(BadInput, match="is gone"):
        lntx.predict(1, root=tmp_path)
    for name in (".journal.jsonl", ".verified.json", "current.json"):
        with (tmp_path / "artifacts" / name).open("ab") as stream:
            stream.truncate(10**9)
    assert Store(tmp_path).journal.known()
    with pytest.raises(BadInput, match="damaged"):
        lntx.predict(1, root=tmp_path)


def test_an_onnx_file_says_nothing_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = onnx.load_from_string(FORMATS["onnx"].write(lntx.LNTXLinearModel(1)))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1), "\x1b]0;title\x07\u202e\nPASS"))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    lntx.predict(1, model=path, root=tmp_path)
    assert capfd.readouterr().err == ""
    node = onnx.helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, [None, 1]) for name in "xy"]
    twice = onnx.helper.make_model(
        onnx.helper.make_graph([node], "twice", value[:1], value[1:]), opset_imports=[onnx.helper.make_opsetid("", 20)]
    )
    twice.ir_version = 10
    path.write_bytes(twice.SerializeToString())
    with pytest.raises(BadInput, match="does not give one number for each row"):
        lntx.predict(1, model=path, root=tmp_path)
