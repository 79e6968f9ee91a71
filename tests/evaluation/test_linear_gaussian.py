"""Against models whose likelihood, posterior, ELBO and gradients are known exactly."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.linear_gaussian import LinearGaussian
from helpers.numpy_model import SMALL
from iwae import bounds
from iwae.estimators.bound import Reparameterized
from iwae.estimators.objective import Objective, make_estimator
from iwae.models.vae import HierarchicalVAE

LAYERS = pytest.mark.parametrize("layers", [1, 2])


@LAYERS
def test_with_the_exact_posterior_every_log_weight_is_the_log_likelihood(layers):
    exact = LinearGaussian.random(layers)
    x = exact.sample(5)
    with jax.enable_x64(True):
        log_weights = exact.model().log_weights(jnp.asarray(x), jax.random.key(0), 7)
        expected = np.broadcast_to(exact.log_likelihood(x), (7, 5))
        np.testing.assert_allclose(np.asarray(log_weights), expected, rtol=1e-10)


@LAYERS
def test_the_elbo_is_below_the_likelihood_by_the_exact_divergence(layers):
    exact = LinearGaussian.random(layers)
    x = jnp.asarray(exact.sample(4), jnp.float32)
    model = jax.tree.map(jnp.float32, exact.model(shift=0.3, widen=1.4))
    log_weights = np.asarray(model.log_weights(x, jax.random.key(1), 40_000), np.float64)
    gap = exact.log_likelihood(np.asarray(x)) - log_weights.mean(0)
    error = log_weights.std(0) / np.sqrt(len(log_weights))
    assert np.all(np.abs(gap - exact.gap(shift=0.3, widen=1.4)) < 4.5 * error)
    assert np.all(error < 0.02)


@LAYERS
def test_the_bound_rises_with_k_towards_the_likelihood(layers):
    exact = LinearGaussian.random(layers)
    x = exact.sample(1)
    model = jax.tree.map(jnp.float32, exact.model(shift=0.4, widen=1.3))
    values = []
    for k in (1, 2, 5, 20, 100):
        tiled = jnp.asarray(np.repeat(x, 20_000, axis=0), jnp.float32)
        draw = eqx.filter_jit(lambda x, k=k: bounds.iwae(model.log_weights(x, jax.random.key(k), k)))
        bound = np.asarray(draw(tiled), np.float64)
        values.append((bound.mean(), bound.std() / np.sqrt(len(bound))))
    for (low, low_error), (high, high_error) in itertools.pairwise(values):
        assert high - low > 3 * np.hypot(low_error, high_error)
    likelihood = exact.log_likelihood(x)[0]
    assert values[-1][0] < likelihood + 4 * values[-1][1]
    assert values[-1][0] > likelihood - 0.02


def mean_gradient(model: HierarchicalVAE, x: np.ndarray, estimator: Reparameterized, draws: int):
    """Mean and standard error over independent draws of a gradient estimate, leaf by leaf."""
    batch = jnp.asarray(x, jnp.float32)
    keys = jax.random.split(jax.random.key(5), draws)
    gradients = eqx.filter_jit(jax.vmap(lambda key: estimator(model, batch, key).gradient))(keys)
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(gradients)]
    return [leaf.mean(0) for leaf in leaves], [leaf.std(0) / np.sqrt(draws) for leaf in leaves]


@LAYERS
@pytest.mark.parametrize("objective", ["elbo", "iwae"])
def test_decoder_gradients_at_the_exact_posterior_are_those_of_the_likelihood(layers, objective):
    exact = LinearGaussian.random(layers)
    x = exact.sample(3)
    model = jax.tree.map(jnp.float32, exact.model())
    estimator = make_estimator(Objective(objective, k=3))
    assert isinstance(estimator, Reparameterized)
    means, errors = mean_gradient(model, x, estimator, 30_000)
    structure = jax.tree.structure(model)
    mean, error = jax.tree.unflatten(structure, means).decoder[0], jax.tree.unflatten(structure, errors).decoder[0]

    def log_likelihood(loadings, bias):
        covariance = loadings.T @ jnp.diag(jnp.asarray(exact.prior_variance)) @ loadings
        covariance += jnp.diag(jnp.asarray(exact.sigma**2))
        return jnp.sum(jax.scipy.stats.multivariate_normal.logpdf(jnp.asarray(x), bias, covariance))

    with jax.enable_x64(True):
        expected = jax.grad(log_likelihood, (0, 1))(jnp.asarray(exact.loadings), jnp.asarray(exact.bias))
    # Ours is that of a mean loss over three examples.
    assert np.all(np.abs(-3 * mean.mean.weight - expected[0]) < 5 * 3 * error.mean.weight)
    assert np.all(np.abs(-3 * mean.mean.bias - expected[1]) < 5 * 3 * error.mean.bias)
    assert 3 * error.mean.weight.max() < 0.1 * np.abs(expected[0]).max()


def test_encoder_gradient_of_the_elbo_is_the_exact_one():
    exact = LinearGaussian.random(1)
    x = exact.sample(3)
    model = jax.tree.map(jnp.float32, exact.model(shift=0.3, widen=1.4))
    means, errors = mean_gradient(model, x, Reparameterized(2, bounds.elbo), 30_000)
    treedef = jax.tree.structure(model)
    mean, error = jax.tree.unflatten(treedef, means), jax.tree.unflatten(treedef, errors)
    sigma = exact.posterior()[2]
    # KL = sum (widen^2 + shift^2 / sigma^2 - 1) / 2 - log widen, and the loss has its mean over the examples.
    assert np.all(np.abs(mean.encoder[0].mean.bias - 0.3 / sigma**2) < 5 * error.encoder[0].mean.bias)
    assert np.all(np.abs(mean.encoder[0].log_sigma.bias - (1.4**2 - 1)) < 5 * error.encoder[0].log_sigma.bias)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_iwae_gradient_is_the_weighted_sum_of_log_weight_gradients(layers):
    with jax.enable_x64(True):
        model = HierarchicalVAE.create(SMALL[layers], jax.random.key(0))
        x = (jax.random.uniform(jax.random.key(1), (4, 6)) < 0.5).astype(jnp.float64)
        key, k = jax.random.key(2), 5
        estimate = eqx.filter_jit(Reparameterized(k, bounds.iwae))(model, x, key)
        log_weights = np.asarray(eqx.filter_jit(lambda m: m.log_weights(x, key, k))(model))
        normalized = np.exp(log_weights - log_weights.max(0))
        normalized /= normalized.sum(0)

        @eqx.filter_jit
        def weighted_sum(model):
            return jax.vjp(lambda m: m.log_weights(x, key, k), model)[1](jnp.asarray(normalized))[0]

        expected = weighted_sum(model)
        for ours, theirs in zip(jax.tree.leaves(estimate.gradient), jax.tree.leaves(expected), strict=True):
            assert ours.dtype == np.float64
            np.testing.assert_allclose(ours, -theirs / 4, rtol=1e-9, atol=1e-12)
        bound = np.log(np.mean(np.exp(log_weights - log_weights.max(0)), axis=0)) + log_weights.max(0)
        np.testing.assert_allclose(estimate.value, -bound.mean(), rtol=1e-12)
