"""`iwae evaluate RUN --dataset OTHER`: rows that are no part of a run's data."""

import csv
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers.small_runs import files_below
from iwae import ais, load, log_likelihood
from iwae.cli import main


@pytest.fixture
def other(tmp_path: Path) -> Path:
    rows = np.random.default_rng(1).integers(0, 2, (25, 6)).astype(np.uint8)
    np.save(tmp_path / "other.npy", rows)
    return tmp_path / "other.npy"


def evaluate(run: Path, *arguments: str | Path) -> int:
    return main(["evaluate", str(run), "--samples", "40", *map(str, arguments)])


def test_other_rows_are_scored_and_written_where_asked(whole: Path, other: Path, tmp_path: Path, capsys) -> None:
    before = files_below(whole)
    assert evaluate(whole, "--dataset", other, "--output", tmp_path / "scores.npy", "--seed", "3") == 0
    scores = np.load(tmp_path / "scores.npy")
    np.testing.assert_array_equal(scores, log_likelihood(load(whole), np.load(other), num_samples=40, seed=3))
    shown = capsys.readouterr().out
    assert f"NLL, L_40: {-scores.mean():.2f} ± {scores.std(ddof=1) / 5:.2f} nats, on 25 rows of" in shown
    assert evaluate(whole, "--dataset", other, "--output", tmp_path / "scores.csv", "--seed", "3") == 0
    with open(tmp_path / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(25))
    np.testing.assert_array_equal([float(row["log_likelihood"]) for row in rows], scores)
    assert all(1 <= float(row["effective_sample_size"]) <= 40 for row in rows)
    # Its position gives a row its draws: the first rows of a file are as they are alone.
    assert evaluate(whole, "--dataset", other, "--output", tmp_path / "few.npy", "--seed", "3", "--examples", "4") == 0
    np.testing.assert_allclose(np.load(tmp_path / "few.npy"), scores[:4], rtol=1e-6)
    np.savez(tmp_path / "other.npz", valid=np.load(other)[:1])
    assert evaluate(whole, "--dataset", tmp_path / "other.npz", "--split", "valid") == 0
    assert "nats, on 1 rows of" in capsys.readouterr().out
    assert files_below(whole) == before


def test_rows_of_a_table_are_scored_by_its_columns(tmp_path: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"age": rng.normal(50, 9, 60), "city": rng.choice(["Oslo", "Rome"], 60)})
    frame.write_csv(tmp_path / "train.csv")
    words = ["--latent", "2", "--hidden", "4", "--schedule", "quick", "--epochs", "2", "--test-samples", "5"]
    assert main(["train", "--dataset", str(tmp_path / "train.csv"), "--run-dir", str(tmp_path / "run"), *words]) == 0
    other = pl.DataFrame({"city": ["Rome", None, "Oslo"], "more": [1, 2, 3], "age": [40.0, 60.0, 5000.0]})
    other.write_csv(tmp_path / "other.csv")
    how = ["--dataset", tmp_path / "other.csv", "--output", tmp_path / "scores.npy"]
    assert evaluate(tmp_path / "run", *how) == 0
    likely, gap, far = np.load(tmp_path / "scores.npy")
    assert far < likely - 1000
    assert np.isfinite(gap)
    assert evaluate(tmp_path / "run", *how[:1], tmp_path / "train.csv") == 0
    assert "test NLL, L_40" in capsys.readouterr().out
    other.with_columns(city=pl.lit("Paris")).write_csv(tmp_path / "unseen.csv")
    assert evaluate(tmp_path / "run", "--dataset", tmp_path / "unseen.csv") == 1
    assert "Paris" in capsys.readouterr().err


def test_the_runs_own_file_elsewhere_is_its_own_data(whole: Path, data: Path, tmp_path: Path, capsys) -> None:
    moved = tmp_path / "moved.npz"
    moved.write_bytes(data.read_bytes())
    assert evaluate(whole, "--dataset", moved) == 0
    assert "test NLL, L_40" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--output", "old.csv"], "--output old.csv is there already: remove it, or choose another name"),
        (["--output", "new.txt"], "--output must be an .npy or .csv file, got new.txt"),
        (["--output", "nowhere/new.csv"], "nowhere: No such file or directory"),
        (["--method", "ais"], "--samples goes with --method importance, and this is ais: leave it out"),
        (["--dataset", "wide.npy"], "`x` has 7 dimensions, but the model was built for 6"),
        (["--dataset", "grey.npy"], "must be zeros and ones: the model was trained on such"),
        (["--dataset", "test.npz", "--split", "train"], "test.npz has no array train"),
        (["--dataset", "rows.csv"], "the run was trained on an array, and rows.csv is a table"),
        (["--dataset", "rows.txt"], "rows.txt is not an .npy or .npz file"),
        (["--dataset", "gone.npy"], "--dataset gone.npy: there is no such file; give the path of your own data"),
    ],
)
def test_what_has_no_meaning_is_one_line(
    arguments: list[str], problem: str, whole: Path, other: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.csv").write_text("mine")
    Path("rows.csv").write_text("1,0")
    Path("rows.txt").write_text("1,0")
    np.save("wide.npy", np.zeros((3, 7), np.uint8))
    np.save("grey.npy", np.full((3, 6), 7, np.uint8))
    np.savez("test.npz", test=np.zeros((3, 6), np.uint8))
    given = arguments if "--dataset" in arguments else ["--dataset", str(other), *arguments]
    assert evaluate(whole, *given) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert problem.replace("`", "") in error
    assert Path("old.csv").read_text() == "mine"


def test_output_is_for_other_rows(whole: Path, capsys) -> None:
    assert evaluate(whole, "--output", "scores.csv") == 1
    assert "--output is for other rows, which --dataset gives" in capsys.readouterr().err


def test_other_rows_by_ais_are_those_of_the_library(whole: Path, other: Path, tmp_path: Path, capsys) -> None:
    how = ["--method", "ais", "--chains", "3", "--steps", "2", "--leapfrogs", "2", "--examples", "5", "--seed", "1"]
    arguments = [str(whole), "--dataset", str(other), *how, "--output", str(tmp_path / "scores.npy")]
    assert main(["evaluate", *arguments]) == 0
    out = capsys.readouterr().out
    expected = ais(load(whole), np.load(other)[:5], chains=3, steps=2, leapfrogs=2, seed=1)
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), expected.log_likelihood)
    assert f"NLL, AIS: {expected.nll:.2f}" in out
    assert "on 5 rows of" in out
    assert not (whole / "evaluations").exists() or not list((whole / "evaluations").glob("*ais*"))


def test_of_other_rows_it_is_said_how_far_to_trust_them(whole: Path, other: Path, capsys) -> None:
    assert main(["evaluate", str(whole), "--dataset", str(other), "--samples", "100", "--examples", "5"]) == 0
    out = capsys.readouterr().out
    assert "NLL by JVI-2" in out
    assert "Pareto k-hat: median" in out
