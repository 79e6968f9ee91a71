"""What own data are taken for: by type, by what is said, with names of columns in every refusal."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import iwae
from iwae.data import load_dataset
from iwae.data.columns import Reading, kind_of_array, kind_of_counts
from iwae.errors import IWAEError
from iwae.runs.config import RunConfig

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(40, 4)) * 50 + 100
GAPS = np.where(RNG.random(REAL.shape) < 0.2, np.nan, REAL)
COUNTS = RNG.negative_binomial(2, 0.2, (40, 4))


def saved(path: Path, array: np.ndarray) -> str:
    np.save(path, array)
    return str(path)


@pytest.mark.parametrize(
    ("array", "kind", "stored"),
    [
        (REAL, "gaussian", np.float32),
        (GAPS, "gaussian", np.float32),
        (np.asfortranarray(REAL), "gaussian", np.float32),
        (REAL.astype(">f8"), "gaussian", np.float32),
        (REAL.astype(np.float16), "gaussian", np.float32),
        (REAL.astype(np.int32), "gaussian", np.int32),
        (COUNTS.astype(">i8"), "negative-binomial", np.int64),
        (RNG.poisson(3.0, (400, 2)), "poisson", np.int64),
        (RNG.random((40, 4)) < 0.5, "bernoulli", np.uint8),
        (np.where(RNG.random((40, 4)) < 0.3, np.nan, 1.0), "bernoulli", np.float32),
        (RNG.random((40, 4)), "bernoulli", np.float32),
        (RNG.integers(0, 256, (40, 1, 2, 2)).astype(np.uint8), "bernoulli", np.uint8),
    ],
    ids=[
        "real",
        "gaps",
        "fortran",
        "big-endian",
        "half",
        "signed",
        "counts",
        "poisson",
        "bool",
        "bits-with-gaps",
        "probabilities",
        "channel-first",
    ],
)
def test_arrays_are_taken_for_what_their_type_says(array: np.ndarray, kind: str, stored: Any, tmp_path: Path) -> None:
    data = load_dataset(saved(tmp_path / "d.npy", array), reading=Reading(shuffled=False))
    assert (data.likelihood, data.train.dtype) == (kind, stored)
    assert data.train.dtype.isnative
    joined = np.concatenate([data.train, data.valid, data.test])
    np.testing.assert_allclose(joined * data.scale, array.reshape(len(array), -1) * data.scale, rtol=1e-3)
    (line, *rest) = data.description()
    assert line.endswith(f"-> {kind}")
    assert bool(rest) == (array is GAPS)
    model = iwae.create_model(data, iwae.Architecture(None, (2,), ((4,),)))
    assert np.isfinite(iwae.log_likelihood(model, data.test, num_samples=3)).all()


@pytest.mark.parametrize("name", ["gaussian", "student-t", "negative-binomial", "0=categorical,1=poisson,gaussian"])
def test_what_is_said_comes_before_types(name: str, tmp_path: Path) -> None:
    data = load_dataset(saved(tmp_path / "d.npy", COUNTS), reading=Reading(name))
    model = iwae.create_model(data, iwae.Architecture(None, (2,), ((4,),)))
    assert model.likelihood.name == (name if "=" not in name else "mixed")
    if "=" in name:
        assert data.likelihood == ("categorical", "poisson", "gaussian", "gaussian")
        assert data.description()[1].startswith("1: integer -> poisson")


def test_columns_of_an_array_go_by_their_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path / "d.npy", REAL)
    swapped = load_dataset(path, reading=Reading(columns=("2", "0"), shuffled=False))
    np.testing.assert_array_equal(swapped.train, REAL[:32, [2, 0]].astype(np.float32))
    assert load_dataset(path, reading=Reading(target=("1",))).dim == 3
    for reading, words in (
        (Reading(columns=("4",)), "`columns`: there is no column '4', the columns are 0, 1, 2, 3"),
        (Reading(target=("0", "1", "2", "3")), "no column is left of 0, 1, 2, 3"),
        (Reading("9=poisson"), "`likelihood`: there is no column '9'"),
    ):
        with pytest.raises(IWAEError, match=words):
            load_dataset(path, reading=reading)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 1, 1, 0], "bernoulli"),
        ([np.nan, 1.0, 0.0], "bernoulli"),
        ([-1, 3, 4], "gaussian"),
        ([1990, 2001, 2010, 2020], "gaussian"),
        ([0, 0, 2, 30, 5], "negative-binomial"),
        ([1, 2, 3, 2, 3, 5, 4, 1], "poisson"),
        ([3_000_000, 10, 20], "gaussian"),
    ],
)
def test_whole_numbers_are_counts_where_they_vary_like_some(values: list[float], kind: str) -> None:
    assert kind_of_counts(np.array(values)) == kind


def test_an_array_is_of_one_kind_that_its_columns_have_together() -> None:
    """One column of few rows that happens to vary more makes no negative binomial of all."""
    rows = np.random.default_rng(1).poisson(2.0, (20, 200))
    assert "negative-binomial" in {kind_of_counts(column) for column in rows.T}
    assert kind_of_array(rows) == "poisson"


def test_a_configuration_says_how_data_is_read_only_where_that_was_said() -> None:
    usual = RunConfig(dataset="d.npy")
    assert not {"likelihood", "columns", "target", "mask", "missing"} & usual.to_json().keys()
    assert usual.name() == "d-vae-k1-1layer-seed0"
    said = RunConfig(dataset="d.npy", likelihood="gaussian", target=("y",), mask="concatenate", missing="self-masking")
    assert said.name() == "d-gaussian-no-y-vae-k1-1layer-concatenate-self-masking-seed0"
    assert RunConfig.from_json(said.to_json()) == said
    assert RunConfig.from_json(usual.to_json()) == usual
    assert said.differences(usual)[0] == "likelihood: gaussian, there auto"
    assert len(usual.differences(said)) == len(said.differences(usual)) == 4
    assert usual.kept_apart(said)
    strange = [RunConfig(dataset="d.csv", likelihood=f"a b={kind}").name() for kind in ("poisson", "gaussian")]
    assert len(set(strange)) == 2
    assert all(name.startswith("d-read-") for name in strange)
    architecture = said.architecture(3)
    assert (architecture.mask, architecture.missing) == ("concatenate", "self-masking")


def test_columns_that_never_change_and_rows_without_values_are_told() -> None:
    rows = np.array([[7.0, 1.0], [7.0, np.nan], [np.nan, np.nan]])
    data = iwae.Dataset.from_arrays(rows, likelihood="0=gaussian,1=student-t")
    assert data.description() == [
        "0: real -> gaussian, 1 of 3 missing, never changes: its density says nothing",
        "1: real -> student-t, 2 of 3 missing, never changes: its density says nothing",
        "1 rows have no value at all: their log density is 0",
    ]
