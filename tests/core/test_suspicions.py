"""What looks like a mistake in a table is said, and rows never vanish. Run: pytest tests/core/test_suspicions.py"""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lntx
from lntx.base.errors import BadInput
from lntx.data.spelling import Spelling
from lntx.data.tables import open_table

DRAW = np.random.default_rng(5)
X = np.round(DRAW.uniform(1, 90, 300), 2)
Y = np.round(3 * X + 2 + DRAW.normal(0, 1, 300), 3)


def _warnings(tmp_path: Path, x: np.ndarray, y: np.ndarray = Y, **columns: np.ndarray) -> tuple[str, ...]:
    frame = pd.DataFrame({"x": x, **columns, "y": y})
    return lntx.fit(frame, target="y", root=tmp_path, export={"formats": ["safetensors"]}).warnings


@pytest.mark.parametrize(
    ("value", "places", "said"),
    [
        (9.96921e36, [7], "'x' is 9.96921e+36 in row 8: a usual mark of a missing value, far from all others"),
        (-999, [3, 200], "'x' is -999 in 2 rows, first in row 4: a usual mark of a missing value, far from all others"),
        (99999, [0, 1, 299], "'x' is 99999 in 3 rows, first in row 1: a usual mark of a missing value"),
        (1.234e9, [299], "'x' is 1.234e+09 in row 300: more than 1,000,000 times as large as any other value"),
        (-1e20, [5], "'x' is -1e+20 in row 6: a usual mark of a missing value, far from all others"),
    ],
)
def test_a_value_that_stands_apart_is_named(value: float, places: list[int], said: str, tmp_path: Path) -> None:
    x = X.copy()
    x[places] = value
    assert [text for text in _warnings(tmp_path, x) if text.startswith(said)], _warnings(tmp_path, x)


def test_ordinary_columns_are_not_suspected(tmp_path: Path) -> None:
    """Also not with -999 among others of its size, a few large values, or numbers of many sizes."""
    wide = np.sort(10.0 ** DRAW.uniform(-3, 6, 300))
    assert _warnings(tmp_path, np.linspace(-1500, 999, 300).round()) == ()
    assert _warnings(tmp_path, wide, code=DRAW.integers(0, 2, 300).astype(float)) == ()


def test_values_in_a_later_part_of_the_rows_are_seen(tmp_path: Path) -> None:
    x = np.tile(X, 500)
    x[140_000] = -9999
    (said,) = _warnings(tmp_path, x, np.tile(Y, 500))
    assert said.startswith("'x' is -9999 in row 140,001: ")


def test_a_column_that_repeats_the_target_is_named(tmp_path: Path) -> None:
    assert "'copy' repeats the target 'y' in every row" in _warnings(tmp_path, X, copy=Y)


def test_no_row_of_a_parquet_file_vanishes(tmp_path: Path) -> None:
    """Each number of rows in the footer in turn, made smaller: the file is refused, or all rows are read."""
    file = tmp_path / "t.parquet"
    rows = np.arange(2000.0)
    pq.write_table(pa.table({"x": rows % 7, "y": rows}), file, row_group_size=1000, compression="none")
    content = file.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    # 1,000 and 2,000 as the footer writes them, and what stands in their place: 500 and 1,000.
    smaller = {b"\xd0\x0f": b"\xe8\x07", b"\xa0\x1f": b"\xd0\x0f"}
    places = [k for k in range(footer, len(content) - 8) if content[k : k + 2] in smaller]
    refused = 0
    for k in places:
        file.write_bytes(content[:k] + smaller[content[k : k + 2]] + content[k + 2 :])
        try:
            num_rows = sum(len(batch[0]) for batch in open_table(file, Spelling()).read([0, 1]))
        except BadInput:
            refused += 1
        else:
            assert num_rows == 2000
    assert refused >= 3


_TEXT = b"x,y\n" + b"".join(b"%d,%d\n" % (k % 7, k) for k in range(500))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("row.csv", _TEXT + b"5"),
        ("quote.csv", _TEXT + b'5,"7'),
        ("lines.csv", _TEXT + b'5,"7\n8'),
        ("even.csv", b'a"b,y,"c\n1,2,3\n4,5,6\n'),
        ("cut.csv.gz", gzip.compress(_TEXT)[:-9]),
        ("cut.csv.bz2", bz2.compress(_TEXT)[:-9]),
        ("quote.csv.gz", gzip.compress(_TEXT + b'5,"7')),
    ],
)
def test_a_csv_file_that_was_cut_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=r"expected 2 columns|within a quoted field|damaged"):
        lntx.fit(tmp_path / name, target="y", root=tmp_path)


def test_quotes_that_are_no_quoting_are_read(tmp_path: Path) -> None:
    """An odd number of quotes is no proof: inches in a column that is not used."""
    text = "x,note,y\n" + "".join(f'{k % 7},5" pipe,{k}\n' for k in range(25))
    (tmp_path / "t.csv").write_text(text)
    run = lntx.fit(tmp_path / "t.csv", target="y", features=["x"], root=tmp_path)
    assert run.num_rows == 25
