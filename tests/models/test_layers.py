"""The visible layer's own gradient against the one that automatic differentiation makes of the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iwae.models.distributions import Bernoulli
from iwae.models.likelihoods import BernoulliLikelihood, VisibleLayer


@pytest.mark.parametrize(
    ("value_rows", "given_rows"),
    [((4,), (3, 4)), ((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (3, 4)), ((), (4,)), ((5,), (5,))],
    ids=["value once per example", "same", "given once per example", "one example", "one value", "no samples"],
)
@pytest.mark.parametrize("hidden", [(6, 6), ()])
def test_log_prob_and_its_gradients_are_those_of_the_distribution(value_rows, given_rows, hidden):
    with jax.enable_x64(True):
        layer = VisibleLayer.create(2, hidden, 5, jax.random.key(0), BernoulliLikelihood())
        layer = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64) + 0.1, layer)
        given = 3.0 * jax.random.normal(jax.random.key(1), (*given_rows, 2))
        value = jax.random.uniform(jax.random.key(2), (*value_rows, 5))

        def plain(layer, value, given):
            distribution = layer(given)
            assert isinstance(distribution, Bernoulli)
            return distribution.log_prob(value)

        expected, pull = jax.vjp(plain, layer, value, given)
        actual, own_pull = jax.vjp(lambda layer, value, given: layer.log_prob(value, given), layer, value, given)
        np.testing.assert_allclose(actual, expected, rtol=1e-12)
        weights = jax.random.normal(jax.random.key(3), expected.shape)
        for ours, theirs in zip(jax.tree.leaves(own_pull(weights)), jax.tree.leaves(pull(weights)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
