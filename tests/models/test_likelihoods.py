"""Kinds of visible data: densities against SciPy in the units of the rows, missing values, and what is refused."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import iwae
from iwae.errors import IWAEError
from iwae.models.likelihoods import LIKELIHOODS, VisibleLayer, likelihood_from_json, likelihood_of
from iwae.models.networks.base import Linear
from iwae.models.networks.tanh import TanhNetwork

KEY = jax.random.key(0)
SMALL = iwae.Architecture(None, (2,), ((4,),))


def layer(likelihood: iwae.Likelihood, outputs: np.ndarray) -> VisibleLayer:
    """A visible layer whose outputs are these, whatever it is given."""
    weight = jnp.zeros((1, outputs.shape[-1]))
    return VisibleLayer(TanhNetwork(()), Linear(weight, jnp.asarray(outputs, jnp.float32)), likelihood)


def gaussian(rows: np.ndarray, seed: int) -> tuple[VisibleLayer, np.ndarray, np.ndarray]:
    """A Gaussian layer for rows, and its means and standard deviations in their units, by its definition."""
    made = iwae.GaussianLikelihood.of_data(rows)
    outputs = np.random.default_rng(seed).normal(size=2 * rows.shape[1])
    mean, raw = np.split(outputs, 2)
    shift, spread = np.asarray(made.shift), np.asarray(made.spread)
    return layer(made, outputs), shift + spread * mean, spread * (1e-3 + np.exp(raw))


@given(st.integers(0, 2**31), st.floats(0.01, 1e3), st.floats(-1e3, 1e3))
def test_gaussian_densities_are_those_of_the_rows_in_their_own_units(seed, scale, offset):
    rows = np.random.default_rng(seed).normal(size=(20, 3)) * scale * np.array([1.0, 5.0, 0.2]) + offset
    visible, mean, sigma = gaussian(rows, seed)
    x = visible.likelihood.prepare(jnp.asarray(rows, jnp.float32), KEY)
    actual = visible.log_prob(x, jnp.zeros((20, 1)))
    expected = stats.norm.logpdf(rows.astype(np.float32), mean, sigma).sum(axis=1)
    # Standardizing in float32 loses digits where the offset is large beside the spread.
    slack = 1e-3 * (1 + abs(offset) / scale) * (1 + np.abs(expected))
    assert np.all(np.abs(actual - expected) < slack)
    back = np.asarray(visible.likelihood.original(x))
    np.testing.assert_allclose(back, rows, rtol=1e-4, atol=1e-4 * (scale + abs(offset)))


def test_what_is_missing_is_not_scored_and_sends_no_gradient():
    rows = np.random.default_rng(0).normal(size=(30, 4)) * 3 + 7
    rows[::2, 1] = rows[::3, 3] = np.nan
    visible, mean, sigma = gaussian(rows, 1)
    assert visible.likelihood.missing
    x = visible.likelihood.prepare(jnp.asarray(rows, jnp.float32), KEY)
    expected = np.nansum(stats.norm.logpdf(rows, mean, sigma), axis=1)
    np.testing.assert_allclose(visible.log_prob(x, jnp.zeros((30, 1))), expected, rtol=1e-3, atol=1e-3)
    gradient = eqx.filter_grad(lambda v: jnp.sum(v.log_prob(x[:1], jnp.zeros((1, 1)))))(visible).outputs.bias
    assert np.all(np.isfinite(gradient))
    assert gradient[1] == gradient[5] == 0.0


@pytest.mark.parametrize("rows_of", ["k batch", "batch"])
def test_bernoulli_probabilities_and_gradients_with_missing_bits_are_those_of_the_others(rows_of):
    rng = np.random.default_rng(0)
    bits = (rng.random((5, 6)) < 0.5).astype(np.float32)
    bits[0, 2] = bits[3, :] = np.nan
    logits = rng.normal(size=6)
    given = jnp.zeros((3, 5, 1) if rows_of == "k batch" else (5, 1))
    visible = layer(iwae.BernoulliLikelihood(missing=True), logits)
    terms = stats.bernoulli.logpmf(np.nan_to_num(bits).astype(int), 1 / (1 + np.exp(-logits)))
    expected = np.where(np.isnan(bits), 0.0, terms).sum(axis=1)
    actual = visible.log_prob(jnp.asarray(bits), given)
    np.testing.assert_allclose(actual, np.broadcast_to(expected, actual.shape), rtol=1e-5, atol=1e-6)
    gradient = eqx.filter_grad(lambda v: jnp.sum(v.log_prob(jnp.asarray(bits), given)))(visible).outputs.bias
    residuals = np.where(np.isnan(bits), 0.0, np.nan_to_num(bits) - 1 / (1 + np.exp(-logits))).sum(axis=0)
    np.testing.assert_allclose(gradient, residuals * (3 if rows_of == "k batch" else 1), rtol=1e-4, atol=1e-5)


def test_grey_values_are_probabilities_drawn_anew_and_bits_are_left_alone():
    values = jnp.tile(jnp.array([[0, 51, 128, 255]], jnp.uint8), (4000, 1))
    likelihood = iwae.BernoulliLikelihood(1 / 255)
    one, other = (np.asarray(likelihood.prepare(values, key)) for key in jax.random.split(KEY))
    assert set(np.unique(one)) == {0.0, 1.0}
    assert np.any(one != other)
    np.testing.assert_allclose(one.mean(axis=0), [0.0, 0.2, 128 / 255, 1.0], atol=0.04)
    fixed = iwae.BernoulliLikelihood(resample=False)
    np.testing.assert_array_equal(fixed.prepare(jnp.array([[0, 1]], jnp.uint8), KEY), [[0.0, 1.0]])


# The others are trained beside their peers in test_likelihood_kinds.py, and with their exposure.
@pytest.mark.parametrize("name", ["bernoulli", "gaussian", "mixed"])
def test_a_model_trains_is_measured_saved_and_loaded(name, tmp_path):
    rng = np.random.default_rng(0)
    rows = (rng.integers(0, 4, size=(60, 5)) if name == "mixed" else rng.random((60, 5))).astype(np.float32)
    rows[0] = 3.0 if name == "mixed" else rows[0]
    rows[3, 2] = 0.5 if name == "bernoulli" else np.nan
    kinds = [kind for kind in LIKELIHOODS if kind not in ("bernoulli", "continuous-bernoulli", "mixed")][:5]
    data = iwae.Dataset.from_arrays(rows[:40], rows[40:], likelihood=kinds if name == "mixed" else name)
    model = iwae.create_model(data, SMALL)
    bounds: list[float] = []
    model = iwae.fit(model, data, iwae.make_estimator("iwae:dreg", k=3), epochs=8, learning_rate=1e-2, seed=1)
    iwae.fit(model, data, iwae.make_estimator("elbo"), epochs=1, callback=lambda p: bounds.append(p.bound))
    assert np.isfinite(bounds).all()
    iwae.save(model, tmp_path / "model.safetensors")
    again = iwae.load(tmp_path / "model.safetensors")
    assert again.likelihood == model.likelihood
    values = iwae.log_likelihood(model, data.test, num_samples=20)
    np.testing.assert_array_equal(iwae.log_likelihood(again, data.test, num_samples=20), values)
    assert iwae.reconstruct(model, data.test, num_samples=20).shape == (20, 5)
    assert likelihood_from_json(model.likelihood.to_json()) == model.likelihood


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x.reshape(-1, 3, 4),
        lambda x: x.reshape(-1, 3, 4, 1),
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(">f4"),
        lambda x: x > 0.5,
    ],
    ids=["vectors", "images", "channel", "fortran", "big-endian", "bool"],
)
def test_arrays_of_every_layout_are_rows(change):
    rows = np.round(np.random.default_rng(0).random((20, 12)) * 255).astype(np.float32) / 255
    data = iwae.Dataset.from_arrays(change(rows))
    assert data.dim == 12
    assert len(data.test) == 0
    np.testing.assert_allclose(data.train * data.scale, change(rows).reshape(20, 12), atol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"train": np.linspace(0, 255, 40).reshape(4, 10)}, "reach from 0.0 to 255.0"),
        ({"train": np.linspace(-1, 1, 40).reshape(4, 10)}, "another `likelihood`, such as 'gaussian'"),
        ({"train": np.full((4, 3), np.nan)}, "column .0. has no value in the training rows"),
        ({"train": np.array([["a"], ["b"]])}, "expected real numbers"),
        ({"train": np.zeros(5)}, r"`train` has shape \(5,\)"),
        ({"train": np.zeros((0, 5))}, "`train` has no rows"),
        ({"train": np.zeros((4, 5)), "test": np.zeros((4, 6))}, "the examples of `train` have shape"),
    ],
)
def test_arrays_without_meaning_are_refused(arrays: dict[str, Any], problem: str):
    with pytest.raises(IWAEError, match=problem):
        iwae.Dataset.from_arrays(**arrays)


def test_rows_that_the_model_can_not_score_are_refused():
    model = iwae.create_model(np.eye(4, dtype=np.uint8), SMALL)
    with pytest.raises(IWAEError, match="zeros and ones"):
        iwae.log_likelihood(model, np.full((2, 4), 0.5))
    with pytest.raises(IWAEError, match="5 dimensions, but the model was built for 4"):
        iwae.log_likelihood(model, np.zeros((2, 5)))
    grey = iwae.create_model(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4), SMALL)
    with pytest.raises(IWAEError, match="reach from 0 to 7"):
        iwae.log_likelihood(grey, np.full((2, 4), 7.0) * np.eye(4)[:2])
    unknown = iwae.Dataset.from_arrays(np.zeros((3, 2)), likelihood="cauchy")
    with pytest.raises(IWAEError, match="`likelihood` must be one of bernoulli, gaussian"):
        likelihood_of(unknown)
