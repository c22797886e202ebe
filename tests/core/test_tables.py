"""Tables as people have them: data frames, gaps, categories, refusals. Run: pytest tests/core/test_tables.py"""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lntx
from lntx.base.errors import BadInput
from lntx.config.schema import Data
from lntx.data.dataset import open_dataset, read_blocks
from lntx.data.frames import held
from lntx.data.importing import import_table
from lntx.data.tables import look_at
from lntx.models import find_model
from lntx.predictions import write_predictions
from lntx.runs.records import read_run
from lntx.store.store import Store


def _rows(
    table: Any, folder: Path, *, bias: bool = True, **keys: Any
) -> tuple[dict[str, list[float]], tuple[str, ...]]:
    """The dataset that a data frame, or a file, becomes: its columns, the target last, and its notes."""
    with held(table) as path:
        data = Data.model_validate({"path": path, "target": "y", **keys})
        import_table(data, look_at(path), folder / "rows.parquet", bias=bias)
    dataset = open_dataset(folder / "rows.parquet")
    blocks = [*read_blocks(dataset)]
    x, y = np.vstack([block.x for block in blocks]), np.concatenate([block.y for block in blocks])
    return {**dict(zip(dataset.features, x.T.tolist(), strict=True)), "y": y.tolist()}, dataset.notes


def _refused(table: Any, folder: Path, **keys: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        _rows(table, folder, **keys)
    return str(caught.value).splitlines()


_COLUMNS: dict[str, tuple[Any, list[float]]] = {
    "nullable integers": (pd.array([1, 2, 4], dtype="Int64"), [1.0, 2.0, 4.0]),
    "unsigned": (np.array([1, 2, 2**63], dtype=np.uint64), [1.0, 2.0, 2.0**63]),
    "booleans": ([True, False, True], [1.0, 0.0, 1.0]),
    "nullable booleans": (pd.array([True, False, True], dtype="boolean"), [1.0, 0.0, 1.0]),
    "decimals": ([decimal.Decimal("0.1"), decimal.Decimal("2.585"), decimal.Decimal(3)], [0.1, 2.585, 3.0]),
    "single": (np.array([0.5, 0.1, 2], dtype=np.float32), [0.5, float(np.float32(0.1)), 2.0]),
    "half": (np.array([0.5, 1.5, 2], dtype=np.float16), [0.5, 1.5, 2.0]),
}


@pytest.mark.parametrize("kind", _COLUMNS)
def test_each_type_has_a_settled_meaning(tmp_path: Path, kind: str) -> None:
    values, expected = _COLUMNS[kind]
    frame = pd.DataFrame({"a": values, "y": [1.0, 2.0, 4.0]})
    for table in (frame, pa.Table.from_pandas(frame, preserve_index=False)):
        assert _rows(table, tmp_path)[0]["a"] == expected
    frame.to_parquet(tmp_path / "table.parquet")
    run = lntx.fit(tmp_path / "table.parquet", target="y", root=tmp_path, until="generate")
    assert run.stages["generate"].state == "ran"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            ["a", "b", "a"],
            "column 'a' is text in 3 rows, first in row 1 ('a'): make it a category, or leave it out",
        ),
        (pd.Categorical(["a", "b", "a"]), "is text in 3 rows"),
        (
            pd.to_datetime(["2024-01-01"] * 3),
            "is a date or a time in 3 rows, first in row 1: read it as a number of days",
        ),
        ([datetime.date(2024, 1, 1)] * 3, "is a date or a time in 3 rows"),
        ([[1], [2], [3]], "is neither a number nor text in 3 rows"),
        ([1, 2**53 + 1, 3], "has a whole number beyond the digits of float64 in row 2: subtract an offset"),
        ([1.0, np.inf, 2.0], "is infinite in row 2 (inf)"),
        ([1.0, 2.0, -1e300], "is beyond 1e+100 in row 3 (-1e+300)"),
        ([1.0, None, 2.0], "has no value in row 2: fill it, leave such rows out, or leave that column out"),
        ([7.0, 7.0, 7.0], "is the same in every row, as the bias is: leave it out, or fit without a bias"),
    ],
)
def test_what_has_none_is_refused_with_column_row_and_remedy(tmp_path: Path, values: Any, said: str) -> None:
    lines = _refused(pd.DataFrame({"a": values, "b": [1.0, 2.0, 4.0], "y": [1.0, 2.0, 5.0]}), tmp_path)
    assert said in lines[0]
    assert lines[0].startswith("the data frame: column 'a' ")


def test_all_problems_are_told_at_once_the_commonest_first(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "gap": [1.0, None, 3.0, 4.0],
            "text": list("abab"),
            "big": [1.0, 2.0, 1e200, 1e300],
            "same": [5] * 4,
            "y": [1.0, 2.0, 3.0, 5.0],
        }
    )
    lines = _refused(frame, tmp_path)
    assert [line.split("'")[1] for line in lines[:-1]] == ["text", "big", "gap", "same"]
    assert lines[-1] == ("add to data: {'categories': ['text'], 'exclude': ['big', 'same'], 'missing': 'drop'}")
    assert _rows(frame, tmp_path, exclude=["big", "same"], categories=["text"], missing="drop")[0]["gap"] == [1, 3, 4]


def test_rows_with_gaps_are_left_out_and_counted(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"a": [1.0, None, 3.0, 4.0], "b": [1.0, 2.0, None, 5.0], "c": 1.0, "y": [1.0, 2.0, 3.0, np.nan]}
    )
    columns, notes = _rows(
        frame.assign(y=[1.0, 2.0, 3.0, 4.0]), tmp_path, missing="drop", features=["a", "b"], bias=False
    )
    assert columns == {"a": [1.0, 4.0], "b": [1.0, 5.0], "y": [1.0, 4.0]}
    assert notes == ("2 of 4 rows had no value and were left out: 'a' 1, 'b' 1",)
    assert len(_refused(frame, tmp_path, features=["a", "b"])) == 4, "the target counts too"


def test_a_category_is_a_column_for_each_level_but_the_first(tmp_path: Path) -> None:
    frame = pd.DataFrame({"size": [10, 9, 10, 100], "where": ["s", "n", None, "s"], "y": [1.0, 2.0, 3.0, 4.0]})
    columns, notes = _rows(frame, tmp_path, categories=["size", "where"], missing="drop", bias=False)
    assert columns == {
        "size=10": [1.0, 0.0, 0.0],
        "size=100": [0.0, 0.0, 1.0],
        "where=s": [1.0, 0.0, 1.0],
        "y": [1, 2, 4],
    }
    assert "'size' has 3 levels; the first, '9', has no column" in notes[1], (
        "levels that are numbers are in their order"
    )
    assert "column 'where' has one level only" in _refused(frame.assign(where="s"), tmp_path, categories=["where"])[0]
    many = pd.DataFrame({"id": [f"k{k}" for k in range(2000)], "y": np.arange(2000.0)})
    assert "column 'id' has too many levels" in _refused(many, tmp_path, categories=["id"])[0]
    with pytest.raises(BadInput, match="has no column 'other'"):
        _rows(frame, tmp_path, categories=["other"])


def test_levels_travel_with_the_model(tmp_path: Path) -> None:
    """`predict` takes the columns of the table, and refuses a level that was never seen."""
    draw = np.random.default_rng(1)
    frame = pd.DataFrame({"a": draw.normal(size=60), "where": draw.choice(["n", "s", "w"], 60)})
    frame["y"] = 2 * frame.a + frame["where"].map({"n": 0.0, "s": 1.5, "w": -3.0})
    run = lntx.fit(frame, target="y", data={"categories": ["where"]}, root=tmp_path)
    assert (run.features, run.columns, run.levels) == (
        ("a", "where=s", "where=w"),
        ("a", "where"),
        {"where": ("n", "s", "w")},
    )
    shuffled = frame.sample(frac=1, random_state=1)[["where", "a"]]
    found = lntx.predict(shuffled, root=tmp_path)
    assert found.index.equals(shuffled.index)
    assert np.allclose(found, frame.y[found.index], rtol=1e-12)
    for other in (pl.from_pandas(frame), pa.Table.from_pandas(frame)):
        assert np.allclose(lntx.predict(other, root=tmp_path), frame.y, rtol=1e-12)
    model = tmp_path / run.exports["safetensors"]
    assert np.allclose(lntx.predict(frame, model=model, root=tmp_path), frame.y, rtol=1e-12), "the card says it too"
    with pytest.raises(BadInput, match="column 'where' has a level that the model was not fitted on in row 1"):
        lntx.predict(pd.DataFrame({"a": [1.0], "where": ["e"]}), root=tmp_path)
    with pytest.raises(BadInput, match=r"the model has categories \('where'\): give a table"):
        lntx.predict([1.0, 0.0, 0.0], root=tmp_path)


def test_a_column_like_a_row_number_is_named(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    frame = pd.DataFrame({"id": np.arange(20), "a": draw.normal(size=20), "y": draw.normal(size=20)})
    assert "'id' rises by one from row to row, like a row number" in _rows(frame, tmp_path)[1][0]
    assert _rows(frame, tmp_path, features=["id", "a"])[1] == (), "a column that is named is meant"
    assert _rows(frame, tmp_path, exclude=["id"])[1] == ()


def test_a_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    text = "größe;ja;wert;y\n1,5;true;-;2,25\n2,5;FALSE;3;1e1\n-,5;True;4;7\n0;false;5;1\n"
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode("latin-1"))
    how: dict[str, Any] = {"delimiter": ";", "decimal": ",", "encoding": "latin-1", "nulls": ["-"], "missing": "drop"}
    data = Data.model_validate({"path": str(path), "target": "y", **how})
    import_table(data, look_at(path), tmp_path / "rows.parquet", bias=False)
    (block,) = read_blocks(open_dataset(tmp_path / "rows.parquet"))
    assert block.x.tolist() == [[2.5, 0.0, 3.0], [-0.5, 1.0, 4.0], [0.0, 0.0, 5.0]]
    assert block.y.tolist() == [10.0, 7.0, 1.0]
    for keys, said in (
        ({"encoding": "utf-8"}, "it is not text of that encoding\nadd to data: {'encoding': 'cp1252'}"),
        ({"delimiter": "|"}, "it has one column\nadd to data: {'delimiter': ';'}"),
        ({"decimal": "."}, r"column 'größe' has a comma in 3 rows, first in row 1 \('1,5'\): read it as a decimal"),
        ({"encoding": "klingon"}, "'klingon' is no text encoding"),
        ({"delimiter": ","}, "data.delimiter and data.decimal are both ','"),
    ):
        with pytest.raises(BadInput, match=said):
            lntx.fit(path, target="y", data={**how, **keys}, root=tmp_path)


def test_a_folder_or_a_glob_of_parquet_is_one_table(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    frame = pd.DataFrame({"a": draw.normal(size=90), "b": draw.normal(size=90)})
    frame["y"] = frame.a - 2 * frame.b + 1
    (tmp_path / "parts").mkdir()
    for k in range(3):
        frame[30 * k : 30 * k + 30].to_parquet(tmp_path / "parts" / f"part-{k}.parquet")
    (tmp_path / "parts" / "_SUCCESS").touch()
    runs = [
        lntx.fit(table, target="y", root=tmp_path)
        for table in (tmp_path / "parts", str(tmp_path / "parts" / "*.parquet"), frame)
    ]
    assert runs[0].num_rows == 90
    assert runs[1].stages["generate"].state == "cached"
    assert runs[0].stages["generate"].files == runs[2].stages["generate"].files, "the same rows, however they come"
    frame.to_csv(tmp_path / "parts" / "other.csv")
    for table, said in (
        (tmp_path / "none*", "holds no Parquet file"),
        (tmp_path / "parts" / "*", "must all be Parquet"),
    ):
        with pytest.raises(BadInput, match=said):
            lntx.fit(table, target="y", root=tmp_path)


def test_a_frame_is_cached_by_its_content_and_only_it_can_bring_its_rows_back(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 5.0], "y": [1.0, 2.0, 3.5, 4.0]}, index=list("wxyz"))
    first = lntx.fit(frame, target="y", root=tmp_path)
    again = lntx.fit(frame.reset_index(drop=True), target="y", root=tmp_path)
    assert {report.state for report in again.stages.values()} == {"cached"}
    assert lntx.run(first.config, root=tmp_path).verdict == "pass", "what is stored needs no frame"
    assert lntx.fit(frame + 1, target="y", root=tmp_path).stages["generate"].state == "ran"
    (tmp_path / first.stages["generate"].files[0].path).unlink()
    with pytest.raises(BadInput, match=r"the rows were a data frame.* call lntx\.fit with it again"):
        lntx.run(first.config, root=tmp_path)
    assert lntx.fit(frame, target="y", root=tmp_path).stages["generate"].state == "ran"


def test_coefficients_and_history_are_data_frames(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 5.0], "y": [1.0, 2.0, 3.5, 4.0]})
    run = lntx.fit(frame, target="y", root=tmp_path)
    table = run.coefficients
    assert [*table.index] == ["a", "bias"]
    assert [*table.columns] == ["estimate", "standard_error", "t", "p", "low", "high"]
    # statsmodels 0.15: OLS(y, [1, a]).fit()
    expected = [
        0.7571428571428573, 0.19587584572574407, 3.8654222746942075,
        0.06087986668170735, -0.08564288516099983, 1.5999285994467145,
    ]  # fmt: skip
    assert np.allclose(table.loc["a"], expected, rtol=1e-12)
    history = run.history
    assert [*history.columns] == ["loss", "a", "bias"]
    assert history.index.name == "epoch"
    assert history.a.iloc[-1] == (run.learned_weights or (0,))[0]
    assert read_run(Store(tmp_path)).history.equals(history)
    assert "<td>bias</td>" in run._repr_html_()
    assert len(repr(run).splitlines()) == len(str(run).splitlines()) == 1


_values = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(_values, st.integers(-(2**40), 2**40), st.booleans()), min_size=3, max_size=20),
    st.permutations(["a", "n", "b", "y"]),
)
def test_a_frame_survives_the_way_in(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], order: list[str]
) -> None:
    """Values, their types and the order of the columns: pandas, polars, pyarrow, Parquet and CSV give the same bits."""
    folder = tmp_path_factory.mktemp("table")
    frame = pd.DataFrame(rows, columns=["a", "n", "b"]).assign(y=[float(k) for k in range(len(rows))])[order]
    expected = {name: frame[name].astype(float).tolist() for name in (*[one for one in order if one != "y"], "y")}
    frame.to_csv(folder / "table.csv", index=False)
    frame.to_parquet(folder / "table.parquet")
    for table in (
        frame,
        frame.convert_dtypes(),
        pl.from_pandas(frame),
        pa.Table.from_pandas(frame, preserve_index=False),
    ):
        with held(table) as path:
            assert _imported(path, folder) == expected
    for suffix in ("csv", "parquet"):
        assert _imported(str(folder / f"table.{suffix}"), folder) == expected


def _imported(path: str, folder: Path) -> dict[str, list[float]]:
    data = Data.model_validate({"path": path, "target": "y"})
    import_table(data, look_at(path), folder / "rows.parquet", bias=False)
    dataset = open_dataset(folder / "rows.parquet")
    (block,) = read_blocks(dataset)
    return {**dict(zip(dataset.features, block.x.T.tolist(), strict=True)), "y": block.y.tolist()}


def test_what_would_be_taken_for_something_else_is_refused(tmp_path: Path) -> None:
    """Each once gave wrong numbers, or a traceback."""
    y = [float(k * k) for k in range(6)]

    def refused(columns: dict[str, Any], **keys: Any) -> str:
        return "\n".join(_refused(pd.DataFrame({**columns, "y": y}), tmp_path, **keys))

    spans = pd.to_timedelta([1, 2, 3, 1, 2, 3], unit="s")
    assert "column 'a' is a date or a time in 6 rows" in refused({"a": spans}, categories=["a"])
    bins = pd.cut([1, 2, 3, 4, 5, 6], 3)
    assert "column 'a' is neither a number nor text" in refused({"a": bins}, categories=["a"])
    assert "'a=c' is a column and a level of a category" in refused(
        {"a": list("bcbcbc"), "a=c": y[::-1]}, categories=["a"]
    )
    empty = pd.DataFrame({"a": pd.Series([], dtype=str), "y": pd.Series([], dtype=float)})
    assert _refused(empty, tmp_path, categories=["a"]) == ["the data frame has no rows"]
    gone = {"a": list("pqpqpq"), "b": [None] * 6}
    assert "without a missing value: 'b' in 6" in refused(gone, categories=["a"], missing="drop")
    assert "column 'b' has no value in 6 rows" in refused(gone, exclude=["a"])
    signs, _ = _rows(pd.DataFrame({"a": [0.0, -0.0, 1.0] * 2, "y": y}), tmp_path, categories=["a"])
    assert signs["a=1"] == [0, 0, 1, 0, 0, 1]
    for table in ({"a": y, "y": y}, np.ones((3, 2)), None, pd.Series(y, name="y")):
        with pytest.raises(BadInput):
            lntx.fit(table, target="y", root=tmp_path)
    assert lntx.fit(pl.DataFrame({"a": y, "y": y}).lazy(), target="y", root=tmp_path, until="generate").verdict is None


def test_true_and_false_beside_numbers_are_a_mix_however_far_apart(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,y\n" + "true,1\nfalse,2\n" * 60_000 + "3,4\n" * 150_000)
    with pytest.raises(BadInput, match="column 'a' mixes numbers and true/false in 120,000 rows, first in row 1:"):
        lntx.fit(path, target="y", root=tmp_path)


def test_a_folder_leaves_no_file_out(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 4.0], "y": [1.0, 2.0, 3.0]})
    frame.to_parquet(tmp_path / "a.parquet")
    (frame + 1).to_parquet(tmp_path / "b.PARQUET")
    assert lntx.fit(tmp_path, target="y", root=tmp_path).num_rows == 6
    assert lntx.fit(tmp_path, target="y", root=tmp_path).num_rows == 6, "what lntx keeps there is no part of it"
    (tmp_path / "more").mkdir()
    frame.to_parquet(tmp_path / "more" / "c.parquet")
    with pytest.raises(BadInput, match=r"in folders below it, such as more/c\.parquet: to read all, give '.*parquet'"):
        lntx.fit(tmp_path, target="y", root=tmp_path)


def test_a_line_of_a_csv_is_a_row_and_comes_back_as_it_was(tmp_path: Path) -> None:
    """An empty line of a single column is a gap; a prediction has the decimals of its table."""
    (tmp_path / "rows.csv").write_text("x;y\n1,5;3,2\n2,5;5\n4;8\n")
    lntx.fit(tmp_path / "rows.csv", target="y", data={"delimiter": ";", "decimal": ","}, root=tmp_path)
    model = find_model(Store(tmp_path))
    write_predictions(model, tmp_path / "rows.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("1,5;3,2;3,")
    (tmp_path / "one.csv").write_text("x\n1,5\n\n2,5\n")
    with pytest.raises(BadInput, match="column 'x' has no value in row 2: fill it, or drop the row"):
        write_predictions(model, tmp_path / "one.csv", tmp_path / "out.csv")
    gaps = pd.DataFrame({"x": np.where(np.arange(200_000) % 1000, 1.0, np.nan)})
    with pytest.raises(BadInput, match="has no value in 200 rows, first in row 1:"):
        lntx.predict(gaps, root=tmp_path)


def test_a_perfect_fit_says_so_and_names_never_mean_two_things(tmp_path: Path) -> None:
    frame = pd.DataFrame({"loss": [1.0, 2, 4, 0, 2, 6], "bias": [2.0, 1, 4, 5, 2, 1]})
    frame["y"] = 2 * frame.loss - 3 * frame.bias + 1
    run = lntx.fit(frame, target="y", root=tmp_path)
    assert run.residual_sd == 0
    assert (run.f_statistic, run.coefficients.t.isna().all()) == (None, True)
    assert "the fit is perfect up to rounding" in run.warnings[0]
    assert [*run.history.columns] == ["loss", "loss (feature)", "bias (feature)", "bias"]
    assert [*run.coefficients.index] == ["loss", "bias (feature)", "bias"]


def test_the_same_model_under_other_names_is_not_guessed(tmp_path: Path) -> None:
    """Equal weights are one file: which names are meant is for the run to say."""
    draw = np.random.default_rng(3)
    x, z = draw.normal(size=(2, 20))
    y = 3 * x - 2 * z + draw.normal(size=20)
    first = lntx.fit(pd.DataFrame({"p": x, "q": z, "y": y}), target="y", root=tmp_path)
    second = lntx.fit(pd.DataFrame({"q": x, "p": z, "y": y}), target="y", root=tmp_path)
    # torch 2.6 writes the time into a .pt2 file.
    assert first.exports["safetensors"] == second.exports["safetensors"]
    model = tmp_path / first.exports["safetensors"]
    row = pd.DataFrame({"p": [1.0], "q": [0.0]})
    with pytest.raises(BadInput, match="does not say what its features are called: use --run"):
        lntx.predict(row, model=model, root=tmp_path)
    assert lntx.predict(row, run=first.run, root=tmp_path)[0] == lntx.predict([1.0, 0.0], model=model, root=tmp_path)[0]


def test_levels_of_equal_numbers_are_equal_and_an_index_is_no_feature(tmp_path: Path) -> None:
    codes = [4006381333931, 17, 25, 17, 25, 4006381333931]
    frame = pd.DataFrame({"code": codes, "a": [1.0, 2, 4, 3, 5, 2], "y": [1.0, 2, 4, 3, 7, 1]}, index=range(5, 11))
    run = lntx.fit(frame, target="y", data={"categories": ["code"]}, root=tmp_path)
    assert run.levels == {"code": ("17", "25", "4006381333931")}
    as_float = frame.assign(code=frame.code.astype(float))
    as_decimal = frame.assign(code=[decimal.Decimal(f"{code}.00") for code in codes])
    for other in (as_float, as_decimal):
        assert lntx.predict(other, root=tmp_path).equals(lntx.predict(frame, root=tmp_path))
    kept = frame[frame.a != 4].drop(columns="code")
    kept.to_parquet(tmp_path / "table.parquet")
    for table in (tmp_path / "table.parquet", pa.Table.from_pandas(kept)):
        stopped = lntx.fit(table, target="y", root=tmp_path, until="generate")
        assert stopped.features == ("a",), "known although it was not evaluated"
    periods = frame.assign(code=pd.period_range("2024-01", periods=6, freq="M"))
    assert "column 'code' is a date or a time" in _refused(periods, tmp_path)[0]


def test_a_key_in_the_place_of_an_option_is_told_where_it_goes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 4.0], "y": [1.0, 2.0, 3.0]})
    with pytest.raises(BadInput, match=r"fit takes missing as data={'missing': …}"):
        lntx.fit(frame, target="y", missing="drop", root=tmp_path)
    with pytest.raises(BadInput, match=r"fit takes momentum as train={'momentum': …}"):
        lntx.fit(frame, target="y", momentum=0.5, root=tmp_path)
