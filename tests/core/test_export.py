"""Exports: what the files hold, who can read them, and what read-back catches. Run: pytest tests/core/test_export.py"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy
import torch

from lntx.base.errors import BadInput
from lntx.base.files import sha256_of
from lntx.config.schema import Format
from lntx.export.export import prove
from lntx.export.formats import FORMATS, load_model, load_predictor
from lntx.training.model import LNTXLinearModel


def _model(*weights: float, bias: float | None = None, dtype: torch.dtype = torch.float64) -> LNTXLinearModel:
    model = LNTXLinearModel(len(weights), bias=bias is not None, dtype=dtype)
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor([weights], dtype=torch.float64))
        if bias is not None:
            model.linear.bias.fill_(bias)
    return model


def _written(model: LNTXLinearModel, name: Format, folder: Path) -> Path:
    path = folder / f"model.{name}"
    path.write_bytes(FORMATS[name].write(model))
    return path


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("bias", [None, 2.5])
def test_every_format_answers_any_number_of_rows(
    tmp_path: Path, name: Format, dtype: torch.dtype, bias: float | None
) -> None:
    model = _model(3.7, -1.2, 0.5, bias=bias, dtype=dtype)
    path = _written(model, name, tmp_path)
    predict = load_predictor(path, trusted={sha256_of(path)})
    for rows in (1, 2, 7, 1000):
        x = np.linspace(-1, 1, rows * 3).reshape(rows, 3)
        answer = predict(x)
        assert answer.shape == (rows, 1)
        assert str(answer.dtype) == str(dtype).removeprefix("torch.")
        with torch.no_grad():
            assert np.allclose(answer, model(torch.tensor(x, dtype=dtype)).numpy(), rtol=1e-6, atol=1e-5)
    found = prove(path, model)
    assert found.problem is None
    assert found.max_error is not None
    assert found.max_error <= 4


def test_safetensors_holds_the_weights_bit_for_bit(tmp_path: Path) -> None:
    weights = (3.7, 0.1 + 0.2, -1e-300)
    path = _written(_model(*weights, bias=1 / 3), "safetensors", tmp_path)
    tensors = safetensors.numpy.load_file(path)
    assert tensors["linear.weight"].tolist() == [list(weights)]
    assert tensors["linear.bias"].tolist() == [1 / 3]
    assert load_model(path).weights == weights


def test_pt2_holds_no_rows_no_names_and_no_traces(tmp_path: Path) -> None:
    path = _written(_model(*range(1, 101)), "pt2", tmp_path)
    # 100 weights are 800 bytes; the rest is the program.
    assert path.stat().st_size < 12_000
    everything = b"".join(zipfile.ZipFile(path).read(name) for name in zipfile.ZipFile(path).namelist())
    names = " ".join(zipfile.ZipFile(path).namelist()).encode()
    for leak in (str(tmp_path), sys.prefix, str(Path.home()), "site-packages", "model.pt2", ".py"):
        assert leak.encode() not in everything + names, leak


def test_onnx_is_one_gemm_that_others_run(tmp_path: Path) -> None:
    path = _written(_model(3.7, -1.2, bias=2.0), "onnx", tmp_path)
    graph = onnx.load(path).graph
    assert [node.op_type for node in graph.node] == ["Gemm"]
    session = onnxruntime.InferenceSession(str(path))
    assert session.run(None, {"x": np.array([[1.0, 1.0]])})[0].tolist() == [[3.7 - 1.2 + 2.0]]


@pytest.mark.parametrize("name", FORMATS)
def test_read_back_catches_a_wrong_file(tmp_path: Path, name: Format) -> None:
    right = _model(3.7, -1.2, bias=2.0)
    for wrong, problem in (
        (_model(3.7 * (1 + 1e-13), -1.2, bias=2.0), "predicts"),
        (_model(-1.2, 3.7, bias=2.0), "predicts"),
        (_model(3.7, -1.2, bias=2.1), "predicts"),
        (_model(3.7, -1.2, bias=2.0, dtype=torch.float32), "answers in float32 where the model is float64"),
        (_model(3.7, -1.2, 1.0, bias=2.0), ""),
        (_model(3.7, float("nan"), bias=2.0), "NaN"),
    ):
        found = prove(_written(wrong, name, tmp_path), right)
        assert found.problem is not None
        assert problem in found.problem
    path = _written(right, name, tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    assert prove(path, right).problem is not None


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no model at"):
        load_predictor(tmp_path / "none.safetensors")
    other = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"embedding": np.zeros(3)}, other)
    with pytest.raises(BadInput, match="is not a linear model of floats: it holds embedding"):
        load_model(other)
    other.write_bytes(b"junk")
    with pytest.raises(BadInput, match="cannot be loaded as a model"):
        load_model(other)
    for suffix in ("pt2", "onnx"):
        junk = tmp_path / f"junk.{suffix}"
        junk.write_bytes(b"junk")
        with pytest.raises(BadInput, match="cannot be loaded as a model"):
            load_predictor(junk, trusted={sha256_of(junk)})
        path = _written(_model(3.7), suffix, tmp_path)  # type: ignore[arg-type]
        with pytest.raises(BadInput, match="cannot take 2 numbers a row"):
            load_predictor(path, trusted={sha256_of(path)})(np.array([[1.0, 2.0]]))
    text = tmp_path / "model.txt"
    text.touch()
    with pytest.raises(BadInput, match=r"must end in .safetensors, .pt2, .onnx"):
        load_predictor(text)


def test_read_back_ignores_modules_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('not yours')")
    code = "import lntx; print(lntx.run(root='root', export={'formats': ['safetensors']}).verdict)"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "pass\n"), done.stderr


def test_a_model_without_a_generator_starts_at_zero() -> None:
    assert LNTXLinearModel(2, bias=True).weights == (0.0, 0.0)
    assert json.dumps(LNTXLinearModel(1).bias) == "null"


def test_an_interrupted_question_is_not_answered_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lntx.export import worker

    path = _written(_model(3.7), "safetensors", tmp_path)
    helper = worker.fresh_process()

    def interrupted() -> str:
        raise KeyboardInterrupt

    answers = helper._process.stdout
    assert answers is not None
    with monkeypatch.context() as patch:
        patch.setattr(helper._process, "stdout", SimpleNamespace(readline=interrupted, close=answers.close))
        with pytest.raises(KeyboardInterrupt):
            prove(path, _model(3.7))
    assert worker.fresh_process() is not helper
    assert prove(path, _model(3.7)).problem is None
