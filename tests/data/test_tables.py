"""Tables: what columns are taken for, rows of numbers and back, files of every kind, and refusals that name columns."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import iwae
from iwae.data import load_dataset
from iwae.data.columns import Column, Reading
from iwae.data.tables import completed, learn_columns, read_table, repeated, to_rows, write_table
from iwae.errors import IWAEError
from iwae.models.likelihoods import likelihood_of

CELLS: dict[str, list[Any]] = {
    "age": [31.5, None, 62.25, 44.0, 18.0, 29.0, 51.0, 73.0, 38.0, 26.0, 44.5, 57.0],
    "smokes": [True, False, None, True, False, False, True, True, False, True, False, True],
    "city": ["Oslo", "Rome", "Lima", None, "Rome", "Oslo", "Rome", "Lima", "Rome", "Oslo", "Rome", "Oslo"],
    "visits": [0, 12, 3, 1, None, 7, 25, 0, 2, 4, 9, 1],
    "outcome": [1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0],
}
COLUMNS = (
    Column("age", "gaussian", "real"),
    Column("smokes", "bernoulli", "bool"),
    Column("city", "categorical", "text", ("Lima", "Oslo", "Rome")),
    Column("visits", "negative-binomial", "integer"),
)
ROWS = np.array(
    [CELLS["age"], CELLS["smokes"], [{"Lima": 0, "Oslo": 1, "Rome": 2}.get(c) for c in CELLS["city"]], CELLS["visits"]],
    dtype=np.float64,
).T


def pandas_frame(**dtypes: Any) -> pd.DataFrame:
    frame = pd.DataFrame({**CELLS, "smokes": pd.array(CELLS["smokes"], "boolean")}, index=list("abcdefghijkl"))
    return frame.astype({"visits": "Int64", **dtypes})


FRAMES = {
    "polars": pl.DataFrame(CELLS),
    "pandas": pandas_frame(),
    "pandas categories": pandas_frame(city="category"),
    "polars categories": pl.DataFrame(CELLS).with_columns(pl.col("city").cast(pl.Categorical)),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_becomes_rows_and_a_frame_again(name: str) -> None:
    frame = FRAMES[name]
    columns = learn_columns({"train": frame}, Reading(target=("outcome",)))
    assert columns == COLUMNS
    rows = to_rows(frame, columns)
    np.testing.assert_array_equal(rows, ROWS)
    filled = np.where(np.isnan(rows), [40.125, 0.7, 1, 5.4], rows)
    back = completed(frame, columns, filled)
    assert type(back) is type(frame)
    made = {name: list(back[name]) for name in back.columns}
    for column, new in (("age", 40.125), ("smokes", True), ("city", "Oslo"), ("visits", 5)):
        assert made[column] == [new if value is None else value for value in CELLS[column]]
    assert made["outcome"] == CELLS["outcome"]
    if isinstance(frame, pd.DataFrame):
        pd.testing.assert_index_equal(back.index, frame.index)
    for column in frame.columns:
        assert back[column].dtype == frame[column].dtype


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_files_of_every_kind_hold_the_same(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"d{suffix}"
    write_table(path, pl.DataFrame(CELLS))
    assert read_table(path).equals(pl.DataFrame(CELLS))
    data = load_dataset(str(path), reading=Reading(target=("outcome",)))
    assert data.columns == COLUMNS
    joined = np.concatenate([data.train, data.valid, data.test])
    np.testing.assert_array_equal(joined[np.lexsort(joined.T)], ROWS[np.lexsort(ROWS.T)].astype(np.float32))
    assert data.description()[2] == "city: text -> categorical (3 levels: Lima, Oslo, Rome), 1 of 10 missing"
    likelihood = iwae.create_model(data, iwae.Architecture(None, (2,), ((4,),))).likelihood
    assert likelihood.name == "mixed"
    assert likelihood.num_outputs(4) == 2 + 1 + 3 + 2


def test_a_frame_of_one_kind_has_that_likelihood() -> None:
    frame = pl.DataFrame({"a": [0.5, 1.5, None, 4.0], "b": [1.0, 2.0, 3.0, 7.0]})
    data = iwae.Dataset.from_frame(frame, frame[:2])
    assert (data.likelihood, data.train.dtype, len(data.test)) == ("gaussian", np.float32, 2)
    bits = iwae.Dataset.from_frame(pl.DataFrame({"a": [True, False], "b": [False, None]}))
    assert (bits.likelihood, bits.binary) == ("bernoulli", True)
    said = iwae.Dataset.from_frame(frame, likelihood="student-t,b=poisson", columns=["b", "a"])
    assert (said.likelihood, [column.name for column in said.columns]) == (("poisson", "student-t"), ["b", "a"])


def test_levels_are_those_of_all_rows_and_may_be_numbers() -> None:
    train, test = pl.DataFrame({"x": [3, 1, 3]}), pl.DataFrame({"x": [2, None]})
    data = iwae.Dataset.from_frame(train, test, likelihood="categorical")
    assert data.columns[0].levels == (1, 2, 3)
    np.testing.assert_array_equal(data.test, [[1], [np.nan]])
    assert completed(test, data.columns, np.array([[1.0], [2.0]]))["x"].to_list() == [2, 3]


def test_completed_tables_lie_one_below_the_other() -> None:
    frame = repeated([pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [2]})])
    assert frame.to_dict(as_series=False) == {"draw": [0, 1], "a": [1, 2]}


@pytest.mark.parametrize(
    ("cells", "reading", "words"),
    [
        ({"a": [1.0, float("inf"), 3.0]}, {}, "column 'a' has an infinite value in row 2"),
        ({"a": ["1", "2.5", "x7", "4"]}, {}, r"column 'a' has the text 'x7' among its numbers \(row 3\)"),
        ({"a": [None, None], "b": [1, 2]}, {}, "column 'a' has no value: leave it out"),
        ({"a": ["x", "y"]}, {"likelihood": "a=gaussian"}, "column 'a' has texts, such as 'x': give a=categorical"),
        (
            {"a": [str(i) + "x" for i in range(1001)]},
            {"likelihood": "a=categorical"},
            "column 'a' has 1,001 different values",
        ),
        ({"a": pd.to_datetime(["2020-01-01", "2021-01-01"])}, {}, "column 'a' is of type Datetime"),
        ({"a": [1, 2]}, {"likelihood": "b=poisson"}, "`likelihood`: there is no column 'b', the columns are a"),
        ({"a": [1, 2]}, {"target": ["b"]}, "`target`: there is no column 'b'"),
        ({"a": [1, 2]}, {"target": ["a"]}, "no column is left of a"),
        ({"a": [1.7e9, 1.7e9 + 2]}, {}, "column 'a' varies by 1 around 1.7e"),
        ({"a": [10**17, 10**17 + 1, 10**17 + 9]}, {}, "column 'a' varies by .* leave it out .* if it is an id"),
        ({"a": [1e300, 1.0]}, {}, r"column 'a' has 1e\+300, too large for float32"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_by_its_name(cells: Any, reading: Any, words: str) -> None:
    for frame in (pd.DataFrame(cells), pl.DataFrame(cells)):
        with pytest.raises(IWAEError, match=words) as raised:
            iwae.Dataset.from_frame(frame, **reading)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"city": "Bonn"},
            "column 'city' has 'Bonn' in row 1, which was not there when the model was trained: its levels",
        ),
        ({"age": "old"}, "column 'age' has texts, such as 'old', instead of numbers"),
        ({"visits": float("inf")}, "column 'visits' has an infinite value in row 1"),
    ],
)
def test_new_rows_that_do_not_fit_are_refused_by_their_column(change: dict[str, Any], words: str) -> None:
    row = {name: cells[0] for name, cells in CELLS.items()}
    with pytest.raises(IWAEError, match=words):
        to_rows(pl.DataFrame([row | change]), COLUMNS)
    row.pop("smokes")
    with pytest.raises(IWAEError, match="the table has no column 'smokes'"):
        to_rows(pl.DataFrame([row]), COLUMNS)
    assert to_rows(pl.DataFrame([{name: cells[0] for name, cells in CELLS.items()}]), COLUMNS).shape == (1, 4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b,a\n1,2,3\n", "two columns are called 'a': rename one"),
        ("1,2\n3,4\n", "its first line has numbers instead of the columns' names"),
        ("", "not a readable table"),
        ("a\n1\n2\n", "2 rows are too few to be split"),
    ],
)
def test_unusable_files_are_refused_in_one_line(content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(content)
    with pytest.raises(IWAEError, match=words) as raised:
        load_dataset(str(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_frames_with_doubled_names_and_other_things_are_refused() -> None:
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(IWAEError, match="two columns are called 'a'"):
        iwae.Dataset.from_frame(twice)
    with pytest.raises(IWAEError, match="expected a frame of pandas or polars, got list"):
        iwae.Dataset.from_frame([1, 2])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a;b\n1;2\n3;4\n", "its only column would be 'a;b': columns are separated by ';' there, expected ','"),
        ("a,b\n1,2\n3,4,5\n", "a row has more fields than the first line has names of columns"),
        ("a, b\n" + "1, 0.5\n" * 12, "column ' b' has numbers as texts, such as ' 0.5'"),
        ("a,b\n" + '1,"0,5"\n' * 12, "column 'b' has numbers as texts, such as '0,5': write numbers with a point"),
        ("id,b\n" + "".join(f"p{i},{i % 3}\n" for i in range(30)), "column 'id' has 30 different texts in 30 rows"),
        ("a,b\n", "the table has no rows"),
        *(
            (f"day,b\n{day},1\n" + ",0.5\n" + f"{day},0.5\n" * 12, f"column 'day' has dates or times, such as '{day}'")
            for day in (
                "2020-01-31",
                "31.1.2020",
                "1/31/20",
                "2020-01-31T12:30:05.25+01:00",
                "2020/01/31 1:05 PM",
                "12:30",
            )
        ),
        ("a,b\n" + ",2\n" * 12, "column 'a' has no value: leave it out (`target`)"),
    ],
)
def test_files_that_are_not_what_they_seem_are_refused(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(content)
    with pytest.raises(IWAEError) as raised:
        load_dataset(str(tmp_path / "d.csv"))
    assert words in str(raised.value)


def test_what_looks_like_a_date_can_be_categories(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("size,b\n" + "1-2-3,0.5\n4-5-6,0.7\n" * 12)
    columns = load_dataset(str(tmp_path / "d.csv"), reading=Reading("size=categorical")).columns
    assert columns[0].levels == ("1-2-3", "4-5-6")


def test_a_text_of_another_encoding_is_refused(tmp_path: Path) -> None:
    for suffix in (".csv", ".tsv"):
        path = tmp_path / f"d{suffix}"
        path.write_bytes(("city\n" + "Malmö\nOslo\n" * 9).encode("latin-1"))
        with pytest.raises(IWAEError, match="its text is not UTF-8: save it as UTF-8"):
            load_dataset(str(path))


def test_different_integers_may_be_ids() -> None:
    frame = pl.DataFrame({"id": range(100, 130), "b": [1.5, 2.5, 4.0] * 10, "c": [3, 4, 5] * 10})
    first, *others = iwae.Dataset.from_frame(frame).description()
    assert first.startswith("id: integer -> ")
    assert first.endswith(", all different: leave it out (--target) if it is an id")
    assert not any("id" in line for line in others)


NAMED = ["a", "a,b", "a=b", "x,y=z", "b"]


@pytest.mark.parametrize(
    ("likelihood", "kinds"),
    [
        ("a=poisson,b=student-t", ["poisson", "auto", "auto", "auto", "student-t"]),
        ("student-t, a,b=poisson , a=b=gaussian", ["student-t", "poisson", "gaussian", "student-t", "student-t"]),
        ("x,y=z=poisson,gaussian", ["gaussian", "gaussian", "gaussian", "poisson", "gaussian"]),
        ("", ["auto"] * 5),
    ],
)
def test_names_with_commas_and_signs_of_equality_get_kinds(likelihood: str, kinds: list[str]) -> None:
    assert Reading(likelihood).kinds(NAMED) == kinds


@pytest.mark.parametrize("likelihood", ["b=poisson,b=gaussian", "poisson,gaussian", "poisson,b=gaussian,bernoulli"])
def test_what_is_said_twice_is_refused(likelihood: str) -> None:
    with pytest.raises(IWAEError, match="it says twice what"):
        Reading(likelihood).kinds(NAMED)


@pytest.mark.parametrize(
    ("columns", "target", "places"),
    [
        (("a", "b"), (), [0, 4]),
        (("b,a",), (), [4, 0]),
        (("a,b",), (), [1]),
        (("b, x,y=z",), (), [4, 3]),
        (("b, x",), (), None),
        (("x,y=z", "b,a"), (), [3, 4, 0]),
        ((), ("a,b", "a=b,b"), [0, 3]),
    ],
)
def test_columns_are_separated_by_blanks_or_commas(columns: Any, target: Any, places: list[int] | None) -> None:
    if places is None:
        with pytest.raises(IWAEError, match="`columns`: there is no column 'x', the columns are a, a,b, a=b"):
            Reading(columns=columns).chosen(NAMED)
    else:
        assert Reading(columns=columns, target=target).chosen(NAMED) == places


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("poisson", [1.5, 2.0]),
        ("negative-binomial", [-1, 2]),
        ("discretized-logistic", [300, 1]),
        ("bernoulli", [2, 0]),
    ],
)
@pytest.mark.parametrize("others", [{}, {"size": [0.5, 1.5]}], ids=["alone", "mixed"])
def test_values_that_a_kind_can_not_have_name_their_column(kind: str, values: list[Any], others: Any) -> None:
    frame = pl.DataFrame({**others, "ok": [1, 0], "age": values})
    data = iwae.Dataset.from_frame(frame, likelihood=f"{kind},size=gaussian" if others else kind)
    with pytest.raises(IWAEError, match="column 'age' of the train split"):
        iwae.create_model(data)


def test_columns_of_pandas_with_gaps_are_what_they_are() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"smokes": rng.random(40) < 0.5, "visits": rng.poisson(3, 40), "age": rng.normal(50, 9, 40)})
    frame["smokes"] = frame["smokes"].astype(object).where(rng.random(40) < 0.8)
    frame["visits"] = frame["visits"].where(rng.random(40) < 0.8)
    frame["age"] = frame["age"].where(rng.random(40) < 0.8)
    data = iwae.Dataset.from_frame(frame)
    assert [column.kind for column in data.columns] == ["bernoulli", "poisson", "gaussian"]
    np.testing.assert_array_equal(np.isnan(data.train), frame.isna().to_numpy())
    assert iwae.Dataset.from_frame(frame, target="visits").dim == 2


def test_another_kind_is_advised_for_the_column_alone() -> None:
    data = iwae.Dataset.from_frame(pl.DataFrame({"a": [0.5, 1.5], "b": [1.0, 3.0]}), likelihood="a=bernoulli")
    with pytest.raises(iwae.IWAEError, match=r"column 'a' .* scale them, or use `likelihood` a=gaussian$"):
        likelihood_of(data)


def test_an_unknown_kind_is_not_the_fault_of_a_column() -> None:
    with pytest.raises(iwae.IWAEError, match=r"^`likelihood` poison is for numbers, if it is a kind, and column 'a'"):
        iwae.Dataset.from_frame(pl.DataFrame({"a": ["x", "y", "x"]}), likelihood="poison")
