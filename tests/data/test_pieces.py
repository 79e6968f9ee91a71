"""Files that are read in pieces: what comes of them is what comes of the same file in memory."""

import numpy as np
import polars
import pytest

from iwae.data import Dataset, load_dataset
from iwae.data.columns import Reading
from iwae.data.disk_rows import ENVIRONMENT_VARIABLE, DiskRows
from iwae.errors import IWAEError
from iwae.models.likelihoods import likelihood_of

RNG = np.random.default_rng(0)
GAPS = RNG.random((331, 4)) < 0.2
BITS = RNG.random((331, 4)) < 0.4
ARRAYS = {
    "real": RNG.normal(3, 2, (331, 4)),
    "one column": RNG.normal(size=(331, 1)),
    "big-endian": RNG.normal(size=(331, 4)).astype(">f8"),
    "gaps": np.where(GAPS, np.nan, RNG.normal(size=(331, 4))),
    "bits": BITS.astype(np.float64),
    "bool": BITS,
    "bits with gaps": np.where(GAPS, np.nan, BITS),
    "grey images": RNG.integers(0, 256, (331, 4, 3)).astype(np.uint8),
    "grey fractions": RNG.integers(0, 256, (331, 4)) / 255,
    "probabilities": RNG.random((331, 4)),
    "counts": RNG.poisson(4, (331, 4)),
    "negative counts": RNG.poisson(4, (331, 4)) - 1,
    # What a few rows decide: the last is far from any sample's beginning.
    "bits but one": np.vstack([BITS[:-1], [[0, 1, 0, 0.5]]]),
    "bits but a gap": np.vstack([BITS[:-1], [[0, 1, 0, np.nan]]]),
    "bits but a three": np.vstack([BITS[:-1], [[0, 1, 0, 3.0]]]),
}


def in_both_ways(monkeypatch, path, reading=None) -> tuple[Dataset, Dataset]:
    whole = load_dataset(str(path), reading=reading)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "100")
    return whole, load_dataset(str(path), reading=reading)


def same(whole: Dataset, pieces: Dataset) -> None:
    assert isinstance(pieces.train, DiskRows)
    for name in ("likelihood", "scale", "binary", "image_shape", "files", "columns", "shuffled", "dim"):
        assert getattr(pieces, name) == getattr(whole, name), name
    for name in ("train", "valid", "test"):
        ours, theirs = pieces.split(name), whole.split(name)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(ours[:], theirs)
    made, wanted = likelihood_of(pieces), likelihood_of(whole)
    assert made.to_json() == wanted.to_json()
    np.testing.assert_array_equal(made.initial_bias(pieces.train.sample()), wanted.initial_bias(whole.train))
    assert pieces.description()[:-1] == whole.description()
    assert pieces.description()[-1] == f"{len(whole.train):,} training rows are read in pieces"


@pytest.fixture(params=[None, 1000], ids=["one piece", "many pieces"])
def piece(request, monkeypatch):
    """Pieces of 1,000 bytes too, for which the sample stays as it is."""
    if request.param is not None:
        at_once = property(lambda file: max(1, request.param // (file.width * file.header.dtype.itemsize)))
        monkeypatch.setattr("iwae.data.disk_rows.RowFile.at_once", at_once)


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_in_pieces_is_the_same_data(tmp_path, monkeypatch, name, piece):
    np.save(tmp_path / "d.npy", ARRAYS[name])
    same(*in_both_ways(monkeypatch, tmp_path / "d.npy"))


@pytest.mark.parametrize(
    "reading",
    [Reading(shuffled=False), Reading(split_seed=3), Reading("student-t"), Reading("0=poisson,3=categorical"),
     Reading(columns=("2", "0")), Reading(target=("1",))],
)  # fmt: skip
def test_however_it_is_to_be_read(tmp_path, monkeypatch, reading):
    np.save(tmp_path / "d.npy", ARRAYS["counts"])
    same(*in_both_ways(monkeypatch, tmp_path / "d.npy", reading))


def test_a_table_in_pieces_is_the_same_data(tmp_path, monkeypatch):
    monkeypatch.setattr("iwae.data.pieces.PIECE", 20_000)
    frame = polars.DataFrame(
        {
            "age": [None if gap else age for gap, age in zip(GAPS[:, 0], RNG.poisson(30, 331), strict=True)],
            "weight": RNG.normal(70, 9, 331),
            "sick": BITS[:, 0],
            "town": RNG.choice(["Bern", "Rome", "Oslo"], 331),
        }
    )
    frame.write_parquet(tmp_path / "d.parquet", row_group_size=50)
    same(*in_both_ways(monkeypatch, tmp_path / "d.parquet", Reading(target=("weight",))))


def test_levels_are_those_of_all_rows_of_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr("iwae.data.pieces.PIECE", 1000)
    towns = ["Bern", "Rome"] * 200 + ["Oslo"] + ["Rome"] * 3
    polars.DataFrame({"town": towns, "x": RNG.normal(size=404)}).write_parquet(tmp_path / "d.parquet")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "100")
    assert load_dataset(str(tmp_path / "d.parquet")).columns[0].levels == ("Bern", "Oslo", "Rome")


def test_a_large_table_is_learned_from_a_sample(tmp_path, monkeypatch):
    """Rows are permuted before they are split, and what is said of them is said of rows drawn at random."""
    np.save(tmp_path / "d.npy", np.sort(RNG.normal(5, 2, (4000, 2)), axis=0))
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "100")
    monkeypatch.setattr("iwae.data.disk_rows.PIECE", 8000)
    data = load_dataset(str(tmp_path / "d.npy"), reading=Reading(shuffled=False))
    assert data.train.sample().shape == (1000, 2)
    likelihood = likelihood_of(data)
    np.testing.assert_allclose(likelihood.shift, data.train[:].mean(axis=0), atol=0.3)
    assert data.description()[-1] == (
        "3,200 training rows are read in pieces; the above is of 1,000 of them, drawn at random"
    )


def refusal(path, monkeypatch, use=lambda data: data, reading=None):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "100")
    with pytest.raises(IWAEError) as raised:
        use(load_dataset(str(path), reading=reading))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_what_is_too_large_is_never_taken_whole(tmp_path, monkeypatch):
    np.save(tmp_path / "d.npy", ARRAYS["real"])
    assert "too many to be in memory at once" in refusal(tmp_path / "d.npy", monkeypatch, lambda d: np.asarray(d.train))


def test_a_file_that_shrinks_is_told(tmp_path, monkeypatch):
    np.save(tmp_path / "d.npy", ARRAYS["real"])

    def shrink(data):
        with (tmp_path / "d.npy").open("r+b") as file:
            file.truncate(2000)
        return data.train[200:]

    assert "d.npy has become shorter" in refusal(tmp_path / "d.npy", monkeypatch, shrink)


@pytest.mark.parametrize(
    ("array", "reading", "said"),
    [
        (np.asfortranarray(ARRAYS["real"]), None, "save it in C order"),
        (ARRAYS["counts"], Reading("poisson,row-total=exposure"), "needs all rows in memory"),
        (np.where(np.arange(1324).reshape(331, 4) == 1321, np.inf, ARRAYS["real"]), None, "infinite"),
        (ARRAYS["real"][:40].reshape(40, 2, 2, 1)[:9].repeat(2, axis=1), None, "too few"),
        (ARRAYS["real"], Reading("bernoulli"), "reach from"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, array, reading, said):
    np.save(tmp_path / "d.npy", array)
    assert said in refusal(tmp_path / "d.npy", monkeypatch, reading=reading)


def test_values_that_only_some_rows_have_are_checked_in_all(tmp_path, monkeypatch):
    values = np.vstack([ARRAYS["counts"], [[-1, 2, 3, 4]]])
    np.save(tmp_path / "d.npy", values)
    assert "no counts" in refusal(tmp_path / "d.npy", monkeypatch, likelihood_of, Reading("poisson"))


def test_a_number_of_bytes_is_asked_for(tmp_path, monkeypatch):
    np.save(tmp_path / "d.npy", ARRAYS["real"])
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "2GB")
    with pytest.raises(IWAEError, match="must be a number of bytes, got '2GB'"):
        load_dataset(str(tmp_path / "d.npy"))


def test_a_table_needs_room_for_its_rows(tmp_path, monkeypatch):
    polars.DataFrame({"x": RNG.normal(size=400)}).write_parquet(tmp_path / "d.parquet")

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert "No space left on device): make room there" in refusal(tmp_path / "d.parquet", monkeypatch)
