"""Identities and order of the bounds, over log weights of any size."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import logsumexp

from iwae import bounds

LOG_WEIGHTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 7), st.integers(1, 3)),
    elements=st.floats(-1e5, 1e5, width=32) | st.just(-np.inf),
)


@given(LOG_WEIGHTS)
def test_iwae_is_log_mean_exp(log_weights):
    expected = logsumexp(log_weights.astype(np.float64), axis=0) - np.log(len(log_weights))
    actual = np.asarray(bounds.iwae(jnp.asarray(log_weights)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


@given(LOG_WEIGHTS)
def test_elbo_below_iwae_below_max(log_weights):
    elbo = np.asarray(bounds.elbo(jnp.asarray(log_weights)))
    iwae = np.asarray(bounds.iwae(jnp.asarray(log_weights)))
    slack = 1e-5 * (1.0 + np.max(np.abs(np.where(np.isfinite(log_weights), log_weights, 0.0))))
    assert not np.any(np.isnan(elbo))
    assert not np.any(np.isnan(iwae))
    assert np.all(elbo <= iwae + slack)
    assert np.all(iwae <= log_weights.max(0) + slack)


@given(hnp.arrays(np.float32, (1, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_with_one_sample_both_bounds_are_the_log_weight_itself(log_weights):
    np.testing.assert_array_equal(bounds.iwae(jnp.asarray(log_weights)), log_weights[0])
    np.testing.assert_array_equal(bounds.elbo(jnp.asarray(log_weights)), log_weights[0])


def test_gradient_of_iwae_is_the_normalized_weight():
    log_weights = jnp.array([[-90.0, 0.0], [-88.0, -np.inf], [-95.0, 1.0]])
    gradient = jax.grad(lambda w: bounds.iwae(w).sum())(log_weights)
    weights = np.exp(np.asarray(log_weights) - np.asarray(log_weights).max(0))
    np.testing.assert_allclose(gradient, weights / weights.sum(0), rtol=1e-6)


def test_the_largest_weight_gets_the_largest_share():
    gradient = jax.grad(lambda w: bounds.iwae(w).sum())(jnp.array([[-3.0], [-1.0], [-2.0]]))
    assert int(jnp.argmax(gradient[:, 0])) == 1


def test_the_sum_over_samples_comes_before_the_mean_over_the_batch():
    log_weights = jnp.array([[0.0, -10.0], [-10.0, 0.0]])
    np.testing.assert_allclose(bounds.iwae(log_weights), np.log([0.5, 0.5]), atol=1e-4)
