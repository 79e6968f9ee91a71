"""`iwae impute`: a file in, the completed file out."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from helpers.small_runs import go, small_config, write_data
from iwae.cli import main
from iwae.errors import IWAEError
from iwae.runs.directory import Run
from iwae.runs.impute import impute_file


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("impute")
    go(directory / "run", small_config(write_data(directory / "toy.npz")), stages=1)
    return directory / "run"


def gaps() -> np.ndarray:
    rows = np.random.default_rng(0).random((20, 6)).round().astype(np.float64)
    rows[::2, 1] = rows[5, :] = np.nan
    return rows


def test_a_file_comes_back_complete(run, tmp_path, capsys):
    source, target = tmp_path / "in.npy", tmp_path / "out.npy"
    np.save(source, gaps())
    assert main(["impute", str(run), "--input", str(source), "--output", str(target), "--samples", "50"]) == 0
    assert "Missing in x: 16 values" in capsys.readouterr().out
    table = np.load(target)
    seen = ~np.isnan(gaps())
    np.testing.assert_array_equal(table[seen], gaps()[seen])
    assert np.all((table >= 0) & (table <= 1))
    np.savez(tmp_path / "in.npz", train=gaps(), test=gaps()[:2, :])
    files = [f"--{name}={tmp_path / name.removesuffix('put')}.npz" for name in ("input", "output")]
    assert main(["impute", str(run), *files, "--draws", "3", "--samples", "50", "--seed", "1"]) == 0
    with np.load(tmp_path / "out.npz") as found:
        assert {name: array.shape for name, array in found.items()} == {"train": (3, 20, 6), "test": (3, 2, 6)}
        # Its content gives a row its draws, and equal rows have their own, in their order.
        first = np.unique(gaps()[:2], axis=0, return_index=True)[1]
        np.testing.assert_array_equal(found["test"][:, first], found["train"][:, first])
        assert set(np.unique(found["train"])) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("x.csv", "y.npy", r"must both be \.npy, both \.npz or both \.csv, .* files, got x.csv and y.npy"),
        ("x.csv", "y.csv", "the run was trained on an array, and x.csv is a table"),
        ("x.npy", "y.npz", "must both be"),
        ("x.npy", "x.npy", "`output` .*x.npy is there already: remove it, or choose another name"),
        ("x.npy", "nowhere/y.npy", "No such file or directory"),
        ("other.npz", "y.npz", "has no array train or valid or test"),
        ("bad.npy", "y.npy", "cannot use .*bad.npy as data"),
    ],
)
def test_other_files_are_refused(run, tmp_path, source, target, message):
    np.save(tmp_path / "x.npy", gaps())
    np.savez(tmp_path / "other.npz", rows=gaps())
    (tmp_path / "bad.npy").write_bytes(b"no array")
    model = Run.open(run).checkpoint(None).model()
    with pytest.raises((IWAEError, OSError), match=message):
        impute_file(model, tmp_path / source, tmp_path / target)


def test_a_table_is_trained_on_and_comes_back_complete(tmp_path, capsys):
    """Names of columns, types, order of rows and other columns stay; what is missing becomes a value of its column."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=60)
    cells = {
        "id": [f"p{row}" for row in range(60)],
        "age": (50 + 10 * hidden).round(1).tolist(),
        "city": np.where(hidden > 0, "Oslo", "Rome").tolist(),
        "visits": rng.poisson(np.exp(1 + hidden)).tolist(),
        "smokes": (hidden > 0.5).tolist(),
    }
    for name, gaps in (("age", slice(3, 60, 7)), ("city", slice(1, 60, 9)), ("visits", [4]), ("smokes", [0, 5])):
        for row in np.arange(60)[gaps]:
            cells[name][row] = None
    table, run = pl.DataFrame(cells), tmp_path / "run"
    table.write_csv(tmp_path / "d.csv")
    options = "--target id --likelihood visits=negative-binomial --mask concatenate --latent 2 --hidden 8 --epochs 2"
    words = [*options.split(), "--test-samples", "5", "--run-dir", str(run)]
    assert main(["train", "--dataset", str(tmp_path / "d.csv"), *words]) == 0
    printed = capsys.readouterr().err
    for line in (
        "age: real -> gaussian",
        "city: text -> categorical (2 levels: Oslo, Rome)",
        "smokes: bool -> bernoulli",
    ):
        assert line in printed
    columns: dict[str, Any] = {column["name"]: column for column in Run.open(run).data.get("columns", [])}
    assert list(columns) == ["age", "city", "visits", "smokes"]
    assert columns["city"]["levels"] == ["Oslo", "Rome"]
    assert abs(columns["age"]["mean"] - 50) < 8
    files = [f"--input={tmp_path / 'd.csv'}", f"--output={tmp_path / 'out.parquet'}", "--samples", "20"]
    assert main(["impute", str(run), *files]) == 0
    assert "Missing in smokes: 2 values" in capsys.readouterr().out
    made = pl.read_parquet(tmp_path / "out.parquet")
    assert made.schema == table.schema
    assert made.null_count().row(0) == (0,) * 5
    for name in table.columns:
        assert [new for new, old in zip(made[name], table[name], strict=True) if old is not None] == (
            table[name].drop_nulls().to_list()
        )
    assert main(["impute", str(run), files[0], f"--output={tmp_path / 'out.csv'}", "--draws", "2", *files[2:]]) == 0
    drawn = pl.read_csv(tmp_path / "out.csv")
    assert drawn["draw"].to_list() == [0] * 60 + [1] * 60
    assert set(drawn["city"]) == {"Oslo", "Rome"}
    # A part of the rows, in another order, is filled in alike.
    part = table.sample(20, shuffle=True, seed=1)
    part.write_csv(tmp_path / "part.csv")
    some = [f"--input={tmp_path / 'part.csv'}", f"--output={tmp_path / 'some.parquet'}", "--samples", "20"]
    capsys.readouterr()
    assert main(["impute", str(run), *some]) == 0
    assert "Check" not in capsys.readouterr().out
    assert pl.read_parquet(tmp_path / "some.parquet").equals(part[["id"]].join(made, on="id", maintain_order="left"))
    table.drop("age").write_csv(tmp_path / "other.csv")
    assert main(["impute", str(run), f"--input={tmp_path / 'other.csv'}", f"--output={tmp_path / 'x.csv'}"]) == 1
    assert "the table has no column 'age', which the model was trained on" in capsys.readouterr().err


def test_the_last_line_says_how_good_it_is(tmp_path: Path, capsys) -> None:
    """Of the rows that the run held out where the file is its own, and else of the file's."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({name: rng.normal(size=400) for name in "abc"} | {"d": rng.choice(["x", "y"], 400)})
    frame = frame.with_columns(a=pl.when(pl.int_range(400) % 9 == 0).then(None).otherwise("a"))
    frame.write_csv(tmp_path / "d.csv")
    frame[:90].write_csv(tmp_path / "other.csv")
    go(tmp_path / "run", small_config(tmp_path / "d.csv", epochs=1))
    for name, words in (("d.csv", "of rows that training held out"), ("other.csv", "of the same rows")):
        files = ["--input", str(tmp_path / name), "--output", str(tmp_path / f"o-{name}"), "--samples", "20"]
        assert main(["impute", str(tmp_path / "run"), *files]) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        assert words in line
        assert ": normalized RMSE " in line
        assert "; categories right " in line
        # Independent columns can't be imputed.
        assert "This is no better than filling in a constant per column" in line


def test_rows_of_counts_are_given_their_totals(tmp_path: Path, capsys) -> None:
    """By which a run was trained, and which stand in no file."""
    counts = np.random.default_rng(0).poisson(5.0, (60, 4)) + 1.0
    np.save(tmp_path / "d.npy", counts.astype(int))
    likelihood = "poisson,row-total=exposure"
    go(tmp_path / "run", small_config(tmp_path / "d.npy", likelihood=likelihood, epochs=1))
    gaps = counts[:8].copy()
    gaps[::2, 1] = np.nan
    np.save(tmp_path / "gaps.npy", gaps)
    files = ["--input", str(tmp_path / "gaps.npy"), "--output", str(tmp_path / "o.npy"), "--samples", "20"]
    assert main(["impute", str(tmp_path / "run"), *files]) == 0
    filled = np.load(tmp_path / "o.npy")
    assert filled.shape == (8, 4)
    np.testing.assert_array_equal(filled[~np.isnan(gaps)], gaps[~np.isnan(gaps)])
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "run"), "--dataset", str(tmp_path / "gaps.npy"), "--samples", "20"]) == 0
    assert "nats, on 8 rows of" in capsys.readouterr().out
