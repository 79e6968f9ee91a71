"""Log densities against scipy.stats, at ordinary and at extreme values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from iwae.models.distributions import Bernoulli, Normal, StandardNormal, bernoulli_log_prob

RNG = np.random.default_rng(0)


def test_normal_log_prob_is_scipys_summed_over_units():
    mean, log_sigma = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
    value = RNG.normal(size=(7, 5, 3))
    expected = stats.norm.logpdf(value, mean, np.exp(log_sigma)).sum(-1)
    with jax.enable_x64(True):
        actual = Normal(jnp.asarray(mean), jnp.asarray(log_sigma)).log_prob(jnp.asarray(value))
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_standard_normal_log_prob_is_scipys():
    value = RNG.normal(size=(4, 6)).astype(np.float32)
    np.testing.assert_allclose(
        StandardNormal().log_prob(jnp.asarray(value)), stats.norm.logpdf(value).sum(-1), rtol=1e-5
    )


def test_normal_sample_has_the_mean_and_sigma_asked_for():
    distribution = Normal(jnp.array([1.0, -2.0]), jnp.log(jnp.array([0.5, 3.0])))
    draws = np.asarray(distribution.sample(jax.random.normal(jax.random.key(0), (200_000, 2))))
    np.testing.assert_allclose(draws.mean(0), [1.0, -2.0], atol=0.03)
    np.testing.assert_allclose(draws.std(0), [0.5, 3.0], rtol=0.01)


def test_bernoulli_log_prob_is_scipys():
    logits = RNG.normal(scale=3.0, size=(5, 8))
    value = RNG.integers(0, 2, size=(5, 8)).astype(float)
    expected = stats.bernoulli.logpmf(value.astype(int), 1 / (1 + np.exp(-logits))).sum(-1)
    with jax.enable_x64(True):
        actual = Bernoulli(jnp.asarray(logits)).log_prob(jnp.asarray(value))
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("units", [1, 15, 16, 17, 40, 784])
@pytest.mark.parametrize("scale", [0.0, 5.0, 1e30])
@pytest.mark.parametrize("is_whole", [True, False])
def test_the_sum_over_units_is_that_of_each(units, scale, is_whole):
    """Logarithms are of products of 16 factors: of any number of units, the largest factors, and some left out."""
    logits = (RNG.normal(size=(3, units)) * scale).astype(np.float32)
    value = RNG.integers(0, 2, size=(3, units)).astype(np.float32)
    observed = np.ones((3, units), bool) if is_whole else RNG.random((3, units)) < 0.5
    each = value * logits.astype(np.float64) - np.logaddexp(0.0, logits.astype(np.float64))
    exact = np.sum(np.where(observed, each, 0.0), axis=1)
    actual = Bernoulli(jnp.asarray(logits)).log_prob(jnp.asarray(value), None if is_whole else jnp.asarray(observed))
    np.testing.assert_allclose(actual, exact, rtol=1e-6, atol=1e-7 * units)


@jax.jit
def value_and_slope(value, logit):
    return jax.value_and_grad(lambda a: bernoulli_log_prob(value[None], a[None]))(logit)


@given(st.floats(-(2.0**100), 2.0**100, width=32), st.sampled_from([0.0, 1.0]))
def test_bernoulli_log_prob_is_right_for_logits_of_any_size(logit, value):
    exact = -np.logaddexp(0.0, -logit) if value else -np.logaddexp(0.0, logit)
    actual, slope = value_and_slope(jnp.float32(value), jnp.float32(logit))
    np.testing.assert_allclose(actual, exact, rtol=1e-6, atol=6e-8)
    exact_slope = value - 0.5 * (1.0 + np.tanh(0.5 * logit))
    np.testing.assert_allclose(slope, exact_slope, rtol=1e-5, atol=2e-7)


@pytest.mark.parametrize("argument", [0, 1])
def test_bernoulli_gradient_is_that_of_the_formula_as_written(argument):
    def plain(value, logits):
        return jnp.sum(value * logits - jnp.logaddexp(0.0, logits), axis=-1)

    with jax.enable_x64(True):
        value, logits = jnp.asarray(RNG.uniform(size=(3, 6))), jnp.asarray(RNG.normal(scale=4.0, size=(2, 3, 6)))
        ours = jax.grad(lambda *a: jnp.sum(jnp.sin(bernoulli_log_prob(*a))), argument)(value, logits)
        theirs = jax.grad(lambda *a: jnp.sum(jnp.sin(plain(*a))), argument)(value, logits)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_bernoulli_mean_is_the_probability_of_a_one():
    logits = jnp.array([-2.0, 0.0, 5.0])
    np.testing.assert_allclose(Bernoulli(logits).mean, 1 / (1 + np.exp([2.0, 0.0, -5.0])), rtol=1e-6)
