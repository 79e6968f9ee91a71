"""Layers and networks: the visible layer's own gradient against automatic differentiation's, named networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iwae.models.distributions import Bernoulli
from iwae.models.likelihoods import BernoulliLikelihood, VisibleLayer
from iwae.models.networks import NETWORKS
from iwae.models.networks.gated import GatedNetwork
from iwae.models.registry import class_at, name_in


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


def test_a_gated_network_is_what_its_formula_says() -> None:
    network = GatedNetwork.create((3, 4, 2), jax.random.key(0))
    x = np.asarray(jax.random.normal(jax.random.key(1), (5, 3)), np.float64)
    expected = x
    for value, gate in zip(network.values, network.gates, strict=True):
        gates = 1 / (1 + np.exp(-(expected @ np.asarray(gate.weight, np.float64))))
        expected = expected @ np.asarray(value.weight, np.float64) * gates
    np.testing.assert_allclose(network(jnp.float32(x)), expected, atol=1e-6)
    assert network.widths == (4, 2)
    # Values and gates are drawn independently.
    assert np.abs(network.values[0].weight - network.gates[0].weight).max() > 0.1


DENSE = [name for name, kind in NETWORKS.items() if kind.decoder is None]


@pytest.mark.parametrize("name", DENSE)
def test_a_network_is_made_again_from_its_name_and_widths(name: str) -> None:
    make = class_at(NETWORKS[name].home).create
    network = make((3, 4, 2), jax.random.key(0))
    assert name_in(NETWORKS, network) == name
    again = make((3, *network.widths), jax.random.key(0))
    assert jax.tree.structure(network) == jax.tree.structure(again)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(network), jax.tree.leaves(again), strict=True))
    assert name_in(NETWORKS, jnp.tanh) is None


def test_the_identity_is_no_layer() -> None:
    x = jnp.ones((2, 3))
    for name in DENSE:
        np.testing.assert_array_equal(class_at(NETWORKS[name].home).create((3,), jax.random.key(0))(x), x)
