"""Counts and heavy tails against SciPy: densities, draws, biases, and what is refused."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import iwae
from iwae.errors import IWAEError
from iwae.models.likelihoods import LIKELIHOODS, likelihood_from_json
from iwae.models.likelihoods.gaussian import SMALLEST_SIGMA

UNITS = 4
KEY = jax.random.key(0)
RANDOM = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def poisson(outputs: np.ndarray, likelihood: Any) -> Any:
    return scipy.stats.poisson(np.exp(outputs))


def negative_binomial(outputs: np.ndarray, likelihood: Any) -> Any:
    mean, shape = np.split(np.exp(outputs), 2, axis=-1)
    return scipy.stats.nbinom(shape, shape / (shape + mean))


def student_t(outputs: np.ndarray, likelihood: Any) -> Any:
    location, raw, freedom = np.split(outputs, 3, axis=-1)
    shift, spread = np.array(likelihood.shift), np.array(likelihood.spread)
    degrees = 2.0 + np.log1p(np.exp(freedom + 4.0))
    return scipy.stats.t(degrees, shift + spread * location, spread * (SMALLEST_SIGMA + np.exp(raw)))


PEERS: dict[str, Callable[[np.ndarray, Any], Any]] = {
    "poisson": poisson,
    "negative-binomial": negative_binomial,
    "student-t": student_t,
}


def rows_of(name: str, rng: np.random.Generator, count: int = 30) -> np.ndarray:
    if name == "student-t":
        return (rng.standard_t(3, size=(count, UNITS)) * 10.0 ** rng.uniform(-2, 2, UNITS) + 5).astype(np.float32)
    return rng.negative_binomial(2, rng.uniform(0.05, 0.6, UNITS), size=(count, UNITS)).astype(np.float32)


def log_density(peer: Any, rows: np.ndarray) -> np.ndarray:
    return peer.logpdf(rows) if hasattr(peer.dist, "pdf") else peer.logpmf(rows)


@pytest.mark.parametrize("name", PEERS)
@settings(max_examples=15)
@given(RANDOM)
def test_densities_are_scipys_also_with_gaps(name: str, rng: np.random.Generator) -> None:
    rows = rows_of(name, rng)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    likelihood = LIKELIHOODS[name].of_data(rows)
    layer = iwae.VisibleLayer.create(3, [5], UNITS, jax.random.key(1), likelihood)
    layer = layer.with_bias(np.linspace(-1.0, 1.5, likelihood.outputs_per_unit * UNITS))
    latents = jnp.asarray(rng.normal(size=(len(rows), 3)), jnp.float32)
    outputs = np.asarray(layer.outputs(layer.network(latents)), np.float64)
    expected = np.nansum(log_density(PEERS[name](outputs, likelihood), rows), axis=-1)
    found = layer.log_prob(likelihood.prepare(jnp.asarray(rows), KEY), latents)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", PEERS)
def test_draws_are_quantiles(name: str) -> None:
    """A draw made from normal noise is the quantile of the noise's level, in float32's precision of a level."""
    rng = np.random.default_rng(0)
    likelihood = LIKELIHOODS[name].of_data(rows_of(name, rng))
    outputs = rng.normal(size=(1, likelihood.outputs_per_unit * UNITS))
    noise = rng.normal(size=(500, UNITS)).astype(np.float32)
    drawn = likelihood.distribution(jnp.asarray(outputs, jnp.float32)).sample(jnp.asarray(noise))
    found = np.asarray(likelihood.original(drawn), np.float64)
    peer = PEERS[name](outputs, likelihood)
    if name == "student-t":
        np.testing.assert_allclose(peer.cdf(found), scipy.stats.norm.cdf(noise), atol=2e-5)
    else:
        level = scipy.stats.norm.cdf(noise)
        assert np.mean((peer.cdf(found) >= level - 1e-6) & (peer.cdf(found - 1) <= level + 1e-6)) == 1.0
    mean = np.asarray(likelihood.original(likelihood.distribution(jnp.asarray(outputs, jnp.float32)).mean))
    np.testing.assert_allclose(mean, peer.mean(), rtol=1e-4)


@pytest.mark.parametrize("name", ["poisson", "negative-binomial"])
def test_the_first_bias_gives_the_training_moments(name: str) -> None:
    rows = rows_of(name, np.random.default_rng(1), 4000)
    likelihood = LIKELIHOODS[name].of_data(rows)
    bias = likelihood.initial_bias(rows)
    assert bias is not None
    peer = PEERS[name](bias[None], likelihood)
    np.testing.assert_allclose(peer.mean()[0], rows.mean(axis=0), rtol=1e-5)
    if name == "negative-binomial":
        np.testing.assert_allclose(peer.var()[0], rows.var(axis=0), rtol=1e-3)


@pytest.mark.parametrize("name", PEERS)
def test_a_model_learns_and_is_kept(name: str, tmp_path: Any) -> None:
    rng = np.random.default_rng(2)
    top = rng.normal(size=(300, 1))
    rows = np.exp(1.0 + top * rng.normal(size=UNITS))
    rows = rng.poisson(rows) if name != "student-t" else np.log(rows) + 0.1 * rng.standard_t(3, size=rows.shape)
    data = iwae.Dataset.from_arrays(rows[:250], rows[250:], likelihood=name)
    start = iwae.create_model(data, iwae.Architecture(None, (2,), ((16,),)))
    model = iwae.fit(start, data, iwae.make_estimator("iwae", k=5), epochs=25, learning_rate=5e-3, progress=False)
    before, after = (iwae.log_likelihood(each, data.test, num_samples=50) for each in (start, model))
    assert after.mean() > before.mean() + 0.5
    iwae.save(model, tmp_path / "m.safetensors")
    np.testing.assert_array_equal(iwae.log_likelihood(iwae.load(tmp_path / "m.safetensors"), data.test, 50), after)
    assert likelihood_from_json(model.likelihood.to_json()) == model.likelihood


@pytest.mark.parametrize("rows", [[[0.5, 1.0]], [[-1.0, 2.0]]])
def test_what_is_no_count_is_refused(rows: list[list[float]]) -> None:
    data = iwae.Dataset.from_arrays(np.array(rows), likelihood="poisson")
    with pytest.raises(IWAEError, match=r"has values that are no counts: the Poisson likelihood needs 0, 1, 2"):
        iwae.create_model(data)
