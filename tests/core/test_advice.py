"""The advice of each refusal, followed to the letter. Run: pytest tests/core/test_advice.py"""

from __future__ import annotations

import datetime
import gzip
import lzma
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from advice import follow
from driving import lntx_here
from messy import messy_table

import lntx
from lntx.base.errors import BadInput
from lntx.data.spelling import Spelling, classify, microseconds
from lntx.runs.run import Run

_SQUARES = [k * k for k in range(1, 13)]
_Y = [round(3 * k + np.sin(k), 3) for k in range(1, 13)]


def _steps(path: Path, target: str, *words: str) -> int:
    steps, how, output = follow(path, target, path.parent / "root", *words)
    assert how == "PASS", output
    return steps


@pytest.mark.parametrize("seed", range(10))
def test_advice_that_is_followed_ends_in_a_fit(tmp_path: Path, seed: int) -> None:
    table, target = messy_table(seed)
    assert _steps(table.write(tmp_path / "table.csv"), target) <= 5


@pytest.mark.slow
def test_advice_helps_with_a_thousand_tables(tmp_path: Path) -> None:
    """In Python, which spares a thousand command lines."""
    for seed in range(100_000, 101_000):
        table, target = messy_table(seed)
        path, data = table.write(tmp_path / "table.csv"), dict[str, Any]()
        messages: list[str] = []
        while True:
            try:
                run = lntx.fit(path, target=target, data=data, root=tmp_path / "root", until="evaluate")
                break
            except BadInput as error:
                messages.append(str(error))
                advice = error.advice
                for key, value in advice.items():
                    name = key.removeprefix("data.")
                    if name == "target":
                        target = value
                    else:
                        data[name] = [*data.get(name, []), *value] if isinstance(value, list) else value
            assert advice, (seed, messages)
            assert len(set(messages)) == len(messages), (seed, messages)
        assert (run.verdict, len(messages) <= 5) == ("pass", True), (seed, messages)
        shutil.rmtree(tmp_path / "root")


def _csv(folder: Path, text: str, name: str = "table.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def _fit(path: Path, target: str = "y", **data: Any) -> Run:
    return lntx.fit(path, target=target, data=data, root=path.parent / "root", until="evaluate")


def _rows(*columns: Any, header: str) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in zip(*columns, strict=True)), ""])


_EXPECTED = {"x": 0.23206, "bias": 6.9438}


def test_columns_without_a_name_are_no_features(tmp_path: Path) -> None:
    """R and pandas write the names of rows without a name; spreadsheets write a last comma."""
    named = [f"r{k}" for k in range(12)]
    for text in (
        _rows(named, _SQUARES, _Y, header=",x,y"),
        _rows(_SQUARES, _Y, [""] * 12, header="x,y,"),
        _rows(range(12), _SQUARES, _Y, [k % 3 for k in range(12)], header=",x,y,"),
        # R's write.table writes no name at all.
        _rows(named, _SQUARES, _Y, header="x,y").replace(",", " "),
    ):
        run = _fit(_csv(tmp_path, text), **({"delimiter": "whitespace"} if " " in text else {}))
        assert (run.verdict, run.features) == ("pass", ("x",))
        assert any("without a name" in warning for warning in run.warnings)


def test_a_name_may_look_like_an_option(tmp_path: Path) -> None:
    text = _rows(list("abcdefghijkl"), _SQUARES, _Y, header="-x,x,--y")
    assert _steps(_csv(tmp_path, text), "--y") == 1


def test_a_file_without_a_header_is_not_given_one(tmp_path: Path) -> None:
    path = _csv(tmp_path, _rows(_SQUARES, _Y, header="").lstrip())
    done = lntx_here("fit", str(path), "--target", str(_Y[0]), "--local", root=tmp_path / "root")
    assert "the first row looks like values" in done.err
    assert "add --data.header none --target V2" in done.err
    assert _steps(path, str(_Y[0])) == 1
    assert _fit(path, "V2", header="none").num_rows == 12
    years = _csv(tmp_path, "2019,2020,2021\n1,2,2.5\n2,1,4\n3,5,6\n5,2,1\n")
    assert _fit(years, "2021", header="first").features == ("2019", "2020")


@pytest.mark.parametrize(
    ("form", "keys"),
    [
        ("${:,.2f}", {"symbols": ["$"], "thousands": ","}),
        ("€ {:.2f}", {"symbols": ["€"]}),
        ("{:.3f} kr", {"symbols": ["kr"]}),
        ("{:.4f}%", {"symbols": ["%"]}),
        ("{:,.2f}", {"thousands": ","}),
    ],
)
def test_numbers_as_people_write_them_are_numbers(tmp_path: Path, form: str, keys: dict[str, Any]) -> None:
    prices = [1425.47 + 233.33 * k * k for k in range(12)]
    frame = pd.DataFrame({"price": [form.format(price) for price in prices], "y": _Y})
    frame.to_csv(tmp_path / "table.csv", index=False)
    run = _fit(tmp_path / "table.csv", **keys)
    expected = pd.DataFrame(
        {"price": [round(price, 4 if "4" in form else 3 if "3" in form else 2) for price in prices]}
    )
    assert (
        run.learned_weights
        == lntx.fit(expected.assign(y=_Y), target="y", root=tmp_path / "root", until="evaluate").learned_weights
    )
    assert _steps(tmp_path / "table.csv", "y") == 1


def test_one_price_does_not_make_a_category_of_numbers(tmp_path: Path) -> None:
    prices = [f"{1000 + k}" for k in range(11)] + ["$1,425.47"]
    path = _csv(tmp_path, _rows([f'"{price}"' for price in prices], _Y, header="price,y"))
    assert _steps(path, "y") == 1
    with pytest.raises(BadInput, match=r"'price' has too many levels for a category \(12 in 12 rows\)"):
        _fit(path, categories=["price"])


def test_a_total_row_is_no_level(tmp_path: Path) -> None:
    path = _csv(tmp_path, _rows([*_SQUARES, "Total"], [*_Y, sum(_Y)], header="x,y"))
    done = lntx_here("fit", str(path), "--target", "y", "--local", root=tmp_path / "root")
    assert "text in row 13 ('Total')" in done.err
    assert "add --data.nulls Total --data.missing drop" in done.err
    run = _fit(path, nulls=["Total"], missing="drop")
    assert run.num_rows == 12
    many = _csv(tmp_path, _rows([k % 12 for k in range(120)] + ["all"] * 2, range(122), header="x,y"), "many.csv")
    assert any("is a category of 12 numbers, beside 'all'" in line for line in _fit(many, categories=["x"]).warnings)


@pytest.mark.parametrize(
    ("text", "order", "expected"),
    [
        ("2020-03-01", "year-first", "2020-03-01"),
        ("2020/3/1", "day-first", "2020-03-01"),
        ("01/02/2020", "day-first", "2020-02-01"),
        ("01/02/2020", "month-first", "2020-01-02"),
        ("1.2.69", "day-first", "1969-02-01"),
        ("5 Mar 2021", "year-first", "2021-03-05"),
        ("March 5, 2021", "year-first", "2021-03-05"),
        ("Mar-2021", "year-first", "2021-03-01"),
        ("2020-03-01T12:30:00Z", "year-first", "2020-03-01 12:30"),
        ("2020-03-01 12:30:00+02:00", "year-first", "2020-03-01 10:30"),
        ("3/1/2020 1:05 PM", "month-first", "2020-03-01 13:05"),
    ],
)
def test_dates_are_read_as_they_are_written(text: str, order: str, expected: str) -> None:
    moment = datetime.datetime.fromisoformat(expected) - datetime.datetime(1970, 1, 1)
    assert microseconds(text, order) == moment / datetime.timedelta(microseconds=1)


@pytest.mark.parametrize(
    "text", ["2020-13-01", "30/02/2020", "1/2", "12:75", "25:00", "5 Foo 2020", "2020", "1.5", "", "v1-2-3"]
)
def test_what_is_no_date_is_not_read_as_one(text: str) -> None:
    assert all(microseconds(text, order) is None for order in ("year-first", "day-first", "month-first"))


def test_dates_become_days_from_text_and_from_every_type(tmp_path: Path) -> None:
    days = pd.Series(pd.date_range("2019-12-30", periods=12, freq="37h")).dt.floor("s")
    path = _csv(tmp_path, _rows(days.dt.strftime("%Y-%m-%d %H:%M:%S"), _Y, header="day,y"))
    assert "data.dates" not in str(_fit(path, dates="year-first").warnings)
    expected = _fit(path, dates="year-first").learned_weights
    for kind in ("datetime64[ns]", "datetime64[s]", "datetime64[us]"):
        frame = pd.DataFrame({"day": days.astype(kind), "y": _Y})
        frame.to_parquet(tmp_path / "table.parquet")
        assert _fit(tmp_path / "table.parquet", dates="year-first").learned_weights == expected
    with pytest.raises(BadInput, match=r"'day' is a date or a time in 12 rows"):
        _fit(path)
    assert _steps(path, "y") == 1
    # A period means its first day, from a frame and from a file, whether or not pandas is imported.
    months = pd.DataFrame({"day": pd.period_range("2020-01", periods=12, freq="M"), "y": _Y})
    months.to_parquet(tmp_path / "table.parquet")
    run = lntx.fit(months, target="y", data={"dates": "year-first"}, root=tmp_path / "root", until="evaluate")
    assert _fit(tmp_path / "table.parquet", dates="year-first").learned_weights == run.learned_weights


def test_days_and_months_that_may_be_either_are_asked_about(tmp_path: Path) -> None:
    path = _csv(tmp_path, _rows([f"{k:02}/0{1 + k % 7}/2020" for k in range(1, 13)], _Y, header="day,y"))
    with pytest.raises(BadInput, match="is a date whose day and month may be either way"):
        _fit(path)
    path = _csv(tmp_path, _rows([f"01/{k + 12}/2020" for k in range(1, 13)], _Y, header="day,y"))
    with pytest.raises(BadInput, match="'dates': 'month-first'"):
        _fit(path)


def test_folders_named_after_a_column_are_that_column(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    frame = pd.DataFrame({"x": draw.normal(size=60), "year": np.repeat([2021, 2022, 2023], 20)})
    frame["y"] = 2 * frame.x + 3 * frame.year + draw.normal(size=60)
    pq.write_to_dataset(pa.Table.from_pandas(frame), tmp_path / "hive", partition_cols=["year"])
    expected = lntx.fit(frame, target="y", root=tmp_path / "root").coefficients.estimate
    for path in ("hive", "hive/*/*.parquet", "hive/**/*.parquet"):
        run = lntx.fit(str(tmp_path / path), target="y", root=tmp_path / "root")
        assert np.allclose(run.coefficients.estimate[expected.index], expected, rtol=1e-12)
    moved = tmp_path / "hive" / "year=2029"
    (tmp_path / "hive" / "year=2023").rename(moved)
    again = lntx.fit(tmp_path / "hive", target="y", root=tmp_path / "root")
    assert again.stages["generate"].state == "ran", "the folder's name is part of the table"


def test_a_column_of_later_files_has_gaps_in_earlier_ones(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    frame = pd.DataFrame({"x": _SQUARES, "y": _Y})
    frame.to_parquet(folder / "a.parquet")
    frame.assign(w=[k % 5 for k in range(12)]).to_parquet(folder / "b.parquet")
    with pytest.raises(BadInput, match="'w' has no value in 12 rows"):
        _fit(folder)
    assert _fit(folder, exclude=["w"]).num_rows == 24
    assert _steps(folder, "y") == 1


def test_content_says_what_a_file_is(tmp_path: Path) -> None:
    text = _rows(_SQUARES, _Y, header="x,y")
    expected = _fit(_csv(tmp_path, text)).learned_weights
    _csv(tmp_path, text, "plain")
    _csv(tmp_path, text, "table.txt")
    _csv(tmp_path, text.replace(",", "\t"), "table.tsv")
    _csv(tmp_path, "sep=;\n" + text.replace(",", ";"), "excel.csv")
    _csv(tmp_path, text.replace(",", "   "), "aligned.dat")
    (tmp_path / "table.xz").write_bytes(lzma.compress(text.encode()))
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(text.encode()))
    with zipfile.ZipFile(tmp_path / "table.zip", "w") as archive:
        archive.writestr("inside.csv", text)
    frame = pd.DataFrame({"x": _SQUARES, "y": _Y})
    pa.feather.write_feather(frame, tmp_path / "table.feather")
    frame.to_parquet(tmp_path / "table")
    for name in ("plain", "table.txt", "table.tsv", "excel.csv", "table.xz", "table.csv.gz", "table.zip",
                 "table.feather", "table"):  # fmt: skip
        assert _fit(tmp_path / name).learned_weights == expected, name
    assert _fit(tmp_path / "aligned.dat", delimiter="whitespace").learned_weights == expected
    assert _steps(tmp_path / "aligned.dat", "y") == 1
    for name, content, message in (
        ("book.xlsx", None, "is a document of an office program: save the sheet as CSV"),
        ("rows.json", b'{"x": [1]}', "is JSON, HTML or XML"),
        ("picture.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "it is no Parquet, Feather or CSV file"),
    ):
        if content is None:
            with zipfile.ZipFile(tmp_path / name, "w") as archive:
                archive.writestr("xl/workbook.xml", "<x/>")
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match=message):
            _fit(tmp_path / name)
    with pytest.raises(BadInput, match="lntx reads files of this machine: copy it here first"):
        lntx.fit("s3://bucket/table.parquet", target="y", root=tmp_path)
    done = lntx_here("fit", "https://host/table.csv", "--target", "y", "--local", root=tmp_path)
    assert (done.code, "copy it here first" in done.err) == (2, True)


def test_lines_before_the_table_and_marks_of_encodings_are_named(tmp_path: Path) -> None:
    text = _rows(_SQUARES, _Y, header="x,y")
    for before in ("# made by a logger\n# unit: mm\n", "Report of May\n", "Sheet 1\n\n"):
        assert _steps(_csv(tmp_path, before + text), "y") == 1
    (tmp_path / "table.csv").write_bytes(
        ("größe,x,y\n" + text.split("\n", 1)[1].replace("\n", "\n1,")).encode("utf-16")
    )
    bom = tmp_path / "bom.csv"
    bom.write_bytes(text.encode("utf-8-sig"))
    assert _fit(bom).features == ("x",)
    with pytest.raises(BadInput, match=r"begins with the mark of UTF-8, and data\.encoding is latin-1"):
        _fit(bom, encoding="latin-1")
    assert _steps(bom, "y", "--data.encoding", "latin-1") == 1


def test_columns_that_are_not_used_may_hold_anything(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [float(k) for k in _SQUARES], "y": _Y})
    run = lntx.fit(frame, target="y", root=tmp_path, until="evaluate")
    odd = {
        "mixed": frame.assign(code=[1, "A2", "B"] * 4),
        "complex": frame.assign(code=np.arange(12) * 1j),
        "objects": frame.assign(code=[object()] * 12),
        "sparse": frame.assign(code=pd.arrays.SparseArray([0.0] * 10 + [1.0] * 2)),
        "twice": pd.concat([frame, frame[["x", "x"]].set_axis(["code", "code"], axis=1)], axis=1),
        "nested": frame.assign(code=[[1, 2]] * 12),
    }
    for name, table in odd.items():
        for keys in ({"features": ["x"]}, {"data": {"exclude": ["code"]}}):
            again = lntx.fit(table, target="y", root=tmp_path, until="evaluate", **keys)
            assert again.learned_weights == run.learned_weights, name
    lntx.fit(frame, target="y", root=tmp_path)
    for name, table in odd.items():
        assert len(lntx.predict(table, root=tmp_path)) == 12, name
    assert lntx.fit(frame.astype(">f8"), target="y", root=tmp_path).learned_weights == run.learned_weights
    mixed = lntx.fit(odd["mixed"], target="y", data={"categories": ["code"]}, root=tmp_path)
    assert mixed.levels == {"code": ("1", "A2", "B")}
    with pytest.raises(BadInput, match="'code' is text in 12 rows"):
        lntx.fit(odd["mixed"], target="y", root=tmp_path)


def test_long_rows_and_quoted_line_breaks_are_read(tmp_path: Path) -> None:
    lines = [f'"line one {k}\nline, two",{k % 97},{(k % 97) * 2 + ((k * 7919) % 13) / 10}' for k in range(60_000)]
    run = _fit(_csv(tmp_path, "note,x,y\n" + "\n".join(lines) + "\n"), features=["x"])
    assert (run.num_rows, run.reference_weights) == (60_000, pytest.approx([1.999998026620], rel=1e-11))
    wide = pd.DataFrame(np.random.default_rng(1).normal(size=(5, 60_000)).round(12)).add_prefix("column ")
    wide.to_csv(tmp_path / "wide.csv", index=False)
    assert _fit(tmp_path / "wide.csv", "column 3", features=["column 7", "column 59999"]).num_rows == 5


def test_dependent_columns_are_left_out_as_r_does(tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    frame = pd.DataFrame({"a": draw.normal(size=40), "maker": list("abcd") * 10})
    frame["model"] = frame.maker + draw.integers(1, 3, 40).astype(str)
    frame["twice"] = 2 * frame.a
    frame["same"] = 7.0
    frame["y"] = frame.a + draw.normal(size=40)
    keys: dict[str, Any] = {"categories": ["maker", "model"], "dependent": "drop"}
    run = lntx.fit(frame, target="y", data=keys, root=tmp_path)
    # Each maker is the sum of its models: of two models the second depends on what stands before it.
    assert run.features == ("a", "maker=b", "maker=c", "maker=d", "model=a2", "model=b1", "model=c1", "model=d1")
    assert sum("it was left out" in line for line in run.warnings) == 5
    fitted = lntx.predict(frame, root=tmp_path)
    x = np.column_stack([np.ones(40), frame.a, pd.get_dummies(frame.model).to_numpy(float)[:, 1:]])
    assert np.allclose(fitted, x @ np.linalg.lstsq(x, frame.y, rcond=None)[0], rtol=1e-9)


def test_a_category_of_almost_every_row_is_refused_at_once(tmp_path: Path) -> None:
    names = [f"car {k % 301}" for k in range(392)]
    path = _csv(tmp_path, _rows(names, range(392), np.random.default_rng(0).normal(size=392), header="name,x,y"))
    with pytest.raises(BadInput, match=r"'name' has too many levels for a category \(301 in 392 rows\)"):
        _fit(path, categories=["name"])


def test_intervals_are_those_of_the_textbook(tmp_path: Path) -> None:
    stats = pytest.importorskip("scipy.stats", reason="pip install scipy")
    draw = np.random.default_rng(3)
    frame = pd.DataFrame({"a": draw.normal(size=30), "where": list("nsw") * 10})
    frame["y"] = 2 * frame.a + draw.normal(size=30)
    lntx.fit(frame, target="y", data={"categories": ["where"]}, root=tmp_path)
    new = frame[:4].drop(columns="y")
    x = np.column_stack([frame.a, frame["where"] == "s", frame["where"] == "w", np.ones(30)]).astype(float)
    inverse = np.linalg.inv(x.T @ x)
    solution = inverse @ x.T @ frame.y.to_numpy()
    spread = np.sqrt(((frame.y - x @ solution) ** 2).sum() / 26)
    for interval, level in (("confidence", 0.95), ("prediction", 0.9)):
        quantile = stats.t.ppf((1 + level) / 2, 26)
        found = lntx.predict(new, interval=interval, level=level, root=tmp_path)
        leverage = np.einsum("ij,jk,ik->i", x[:4], inverse, x[:4]) + (interval == "prediction")
        reach = quantile * spread * np.sqrt(leverage)
        assert np.allclose(found.low, x[:4] @ solution - reach, rtol=1e-10)
        assert np.allclose(found.high, x[:4] @ solution + reach, rtol=1e-10)
    new.to_csv(tmp_path / "new.csv", index=False)
    words = ("--input", str(tmp_path / "new.csv"), "--output", str(tmp_path / "out.csv"), "--interval", "prediction")
    assert lntx_here("predict", *words, "--level", "0.9", root=tmp_path).code == 0
    written = pd.read_csv(tmp_path / "out.csv")
    assert np.allclose(written.low, found.low, rtol=1e-14)
    assert [*written.columns] == ["a", "where", "prediction", "low", "high"]
    with pytest.raises(BadInput, match="the level of an interval lies between 0 and 1, got 95"):
        lntx.predict(new, interval="confidence", level=95, root=tmp_path)


@pytest.mark.parametrize(
    ("text", "kind", "detail"),
    [
        ("1.5e3", "number", ""), ("\u22125", "number", ""), ("True", "truth", ""), ("$1,425.47", "symbol", "$"),
        ("(5.20)", "symbol", "()"), ("12 %", "symbol", "%"), ("1,425,000", "thousands", ","), ("1,425", "either", ","),
        ("0,5", "comma", ","), ("1.425,5", "thousands", "."), ("1 425,5", "thousands", " "), ("unit 5", "text", ""),
        ("5 apples", "unit", "apples"), ("2020-01-02", "date", "year-first day-first month-first"), ("v1", "text", ""),
    ],
)  # fmt: skip
def test_a_value_is_taken_for_what_it_is(text: str, kind: str, detail: str) -> None:
    assert classify(text, Spelling()) == (kind, detail)


def test_percent_signs_in_some_rows_only_are_refused(tmp_path: Path) -> None:
    path = _csv(tmp_path, _rows(["5%", "6"] * 6, _Y, header="x,y"))
    with pytest.raises(BadInput, match="or % in some rows only"):
        _fit(path, symbols=["%"])
    path = _csv(tmp_path, _rows(["$5", "€6"] * 6, _Y, header="x,y"))
    with pytest.raises(BadInput, match="has symbols of different kinds"):
        _fit(path, symbols=["$", "€"])


def test_values_are_hidden_where_a_flow_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _csv(tmp_path, _rows([*_SQUARES[:-1], "secret"], _Y, header="x,y"))
    with pytest.raises(BadInput, match="'secret'"):
        _fit(path)
    monkeypatch.setenv("LNTX_VALUES", "hidden")
    with pytest.raises(BadInput) as caught:
        _fit(path)
    assert "text in row 12:" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_was_tried_from_outside_stays_mended(tmp_path: Path) -> None:
    """Each once gave another model in silence, or a dead end."""
    plain = _rows(_SQUARES, [k % 5 for k in range(12)], _Y, header="x,z,y")
    expected = _fit(_csv(tmp_path, plain)).learned_weights
    lines = plain.splitlines()
    for text in (
        "\n".join([lines[0], *(f"{line}," for line in lines[1:])]),
        "Sales by region 2024,,\n,,\n" + plain,
        "2023,2023,2023\n" + plain,
        plain.replace("x,z,y", " x , z ,y "),
        "\n".join([lines[0], *(line.replace(",", " kg,", 1) for line in lines[1:])]),
    ):
        path = _csv(tmp_path, text)
        assert _steps(path, "y") <= 1
        steps = lntx_here("fit", str(path), "--target", "y", "--local", "--json", root=tmp_path / "root")
        if steps.code == 0:
            assert tuple(steps.json["learned_weights"]) == expected, text[:60]
    signed = _csv(tmp_path, _rows(["5.5-", *_SQUARES[1:]], _Y, header="x,y"))
    negative = _csv(tmp_path, _rows(["-5.5", *_SQUARES[1:]], _Y, header="x,y"), "negative.csv")
    assert _fit(signed).learned_weights == _fit(negative).learned_weights
    assert _steps(_csv(tmp_path, _rows(["$(5.20)", *("$" + str(k) for k in _SQUARES[1:])], _Y, header="x,y")), "y") == 1
    codes = _csv(tmp_path, _rows([f"0{2000 + k * k}" for k in range(12)], _Y, header="zip,y"))
    assert any("leading zeros" in warning for warning in _fit(codes).warnings)
    regions = _csv(tmp_path, _rows([*("ab" * 6), "Total"], [*_Y, sum(_Y)], header="region,y"))
    done = lntx_here("fit", str(regions), "--target", "y", "--local", root=tmp_path / "root")
    assert "add --data.categories region --data.nulls Total --data.missing drop" in done.err
    assert any("has the level 'Total'" in line for line in _fit(regions, categories=["region"]).warnings)


def test_what_looks_like_a_total_a_date_or_thousands_is_said(tmp_path: Path) -> None:
    names = "x,z,y"
    rows = [*zip(_SQUARES, [k % 5 + 1 for k in range(12)], _Y, strict=True)]
    total = [sum(column) for column in zip(*rows, strict=True)]
    with_total = _csv(tmp_path, _rows(*zip(*rows, total, strict=True), header=names))
    assert any("row 13 is the sum of all others in 'x', 'z', 'y'" in line for line in _fit(with_total).warnings)
    plain = _csv(tmp_path, _rows(*zip(*rows, strict=True), header=names), "plain.csv")
    assert _fit(with_total, skip_footer=1).learned_weights == _fit(plain).learned_weights
    assert not _fit(plain).warnings
    days = _csv(tmp_path, _rows([20240100 + k + 1 for k in range(12)], _Y, header="d,y"), "days.csv")
    assert any("dates written 20240131" in line for line in _fit(days).warnings)
    grouped = _csv(tmp_path, _rows(["1.630", *(str(800 + k * k) for k in range(11))], _Y, header="x,y"), "grouped.csv")
    assert any("numbers such as 1.630" in line for line in _fit(grouped).warnings)
    decimals = _csv(tmp_path, _rows(["1.630", *(f"{800 + k}.5" for k in range(11))], _Y, header="x,y"), "decimals.csv")
    assert not _fit(decimals).warnings


@pytest.mark.parametrize("note", ["Source: the office, 2024", "* provisional", "a, b, c, d\n\nend"])
def test_notes_below_a_table_are_left_out(tmp_path: Path, note: str) -> None:
    text = _rows(_SQUARES, [k % 5 for k in range(12)], _Y, header="x,z,y")
    path = _csv(tmp_path, f"{text}\n{note}\n")
    assert _steps(path, "y") == 1
    run = _fit(path, skip_footer=len(note.splitlines()) + 1)
    assert run.learned_weights == _fit(_csv(tmp_path, text, "plain.csv")).learned_weights


def test_quarters_times_and_utf_16_without_a_mark_are_read(tmp_path: Path) -> None:
    quarters = _csv(tmp_path, _rows([f"{2010 + k // 4}Q{k % 4 + 1}" for k in range(12)], _Y, header="q,y"))
    days = [f"{2010 + k // 4}-{3 * (k % 4) + 1:02}-01" for k in range(12)]
    dated = _csv(tmp_path, _rows(days, _Y, header="q,y"), "d.csv")
    assert _fit(quarters, dates="year-first").learned_weights == _fit(dated, dates="year-first").learned_weights
    times = _csv(tmp_path, _rows([f"{k}:30" for k in range(12)], _Y, header="t,y"))
    hours = _csv(tmp_path, _rows([(k + 0.5) / 24 for k in range(12)], _Y, header="t,y"), "h.csv")
    assert _fit(times, dates="year-first").learned_weights == pytest.approx(_fit(hours).learned_weights, rel=1e-12)
    wide = tmp_path / "wide.csv"
    for encoding in ("utf-16-le", "utf-16-be"):
        wide.write_bytes(_rows(_SQUARES, _Y, header="x,y").encode(encoding))
        assert _steps(wide, "y") == 1
