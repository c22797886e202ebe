"""Which model predicts, and what it refuses. Run: pytest tests/core/test_models.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lntx
from lntx.base.errors import BadInput, Damaged
from lntx.models import find_model
from lntx.predictions import write_predictions
from lntx.store.store import Store


def test_predictions_come_from_the_last_passing_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no passing run"):
        lntx.predict(3, root=tmp_path)
    run = lntx.run(root=tmp_path, export={"formats": ["safetensors"]})
    lntx.run(preset="tutorial", root=tmp_path)
    assert lntx.predict(3, root=tmp_path).tolist() == [3 * 3.7]
    assert lntx.predict([[1.0], [2.0]], run=run.run, root=tmp_path).tolist() == [3.7, 7.4]
    assert lntx.predict(3, model=tmp_path / run.exports["safetensors"], root=tmp_path).tolist() == [3 * 3.7]
    with pytest.raises(BadInput, match=r"takes 1 numbers \('x'\), got 2"):
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


def _fitted(root: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """A model of a and b, whose order and neighbours in other tables may differ, and its predictions of the rows."""
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 5.0], "b": [7.0, 1.0, 4.0, 2.0]})
    frame["y"] = 2 * frame["a"] - 3 * frame["b"] + 1
    frame.to_csv(root / "table.csv", index=False)
    assert lntx.fit(root / "table.csv", target="y", root=root).verdict == "pass"
    return frame, frame["y"].to_numpy()


def test_a_frame_is_predicted_by_its_columns_names(tmp_path: Path) -> None:
    frame, y = _fitted(tmp_path)
    for table in (frame[["b", "a"]], frame[["y", "b", "a"]], frame, pa.Table.from_pandas(frame[["b", "a"]])):
        assert np.allclose(lntx.predict(table, root=tmp_path), y, rtol=1e-12)
    with pytest.raises(BadInput, match="the data frame has no column 'b': it has 'a', 'c'"):
        lntx.predict(frame[["a"]].assign(c=1.0), root=tmp_path)
    with pytest.raises(
        BadInput, match=r"column 'b' is text in 4 rows, first in row 1 \('x'\): the model was fitted on numbers"
    ):
        lntx.predict(frame.assign(b="x"), root=tmp_path)
    with pytest.raises(BadInput, match="column 'b' has no value in row 2"):
        lntx.predict(frame.assign(b=[1.0, None, 2.0, 3.0]), root=tmp_path)


@pytest.mark.parametrize("target", ["out.csv", "out.parquet"])
def test_columns_that_are_not_asked_for_pass_unchanged(tmp_path: Path, target: str) -> None:
    _, y = _fitted(tmp_path)
    text = 'code,b,note,n,z,a\n007,7,"a, b",1,0.5,1\n010,1.0,,2,1000.25,2\n011,4,NA,,3,3\n012,2,"say ""x""",4,4,5\n'
    (tmp_path / "in.csv").write_text(text)
    write_predictions(find_model(Store(tmp_path)), tmp_path / "in.csv", tmp_path / target)
    if target.endswith("csv"):
        lines = (tmp_path / target).read_text().splitlines()
        assert [line.rpartition(",")[0] for line in lines] == text.splitlines()
        assert np.allclose([float(line.rpartition(",")[2]) for line in lines[1:]], y, rtol=1e-12)
    else:
        found = pq.read_table(tmp_path / target).to_pydict()
        assert found["code"] == ["007", "010", "011", "012"]
        assert found["note"] == ["a, b", "", "NA", 'say "x"']
        assert (found["n"], found["z"], found["a"]) == ([1, 2, None, 4], [0.5, 1000.25, 3.0, 4.0], [1, 2, 3, 5])
        assert np.allclose(found["prediction"], y, rtol=1e-12)


def test_columns_pass_as_they_are_or_as_text(tmp_path: Path) -> None:
    """No number is rounded, no version loses a zero, and of two columns of one name each keeps its own."""
    _fitted(tmp_path)
    rows = ["1234567890123456789,3.10,12345678901234567890123,1,1,7,x", "1234567890123456788,3.1,0.1,2,2,1,y"]
    text = "\n".join(["id,v,big,d,a,b,d", *rows, ""])
    (tmp_path / "in.csv").write_text(text)
    model = find_model(Store(tmp_path))
    write_predictions(model, tmp_path / "in.csv", tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.rpartition(",")[0] for line in lines] == text.splitlines()
    write_predictions(model, tmp_path / "in.csv", tmp_path / "out.parquet")
    found = pq.ParquetFile(tmp_path / "out.parquet").read()
    columns = [found.column(j).to_pylist() for j in range(found.num_columns)]
    assert columns[:4] == [
        ["1234567890123456789", "1234567890123456788"], ["3.10", "3.1"], ["12345678901234567890123", "0.1"], [1, 2],
    ]  # fmt: skip
    assert columns[6] == ["x", "y"]


def test_rows_with_names_are_never_taken_by_position(tmp_path: Path) -> None:
    frame, y = _fitted(tmp_path)
    assert np.allclose(lntx.predict(frame.loc[0, ["b", "a"]], root=tmp_path), y[:1], rtol=1e-12)
    with pytest.raises(BadInput, match="has no column 'b'"):
        lntx.predict(pd.Series({"a": 1.0, "z": 2.0}), root=tmp_path)
    for rows in (
        np.array([(1.0, 2.0)], dtype=[("z", "f8"), ("a", "f8")]),
        "1, 2",
        {"a": 1},
        [[2**53 + 1, 1]],
        [["1", "\x1b"]],
    ):
        with pytest.raises(BadInput, match=r"^rows to predict"):
            lntx.predict(rows, root=tmp_path)
    batch = pa.RecordBatch.from_pandas(frame)
    assert np.allclose(lntx.predict(batch, root=tmp_path), y, rtol=1e-12)
    for values in ([10**30, 1, 2, 3], [1, "2\x1b", 3, 4]):
        with pytest.raises(BadInput, match=r"column 'a' (does not hold numbers|is text in 4 rows)") as caught:
            lntx.predict(frame.assign(a=pd.Series(values, dtype=object)), root=tmp_path)
        assert all(line.isprintable() for line in str(caught.value).splitlines())
