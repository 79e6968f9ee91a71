"""`iwae impute`: a file in, the completed file out."""

from pathlib import Path

import numpy as np
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
        np.testing.assert_array_equal(found["test"], found["train"][:, :2])
        assert set(np.unique(found["train"])) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("x.csv", "y.csv", r"must both be \.npy or both be \.npz files, got x.csv and y.csv"),
        ("x.npy", "y.npz", "must both be"),
        ("x.npy", "x.npy", "`output` .* is `input`"),
        ("other.npz", "y.npz", "has no array train or valid or test"),
        ("bad.npy", "y.npy", "cannot use .*bad.npy as data"),
    ],
)
def test_other_files_are_refused(run, tmp_path, source, target, message):
    np.save(tmp_path / "x.npy", gaps())
    np.savez(tmp_path / "other.npz", rows=gaps())
    (tmp_path / "bad.npy").write_bytes(b"no array")
    model = Run.open(run).checkpoint(None).model()
    with pytest.raises(IWAEError, match=message):
        impute_file(model, tmp_path / source, tmp_path / target)
