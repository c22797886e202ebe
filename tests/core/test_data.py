"""Rows: drawn in blocks, stored exactly, read as a stream; and a user's own file.

Run: pytest tests/core/test_data.py
"""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lntx.base.errors import BadInput
from lntx.config.schema import Data
from lntx.data import synthetic as generation
from lntx.data.dataset import block_rows, open_dataset, read_blocks
from lntx.data.importing import import_table
from lntx.data.tables import look_at


def _rows(data: Data) -> tuple[np.ndarray, np.ndarray]:
    blocks = list(generation.generate_blocks(data))
    return np.vstack([x for x, _ in blocks]), np.concatenate([y for _, y in blocks])


@pytest.mark.parametrize("distribution", ["integers", "uniform", "normal"])
def test_the_file_holds_the_rows_that_were_drawn(tmp_path: Path, distribution: str) -> None:
    data = Data.model_validate(
        {"weights": (3.7, -1.2), "bias": 2.0, "noise": 0.5, "num_rows": 70_000, "distribution": distribution}
    )
    x, y = _rows(data)
    path = tmp_path / "rows.parquet"
    generation.generate_dataset(data, path)
    dataset = open_dataset(path)
    read = list(read_blocks(dataset))
    assert (dataset.features, dataset.target, dataset.num_rows) == (("x1", "x2"), "y", 70_000)
    assert np.array_equal(np.vstack([block.x for block in read]), x)
    assert np.array_equal(np.concatenate([block.y for block in read]), y)
    residual = y - x @ np.array([3.7, -1.2]) - 2.0
    assert abs(residual.std() - 0.5) < 0.01
    schema = pq.read_schema(path)
    assert not any(field.nullable for field in schema)
    assert schema.field("y").type == pa.float64()
    assert b"3.7" not in path.read_bytes()[-pq.read_metadata(path).serialized_size :]


def test_integers_fill_their_range_and_take_one_byte(tmp_path: Path) -> None:
    data = Data(num_rows=100_000)
    x, _ = _rows(data)
    values, counts = np.unique(x, return_counts=True)
    assert values.tolist() == list(range(1, 11))
    assert counts.min() > 9_000
    path = tmp_path / "rows.parquet"
    generation.generate_dataset(data, path)
    assert pq.read_schema(path).field("x").type == pa.int8()
    assert path.stat().st_size < 2.2 * 100_000


def test_more_rows_leave_the_earlier_ones_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "STREAM_ROWS", 2**17)
    few, many = _rows(Data(num_rows=1000, noise=1.0)), _rows(Data(num_rows=300_000, noise=1.0))
    assert np.array_equal(few[0], many[0][:1000])
    assert np.array_equal(few[1], many[1][:1000])
    # A new stream for each range of rows: ranges differ.
    assert not np.array_equal(many[0][: 2**16], many[0][2**17 : 2**17 + 2**16])


def test_blocks_do_not_depend_on_how_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    generation.generate_dataset(Data(num_rows=150_000, distribution="uniform"), path)
    dataset = open_dataset(path)
    expected = [(x.copy(), y.copy()) for x, y, *_ in read_blocks(dataset)]
    assert [len(y) for _, y in expected] == [65536, 65536, 18928]
    for read_rows in (777, 100_000):
        for (x, y), (other_x, other_y, *_) in zip(expected, read_blocks(dataset, read_rows=read_rows), strict=True):
            assert np.array_equal(x, other_x)
            assert np.array_equal(y, other_y)


def test_wide_rows_come_in_smaller_blocks() -> None:
    assert block_rows(2) == 65536
    assert block_rows(1001) * 1001 * 8 <= 2**25


def test_equal_work_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        generation.generate_dataset(Data(noise=1.0), tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def _file(path: Path, columns: dict[str, Any]) -> Path:
    frame = pd.DataFrame(columns)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


def _imported(path: Path, folder: Path, **keys: Any) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    data = Data.model_validate({"path": str(path), "target": "y", **keys})
    import_table(data, look_at(path), folder / "rows.parquet")
    dataset = open_dataset(folder / "rows.parquet")
    x, y, *_ = next(iter(read_blocks(dataset)))
    return dataset.features, x, y


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_is_copied_exactly(tmp_path: Path, suffix: str) -> None:
    values = {"y": [0.1, 1e90, -3.5], "a": [1, 2, 3], "b": [0.1 + 0.2, 1e-90, 7.25]}
    path = _file(tmp_path / f"table.{suffix}", values)
    features, x, y = _imported(path, tmp_path)
    assert features == ("a", "b")
    assert x.T.tolist() == [[1.0, 2.0, 3.0], values["b"]]
    assert y.tolist() == values["y"]
    assert _imported(path, tmp_path, features=["b"])[0] == ("b",)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("columns", "keys", "line"),
    [
        ({"y": [1.0, 2.0], "a": [1.0, 2.0]}, {"features": ["c"]}, "has no column 'c': it has 'y', 'a'"),
        ({"z": [1.0], "a": [1.0]}, {}, "has no column 'y'"),
        ({"y": [1.0, 2.0], "a": ["one", "two"]}, {}, "a"),
        ({"y": [1.0, 2.0], "a": [1.0, None]}, {}, "column 'a' has no value in row 2"),
        ({"y": [float("inf"), 2.0, 3.0], "a": [1.0, 3.0, 5.0]}, {}, "column 'y' is infinite in row 1 (inf)"),
        ({"y": [1.0]}, {}, "has no column beside the target 'y'"),
        ({"y": [], "a": []}, {}, "row"),
    ],
)
def test_an_unusable_table_is_refused_with_the_column(
    tmp_path: Path, suffix: str, columns: dict[str, Any], keys: dict[str, Any], line: str
) -> None:
    path = tmp_path / f"table.{suffix}"
    if columns.get("a") == []:
        columns = {name: np.array([], dtype=float) for name in columns}
    _file(path, columns)
    with pytest.raises(BadInput) as caught:
        _imported(path, tmp_path, **keys)
    assert line in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        look_at(tmp_path / "none.csv")
    empty = tmp_path / "empty.csv"
    empty.touch()
    with pytest.raises(BadInput, match="is empty"):
        look_at(empty)
    with pytest.raises(BadInput, match="holds no Parquet file"):
        look_at(tmp_path)
    whole = _file(tmp_path / "whole.parquet", {"y": np.arange(1000.0), "a": np.arange(1000.0)})
    truncated = tmp_path / "truncated.parquet"
    truncated.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(BadInput, match="cannot be read as Parquet"):
        _imported(truncated, tmp_path)
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("y,a\n1,2\n3\n")
    with pytest.raises(BadInput, match="cannot be read as CSV"):
        _imported(ragged, tmp_path)
    twice = tmp_path / "twice.csv"
    twice.write_text("y,a,a\n1,2,3\n")
    with pytest.raises(BadInput, match="2 columns named 'a'"):
        _imported(twice, tmp_path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = _file(tmp_path / "table.csv", {"y": [1.0, 2.0], "a": [1.0, 3.0]})
    seen = look_at(path)
    _file(path, {"y": [1.0, 2.0], "a": [1.0, 4.0]})
    data = Data.model_validate({"path": str(path), "target": "y"})
    with pytest.raises(BadInput, match="changed while it was read"):
        import_table(data, seen, tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ({"y": [1e200, 1.0], "a": [1.0, 2.0]}, "column 'y' is beyond 1e+100 in row 1 (1e+200)"),
        ({"y": ["1", "x"], "a": ["1.0", "2.0"]}, "column 'y' is a number in other rows, and text in row 2 ('x')"),
    ],
)
def test_values_are_refused_by_column_and_row(tmp_path: Path, columns: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput) as caught:
        _imported(_file(tmp_path / "table.csv", columns), tmp_path)
    assert line in str(caught.value)


def test_text_in_another_encoding_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("y,größe\n1,2\n2,3\n".encode("latin-1"))
    with pytest.raises(BadInput) as caught:
        _imported(path, tmp_path)
    assert "cannot be read as CSV" in str(caught.value)


def test_decimals_are_the_numbers_that_they_spell(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    values = [decimal.Decimal(f"{k}.585") for k in range(60, 100)]
    pq.write_table(pa.table({"y": pa.array(values), "a": pa.array(range(40))}), path)
    assert _imported(path, tmp_path)[2].tolist() == [float(value) for value in values]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("values", "row"),
    [
        ([1, 2**53, 2**53 + 1], 3),
        ([-(2**53) - 1, 0, 5], 1),
        ([2**60, 2**62, 2**62 + 1], 3),
        ([2**63 - 1, 1, 2], 1),
        ([2**53 + 2, 2**60, -(2**62)], None),
    ],
)
def test_whole_numbers_that_float64_cannot_hold_are_refused(
    tmp_path: Path, suffix: str, values: list[int], row: int | None
) -> None:
    path = _file(tmp_path / f"table.{suffix}", {"y": [1.0, 2.0, 3.0], "a": values})
    if row is None:
        assert _imported(path, tmp_path)[1][:, 0].tolist() == values
    else:
        with pytest.raises(BadInput, match=f"column 'a' has a whole number beyond the digits of float64 in row {row}"):
            _imported(path, tmp_path)


def test_unsigned_and_decimal_whole_numbers_are_refused_alike(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    for values in (pa.array([2**64 - 1, 1], pa.uint64()), pa.array([decimal.Decimal(2**53 + 1), decimal.Decimal(1)])):
        pq.write_table(pa.table({"y": [1.0, 2.0], "a": values}), path)
        with pytest.raises(BadInput, match="beyond the digits of float64 in row 1"):
            _imported(path, tmp_path)
    pq.write_table(pa.table({"y": [1.0, 2.0], "a": pa.array([2**63, 1], pa.uint64())}), path)
    assert _imported(path, tmp_path)[1][0, 0] == 2.0**63
