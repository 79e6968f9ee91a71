"""What the encoder sees of missing values, and models of how values go missing."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

import iwae
from iwae.errors import IWAEError
from iwae.models.architecture import Architecture
from iwae.models.distributions import Normal
from iwae.models.missing import SelfMasking
from iwae.models.vae import HierarchicalVAE

MASKED = Architecture(4, (2,), ((6,),), mask="concatenate", missing="self-masking")


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def gappy(rows: int = 200, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 1)) + 0.5 * rng.normal(size=(rows, 4))
    values[rng.random(values.shape) < 0.3] = np.nan
    return values.astype(np.float32)


@pytest.mark.parametrize("slope", [-3.0, 0.0, 0.7, 2.0])
def test_the_probability_of_a_gap_is_the_integral_over_what_is_missing(slope):
    given = Normal(jnp.array([[0.3, -1.0]]), jnp.log(jnp.array([[0.8, 0.4]])))
    process = SelfMasking(jnp.array([slope, slope]), jnp.array([0.2, -0.5]))
    x = jnp.array([[jnp.nan, 0.7]])
    norm = stats.norm(0.3, 0.8)
    missing, _ = integrate.quad(lambda v: norm.pdf(v) * sigmoid(slope * v + 0.2), -9, 9)
    expected = np.log(missing) + np.log(1 - sigmoid(slope * 0.7 - 0.5))
    np.testing.assert_allclose(process.log_prob(x, given), [expected], rtol=1e-3)
    mean, _ = integrate.quad(lambda v: v * norm.pdf(v) * sigmoid(slope * v + 0.2) / missing, -9, 9)
    np.testing.assert_allclose(process.mean(given)[0, 0], mean, rtol=2e-3)
    keys = jax.random.split(jax.random.key(0))
    noise = jax.random.normal(keys[0], (200, 4000, 1, 2))
    drawn = np.asarray(process.sample(given, noise, jax.random.uniform(keys[1], (4000, 1, 2))))[:, 0, 0]
    assert abs(drawn.mean() - mean) < 5 * drawn.std() / np.sqrt(4000)


def test_without_a_slope_gaps_say_nothing():
    model = HierarchicalVAE.create(MASKED, jax.random.key(0), iwae.GaussianLikelihood(missing=True))
    plain = eqx.tree_at(lambda m: m.missing, model, None)
    x = jnp.asarray(gappy(20))
    there, without = (m.log_weights(x, jax.random.key(1), 3) for m in (model, plain))
    np.testing.assert_allclose(there - without, np.full((3, 20), 4 * np.log(0.5)), rtol=1e-5)
    gaps = gappy(20)
    np.testing.assert_allclose(
        iwae.impute(model, gaps, num_samples=100), iwae.impute(plain, gaps, num_samples=100), atol=1e-4
    )


def test_the_encoder_is_given_the_mask_after_the_values():
    model = HierarchicalVAE.create(MASKED, jax.random.key(0), iwae.GaussianLikelihood(missing=True))
    seen = model.encoder_input(jnp.array([[1.0, jnp.nan, 3.0, jnp.nan]]))
    np.testing.assert_array_equal(seen, [[1, 0, 3, 0, 1, 0, 1, 0]])
    zeros = HierarchicalVAE.create(Architecture(4, (2,), ((6,),)), jax.random.key(0), model.likelihood)
    np.testing.assert_array_equal(zeros.encoder_input(jnp.array([[1.0, jnp.nan, 3.0, 2.0]])), [[1, 0, 3, 2]])
    network = eqx.nn.MLP(8, 5, 7, 1, key=jax.random.key(0))
    own = HierarchicalVAE.from_networks(
        [network], [eqx.nn.MLP(2, 5, 7, 1, key=jax.random.key(1))], (2,), 4, jax.random.key(2), mask="concatenate"
    )
    assert own.encoder_input(jnp.ones((1, 4))).shape == (1, 8)


@pytest.mark.parametrize("word", ["iwae", "iwae:dreg", "iwae:stl", "vimco", "rws", "elbo", "piwae:m=2"])
def test_every_kind_of_estimator_trains_with_gaps_and_a_model_of_them(word, tmp_path):
    data = iwae.Dataset.from_arrays(gappy(), gappy(20, seed=1), likelihood="gaussian")
    start = iwae.create_model(data, MASKED)
    model = iwae.fit(start, data, iwae.make_estimator(word, k=4), epochs=12, learning_rate=1e-2)
    assert model.missing is not None
    assert np.any(np.asarray(model.missing.slope) != 0)
    before, after = (iwae.likelihoods(m, data, num_samples=50).nll for m in (start, model))
    assert after < before
    if word == "iwae":
        iwae.save(model, tmp_path / "model.safetensors")
        again = iwae.load(tmp_path / "model.safetensors")
        assert eqx.tree_equal(model, again)


def test_options_are_recorded_only_where_they_are_not_the_default():
    assert not {"mask", "missing"} & Architecture.paper(1, 784).to_json().keys()
    assert Architecture.from_json(MASKED.to_json()) == MASKED
    for name in ("mask", "missing"):
        wrong: Any = {name: "no"}
        with pytest.raises(IWAEError, match=f"`{name}` must be"):
            Architecture(4, (2,), ((6,),), **wrong)


@pytest.mark.parametrize("kind", ["poisson", "negative-binomial", "zero-inflated-negative-binomial", "student-t"])
def test_the_bound_of_self_masked_values_has_a_gradient_whatever_their_kind(kind):
    rows = np.random.default_rng(0).poisson(3.0, (6, 3)).astype(np.float32)
    rows[::2, 0] = np.nan
    model = iwae.create_model(
        iwae.Dataset.from_arrays(rows, likelihood=kind), iwae.Architecture(3, (1,), ((2,),), missing="self-masking")
    )
    x = model.prepare(jnp.asarray(rows), jax.random.key(0))
    gradient = eqx.filter_grad(lambda m: jnp.sum(m.log_weights(x, jax.random.key(1), 2)))(model)
    leaves = jax.tree.leaves(eqx.filter(gradient, eqx.is_inexact_array))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert np.any(np.asarray(gradient.missing.slope))
