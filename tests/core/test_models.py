"""Which model predicts, and what it refuses. Run: pytest tests/core/test_models.py"""

from __future__ import annotations

from pathlib import Path

import pytest

import lntx
from lntx.errors import BadInput, Damaged


def test_predictions_come_from_the_last_passing_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no passing run"):
        lntx.predict(3, root=tmp_path)
    run = lntx.run(root=tmp_path, export={"formats": ["safetensors"]})
    lntx.run(preset="tutorial", root=tmp_path)
    assert lntx.predict(3, root=tmp_path).tolist() == [3 * 3.7]
    assert lntx.predict([[1.0], [2.0]], run=run.run, root=tmp_path).tolist() == [3.7, 7.4]
    assert lntx.predict(3, model=tmp_path / run.exports["safetensors"], root=tmp_path).tolist() == [3 * 3.7]
    with pytest.raises(BadInput, match=r"takes 1 numbers \(x\), got 2"):
        lntx.predict([1.0, 2.0], root=tmp_path)
    with pytest.raises(BadInput, match="there is no run 'x'"):
        lntx.predict(3, run="x", root=tmp_path)
    with pytest.raises(BadInput, match="must be finite, got nan"):
        lntx.predict(float("nan"), root=tmp_path)
    with pytest.raises(BadInput, match="too large"):
        lntx.predict(1e308, root=tmp_path)
    path = tmp_path / run.exports["safetensors"]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(Damaged, match="was altered"):
        lntx.predict(3, root=tmp_path)
    path.unlink()
    with pytest.raises(BadInput, match="is gone"):
        lntx.predict(3, root=tmp_path)
