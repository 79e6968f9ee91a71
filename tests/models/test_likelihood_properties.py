"""Likelihoods against SciPy in the units of the rows, with missing values, and as records."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import iwae
from iwae.models.likelihoods import likelihood_from_json
from iwae.models.likelihoods.gaussian import SMALLEST_SIGMA

KEY = jax.random.key(0)
UNITS = 4
TRAIN_SETS = st.integers(0, 2**32 - 1).map(np.random.default_rng)
"""Generators: what a property draws from one is a function of its seed."""


def layer_of(likelihood: iwae.Likelihood) -> iwae.VisibleLayer:
    """A visible layer of `UNITS` units on three latents, whose biases are no zeros."""
    layer = iwae.VisibleLayer.create(3, [5], UNITS, jax.random.key(1), likelihood)
    return layer.with_bias(np.linspace(-0.8, 0.9, likelihood.outputs_per_unit * UNITS))


def real_rows(rng: np.random.Generator, count: int = 20) -> np.ndarray:
    """Rows whose dimensions have other places and spreads."""
    spread = 10.0 ** rng.uniform(-2, 2, UNITS)
    return (rng.normal(size=(count, UNITS)) * spread + rng.normal(size=UNITS) * 5 * spread).astype(np.float32)


def gaussian_density(layer: iwae.VisibleLayer, rows: np.ndarray, latents: jax.Array) -> np.ndarray:
    """log N of every unit of the rows in their own units, in float64, from the network's outputs."""
    likelihood = layer.likelihood
    assert isinstance(likelihood, iwae.GaussianLikelihood)
    mean, raw = np.split(np.asarray(layer.outputs(layer.network(latents)), np.float64), 2, axis=-1)
    shift, spread = np.array(likelihood.shift), np.array(likelihood.spread)
    return scipy.stats.norm.logpdf(rows, shift + spread * mean, spread * (SMALLEST_SIGMA + np.exp(raw)))


@settings(max_examples=30)
@given(TRAIN_SETS)
def test_gaussian_densities_are_scipys_in_the_units_of_the_rows(rng: np.random.Generator) -> None:
    rows = real_rows(rng)
    layer = layer_of(iwae.GaussianLikelihood.of_data(rows))
    latents = jnp.asarray(rng.normal(size=(len(rows), 3)), jnp.float32)
    found = layer.log_prob(layer.likelihood.prepare(jnp.asarray(rows), KEY), latents)
    np.testing.assert_allclose(found, gaussian_density(layer, rows, latents).sum(axis=-1), rtol=1e-3, atol=1e-3)


@settings(max_examples=30)
@given(TRAIN_SETS)
def test_gaussian_densities_with_gaps_are_marginals(rng: np.random.Generator) -> None:
    rows = real_rows(rng)
    missing = rng.random(rows.shape) < 0.4
    missing[0], missing[1] = True, False
    gaps = np.where(missing, np.nan, rows).astype(np.float32)
    layer = layer_of(iwae.GaussianLikelihood.of_data(gaps))
    assert layer.likelihood.missing
    latents = jnp.asarray(rng.normal(size=(len(rows), 3)), jnp.float32)
    found = layer.log_prob(layer.likelihood.prepare(jnp.asarray(gaps), KEY), latents)
    expected = np.where(missing, 0.0, gaussian_density(layer, rows, latents)).sum(axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    # Of a row of which nothing was seen, nothing is known.
    assert found[0] == 0.0


@settings(max_examples=30)
@given(TRAIN_SETS, st.booleans())
def test_bernoulli_log_probabilities_are_scipys(rng: np.random.Generator, has_gaps: bool) -> None:
    bits = (rng.random((20, UNITS)) < 0.5).astype(np.float32)
    missing = (rng.random(bits.shape) < 0.4) & has_gaps
    layer = layer_of(iwae.BernoulliLikelihood(resample=False, missing=has_gaps))
    latents = jnp.asarray(rng.normal(size=(20, 3)), jnp.float32)
    found = layer.log_prob(jnp.asarray(np.where(missing, np.nan, bits), jnp.float32), latents)
    logits = np.asarray(layer.outputs(layer.network(latents)), np.float64)
    terms = scipy.stats.bernoulli.logpmf(bits.astype(int), 1 / (1 + np.exp(-logits)))
    np.testing.assert_allclose(found, np.where(missing, 0.0, terms).sum(axis=-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("has_gaps", [False, True])
def test_gradients_are_those_of_what_was_seen(name: str, has_gaps: bool) -> None:
    """Finite, and the same whatever would stand in the gaps: here as many models of the units that are left."""
    rng = np.random.default_rng(3)
    rows = (rng.random((6, UNITS)) < 0.5).astype(np.float32) if name == "bernoulli" else real_rows(rng, 6)
    observed = np.ones(UNITS, bool)
    observed[[1, 2]] = not has_gaps
    gaps = np.where(observed, rows, np.nan).astype(np.float32)
    if name == "bernoulli":
        likelihood = iwae.BernoulliLikelihood(resample=False, missing=has_gaps)
    else:
        full = iwae.GaussianLikelihood.of_data(rows)
        likelihood = iwae.GaussianLikelihood(full.shift, full.spread, missing=has_gaps)
    layer = layer_of(likelihood)
    x = likelihood.prepare(jnp.asarray(gaps), KEY)
    latents = jnp.asarray(rng.normal(size=(2, 6, 3)), jnp.float32)
    to_layer, to_latents = eqx.filter_grad(lambda both: jnp.sum(both[0].log_prob(x, both[1])))((layer, latents))
    for leaf in jax.tree.leaves(eqx.filter(to_layer, eqx.is_inexact_array)):
        assert np.isfinite(leaf).all()
    assert np.isfinite(to_latents).all()

    def of_observed(both: tuple[iwae.VisibleLayer, jax.Array]) -> jax.Array:
        outputs = both[0].outputs(both[0].network(both[1]))
        distribution = likelihood.distribution(outputs)
        value = likelihood.prepare(jnp.asarray(rows), KEY)
        return jnp.sum(distribution.log_prob(value, jnp.asarray(observed)))

    wanted_layer, wanted_latents = eqx.filter_grad(of_observed)((layer, latents))
    np.testing.assert_allclose(to_latents, wanted_latents, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(to_layer.outputs.weight, wanted_layer.outputs.weight, rtol=1e-3, atol=1e-4)
    unseen = np.tile(~observed, likelihood.outputs_per_unit)
    assert not np.asarray(to_layer.outputs.bias)[unseen].any()


@settings(max_examples=30)
@given(TRAIN_SETS, st.booleans())
def test_original_is_the_inverse_of_prepare(rng: np.random.Generator, has_gaps: bool) -> None:
    rows = real_rows(rng)
    if has_gaps:
        rows[rng.random(rows.shape) < 0.3] = np.nan
    likelihood = iwae.GaussianLikelihood.of_data(rows)
    values = likelihood.prepare(jnp.asarray(rows), KEY)
    np.testing.assert_allclose(likelihood.original(values), rows, rtol=1e-4, atol=1e-5 * np.nanmax(np.abs(rows)))
    seen = ~np.isnan(rows)
    mean = np.where(seen, values, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    np.testing.assert_allclose(mean, 0.0, atol=1e-3)


def test_a_gaussian_dimension_that_never_changes_or_was_never_seen_is_left_as_it_is() -> None:
    rows = np.array([[7.0, np.nan, 1.0], [7.0, np.nan, 3.0]], np.float32)
    likelihood = iwae.GaussianLikelihood.of_data(rows)
    assert likelihood.shift == (7.0, 0.0, 2.0)
    assert likelihood.spread == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("stored", ["uint8", "float", "bits", "gaps"])
def test_a_bernoulli_model_begins_at_the_mean_of_the_data(stored: str) -> None:
    rng = np.random.default_rng(0)
    share = np.array([0.0, 0.2, 0.7, 1.0])
    bits = (rng.random((200, UNITS)) < share).astype(np.float64)
    rows = {
        "uint8": np.round(255 * share * np.ones((50, UNITS))).astype(np.uint8),
        "float": share * np.ones((50, UNITS)),
        "bits": bits.astype(bool),
        "gaps": np.where(rng.random(bits.shape) < 0.3, np.nan, bits),
    }[stored]
    scale = {"uint8": 1 / 255}.get(stored, 1.0)
    likelihood = iwae.BernoulliLikelihood.of_data(rows, scale=scale, binary=stored in ("bits", "gaps"))
    bias = likelihood.initial_bias(rows)
    mean = np.clip(np.nanmean(rows, axis=0) * scale, 0.001, 0.999)
    np.testing.assert_allclose(1 / (1 + np.exp(-bias.astype(np.float64))), mean, rtol=1e-4)


def test_a_gaussian_model_begins_at_zero_of_standardized_values() -> None:
    assert iwae.GaussianLikelihood.of_data(real_rows(np.random.default_rng(0))).initial_bias(np.zeros((2, 4))) is None


@pytest.mark.parametrize(
    "likelihood",
    [
        iwae.BernoulliLikelihood(),
        iwae.BernoulliLikelihood(1 / 255, True, missing=False),
        iwae.BernoulliLikelihood(1.0, False, missing=True),
        iwae.GaussianLikelihood(),
        iwae.GaussianLikelihood((1.5, -2.0), (0.1, 3.0), missing=True),
    ],
)
def test_a_likelihood_comes_back_from_its_record(likelihood: iwae.Likelihood) -> None:
    record = likelihood.to_json()
    found = likelihood_from_json(record)
    assert type(found) is type(likelihood)
    assert found.to_json() == record
    assert jax.tree.structure(found) == jax.tree.structure(likelihood)


@pytest.mark.parametrize("record", [{}, {"name": "gamma"}, {"name": "gaussian", "width": 3}, {"name": ["x"] * 99}])
def test_another_record_is_refused_in_one_line(record: dict[str, object]) -> None:
    with pytest.raises(iwae.IWAEError) as raised:
        likelihood_from_json(record)
    assert "\n" not in str(raised.value)
