"""Datasets of arrays in memory: shapes, types, refusals, and that what is measured does not depend on how they come."""

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

import iwae
from helpers.small_runs import environment

RNG = np.random.default_rng(0)
BITS = (RNG.random((40, 2, 3)) < 0.4).astype(np.uint8)
ARCHITECTURE = iwae.Architecture(6, latent=(2,), hidden=((5,),))


@pytest.mark.parametrize(
    ("array", "image_shape"),
    [
        (BITS.reshape(40, 6), None),
        (BITS, (2, 3)),
        (BITS[..., None], (2, 3)),
        (BITS.astype(bool), (2, 3)),
        (BITS.astype(np.float64), (2, 3)),
        (BITS.astype(np.int64), (2, 3)),
        (np.asfortranarray(BITS), (2, 3)),
        (BITS.tolist(), (2, 3)),
    ],
    ids=["vectors", "images", "one channel", "bool", "float", "integers", "Fortran order", "lists"],
)
def test_bits_of_any_shape_and_type_are_stored_alike(array: Any, image_shape: tuple[int, int] | None) -> None:
    data = iwae.Dataset.from_arrays(array, array[:5])
    np.testing.assert_array_equal(data.train, BITS.reshape(40, 6))
    assert (data.dim, data.image_shape, data.binary, data.scale) == (6, image_shape, True, 1.0)
    assert data.train.dtype == np.uint8
    assert (len(data.test), len(data.valid)) == (5, 0)
    assert data.mark == "own"


def test_grey_values_are_probabilities() -> None:
    grey = RNG.integers(0, 256, size=(30, 6)).astype(np.uint8)
    data = iwae.Dataset.from_arrays(grey)
    assert (data.binary, data.scale, data.train.dtype) == (False, 1 / 255, np.uint8)
    probabilities = iwae.Dataset.from_arrays(RNG.random((30, 6)))
    assert (probabilities.binary, probabilities.scale, probabilities.train.dtype) == (False, 1.0, np.float32)


def test_real_numbers_with_gaps_are_for_the_gaussian() -> None:
    rows = RNG.normal(size=(30, 6)) * 50 + 300
    rows[3, 2] = np.nan
    data = iwae.Dataset.from_arrays(rows, likelihood="gaussian")
    np.testing.assert_array_equal(data.train, rows.astype(np.float32))
    model = iwae.create_model(data, ARCHITECTURE)
    assert model.likelihood.missing
    assert np.isfinite(iwae.log_likelihood(model, rows, num_samples=5)).all()


@pytest.mark.parametrize("has_gaps", [False, True])
def test_an_infinite_number_is_not_a_missing_one(has_gaps: bool) -> None:
    rows = RNG.normal(size=(30, 6))
    rows[0, 0] = np.nan if has_gaps else 0.0
    model = iwae.create_model(iwae.Dataset.from_arrays(rows, likelihood="gaussian"), ARCHITECTURE)
    rows[3, 2] = np.inf
    with pytest.raises(iwae.IWAEError, match="NaN or infinite"):
        iwae.log_likelihood(model, rows, num_samples=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(iwae.IWAEError, match="column '2' has an infinite value"):
            iwae.create_model(iwae.Dataset.from_arrays(rows, likelihood="gaussian"), ARCHITECTURE)


@pytest.mark.parametrize(
    ("arrays", "options", "words"),
    [
        ((RNG.random((9, 6)) * 255,), {}, r"reach from .* to .*numbers in \[0, 1\].*'gaussian'"),
        ((RNG.random((9, 6)) * 2 - 1,), {}, r"reach from -.*'gaussian'"),
        ((np.where(BITS == 1, np.inf, 0.0),), {}, "contains infinite"),
        ((np.full((9, 6), "a"),), {}, "real numbers"),
        ((np.zeros(9),), {}, r"`train` has shape \(9,\), expected .* or \[n, dim\]"),
        ((np.zeros((9, 2, 3, 4)),), {}, r"`train` has shape \(9, 2, 3, 4\)"),
        ((BITS, BITS[:, :1]), {}, "examples of `train` have shape .*, those of `test`"),
        ((np.zeros((0, 6)),), {}, "`train` has no rows"),
    ],
    ids=["0 to 255", "-1 to 1", "NaN", "strings", "1-d", "four channels", "widths", "empty"],
)
def test_other_arrays_are_refused_in_one_line(arrays: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(iwae.IWAEError, match=words) as raised:
        iwae.Dataset.from_arrays(*arrays, **options)
    assert "\n" not in str(raised.value)


def test_strings_and_unknown_likelihoods_are_refused_before_training() -> None:
    for array, likelihood in ((np.full((9, 6), "a"), "gaussian"), (BITS, "gamma")):
        with pytest.raises(iwae.IWAEError) as raised:
            iwae.create_model(iwae.Dataset.from_arrays(array, likelihood=likelihood), ARCHITECTURE)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["bits", "grey", "gaussian"])
def test_a_likelihood_does_not_depend_on_the_shape_of_the_examples(kind: str) -> None:
    """The same for vectors, images, images of one channel, Fortran order, and for a dataset's test rows."""
    images = {
        "bits": BITS,
        "grey": RNG.integers(0, 256, size=(40, 2, 3)).astype(np.uint8),
        "gaussian": RNG.normal(size=(40, 2, 3)).astype(np.float32),
    }[kind]
    likelihood = "gaussian" if kind == "gaussian" else None
    data = iwae.Dataset.from_arrays(images, images[:10], likelihood=likelihood)
    model = iwae.create_model(data, ARCHITECTURE)
    expected = iwae.likelihoods(model, data, num_samples=20).log_likelihood
    assert expected.shape == (10,)
    assert len(set(expected.tolist())) > 3
    test = images[:10]
    for array in (test, test.reshape(10, 6), test[..., None], np.asfortranarray(test), data.test):
        np.testing.assert_array_equal(iwae.log_likelihood(model, array, num_samples=20), expected)


UNCHECKED = """
import jax, numpy as np, iwae
grey = np.random.default_rng(0).integers(0, 256, size=(40, 6)).astype(np.uint8)
three = np.int64(3)
model = iwae.create_model(grey, iwae.Architecture(np.int32(6), latent=(three,), hidden=((three,),)))
model = iwae.fit(model, grey, iwae.make_estimator("iwae", k=three), epochs=np.int64(1), batch_size=np.int64(8))
found = iwae.log_likelihood(model, grey, num_samples=np.int64(20))
assert (found == iwae.log_likelihood(model, grey, num_samples=20)).all()
assert iwae.reconstruct(model, grey, num_samples=np.int64(20)).shape == (40, 6)
assert iwae.encode(model, grey, layer=np.int64(1)).shape == (40, 3)
prepared = model.prepare(jax.numpy.asarray(grey), jax.random.key(1))
assert model.log_weights(prepared, jax.random.key(0), 3).shape == (3, 40)
try:
    model.log_weights(jax.numpy.asarray(grey), jax.random.key(0), 3)
except iwae.IWAEError as error:
    print(error)
"""
"""In a process of its own: the tests' checks of types take no NumPy integers, and come before the words."""


def test_numpys_integers_are_integers_and_rows_that_were_not_prepared_are_refused_in_words() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNCHECKED], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "`x` must be prepared rows of floating point numbers, got uint8: call model.prepare(rows, key)\n"
    )
