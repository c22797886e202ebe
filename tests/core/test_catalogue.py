"""Long catalogues: `make test-all` alone runs them. Run: pytest tests/core/test_catalogue.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import lntx

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("weight", ["known", "drawn"])
def test_a_hundred_whole_runs_in_one_process_are_exact(tmp_path: Path, weight: str) -> None:
    """Export and read-back included; the JSON is the bytes of the file."""
    generator = np.random.Generator(np.random.PCG64(2))
    for seed in range(100):
        truth = 3.7 if weight == "known" else float(generator.uniform(-10, 10))
        run = lntx.run(data={"weights": [truth], "seed": seed}, train={"seed": 500 + seed}, root=tmp_path)
        assert run.verdict == "pass"
        assert run.learned_weights == (truth,)
        tensors = safetensors.numpy.load_file(tmp_path / run.exports["safetensors"])
        assert tensors["linear.weight"].tolist() == [list(run.learned_weights)]


@pytest.mark.parametrize("num_features", [1, 3, 10, 30])
@pytest.mark.parametrize("bias", [0.0, 2.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_shapes_pass_at_their_defaults(
    tmp_path: Path, num_features: int, bias: float, dtype: str, noise: float
) -> None:
    for seed in range(10):
        run = lntx.run(
            data={
                "num_features": num_features, "bias": bias, "noise": noise, "seed": seed, "distribution": "uniform",
            },
            train={"dtype": dtype, "seed": seed},
            until="evaluate",
            root=tmp_path,
        )  # fmt: skip
        assert run.verdict == "pass", run.reason


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_ten_million_rows_are_exact(tmp_path: Path, dtype: str) -> None:
    """torch's own float32 weight gradient is 3.6 % off here."""
    train: dict[str, Any] = {"dtype": dtype}
    run = lntx.run(data={"num_rows": 10_000_000}, train=train, until="evaluate", root=tmp_path)
    assert run.verdict == "pass"
    assert run.learned_weights == (float(np.dtype(dtype).type(3.7)),)
    stored = (tmp_path / run.stages["generate"].files[0].path).stat().st_size
    assert stored < 2.2 * 10_000_000
