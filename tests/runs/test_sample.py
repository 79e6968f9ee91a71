"""`iwae sample`: draws from p(x) as the kind of file that the data are; pictures of images show means."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

import iwae
from helpers.small_runs import files_below, go, small_config, write_data
from iwae.cli import main
from iwae.data.columns import Column
from iwae.data.tables import to_frame
from iwae.errors import IWAEError
from iwae.evaluation import visualization
from iwae.evaluation.visualization import draws
from iwae.models.architecture import Architecture
from iwae.runs.sample import sample_file, write_samples

COLUMNS = (
    Column("age", "gaussian", "real"),
    Column("city", "categorical", "text", ("Oslo", "Rome")),
    Column("visits", "poisson", "integer"),
    Column("smokes", "bernoulli", "bool"),
)
TYPES = {"age": pl.Float64, "city": pl.String, "visits": pl.Int64, "smokes": pl.Boolean}


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    city, smokes = rng.choice(["Oslo", "Rome"], 200), rng.random(200) < 0.2
    return pl.DataFrame({"age": rng.normal(50, 9, 200), "city": city, "visits": rng.poisson(4, 200), "smokes": smokes})


@pytest.fixture(scope="module")
def run(table: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sample")
    table.write_csv(directory / "d.csv")
    go(directory / "run", small_config(directory / "d.csv", epochs=1))
    return directory / "run"


def test_draws_of_a_table_are_a_table(run: Path, table: pl.DataFrame, tmp_path: Path, capsys) -> None:
    """With names, types and levels; as far apart as the data are, which means are not."""
    assert not (run / "samples.png").exists()
    own = pl.read_csv(run / "samples.csv")
    assert (dict(own.schema), len(own)) == (TYPES, 100)
    for suffix, read in ((".csv", pl.read_csv), (".parquet", pl.read_parquet)):
        path = tmp_path / f"s{suffix}"
        assert main(["sample", str(run), "--output", str(path), "--rows", "1500"]) == 0
        assert capsys.readouterr().out == f"Written: {path}\n"
        drawn = read(path)
        assert (dict(drawn.schema), len(drawn)) == (TYPES, 1500)
        assert set(drawn["city"]) == {"Oslo", "Rome"}
        assert 0.5 < drawn["age"].to_numpy().std() / table["age"].to_numpy().std() < 2
        assert drawn["visits"].n_unique() > 5
        # The first rows are those of fewer.
        assert drawn[:100].equals(own)
    before = files_below(tmp_path)
    assert main(["sample", str(run), "--output", str(path)]) == 1
    assert f"--output {path} is there already: remove it, or choose another name" in capsys.readouterr().err
    assert main(["sample", str(run), "--output", str(tmp_path / "s.png")]) == 1
    assert "is a picture, and the run's data are no images" in capsys.readouterr().err
    assert main(["sample", str(run), "--rows", "7"]) == 1
    assert "--rows 7 needs --output" in capsys.readouterr().err
    assert main(["sample", str(run), "--seed", "1"]) == 0
    assert capsys.readouterr().out == f"{run / 'samples.csv'}\n"
    assert not pl.read_csv(run / "samples.csv").equals(own)
    assert files_below(tmp_path) == before


def test_draws_of_numbers_vary_as_the_model_says() -> None:
    """Bits instead of probabilities; and those of a Gaussian have its variance, in the units of the rows."""
    bits = iwae.create_model(np.eye(4, dtype=np.uint8)[[0, 1, 2, 3, 0]], Architecture(4, (2,), ((3,),)))
    assert set(np.unique(draws(bits, 50))) == {0.0, 1.0}
    data = iwae.Dataset.from_arrays(np.random.default_rng(0).normal(100, 5, (500, 2)), likelihood="gaussian")
    model = iwae.create_model(data, Architecture(2, (1,), ((),)))
    found, means = draws(model, 3000), visualization.samples(model, 3000)
    np.testing.assert_array_equal(draws(model, 5), found[:5])
    # A bias of zero is a sigma of exp(0) standard deviations.
    assert np.all(found.var(axis=0) > means.var(axis=0) + 0.7 * data.train.var(axis=0))
    assert np.all(np.abs(found.mean(axis=0) - 100) < 1)


def test_a_frame_has_the_shortest_numbers() -> None:
    frame = to_frame(np.array([[0.1, 1, 3, 0]], np.float32), COLUMNS)
    assert frame.rows() == [(0.1, "Rome", 3, False)]
    assert dict(frame.schema) == TYPES


def test_images_have_a_picture_of_means_and_draws(tmp_path: Path) -> None:
    images, run = write_data(tmp_path / "some.npz", shape=(4, 5)), tmp_path / "run"
    go(run, small_config(images), stages=1)
    model = iwae.load(run)
    values = np.load(run / "samples.npy")
    assert len(np.unique(values)) > 100
    assert main(["sample", str(run), "--output", str(tmp_path / "s.npy"), "--rows", "3"]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), draws(model, 3))
    assert main(["sample", str(run), "--output", str(tmp_path / "s.png")]) == 0
    pixels = [np.asarray(Image.open(path)) for path in (tmp_path / "s.png", run / "samples.png")]
    np.testing.assert_array_equal(pixels[0], pixels[1])
    assert main(["sample", str(run), "--output", str(tmp_path / "s.tsv"), "--rows", "3"]) == 0
    assert pl.read_csv(tmp_path / "s.tsv", separator="\t").columns == [str(place) for place in range(20)]


def test_arrays_that_are_no_images_have_draws_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = iwae.create_model(iwae.Dataset.from_arrays(rng.normal(size=(50, 3)), likelihood="gaussian"))
    record: Any = {"name": "d.npy", "image_shape": None, "likelihood": "gaussian", "dim": 3}
    shown, values = write_samples(tmp_path, model, record)
    assert shown == values == tmp_path / "samples.npy"
    np.testing.assert_array_equal(np.load(values), draws(model, 100))
    with pytest.raises(IWAEError, match=r"`output` must be a .npy, .png, .csv, .tsv or .parquet file"):
        sample_file(model, tmp_path / "s.txt", record)
    with pytest.raises(IWAEError, match="`rows` must be an integer of at least 1"):
        sample_file(model, tmp_path / "s.npy", record, rows=0)
