"""Removing units: exact where they carry nothing, and by the algebra where they carry a constant."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.numpy_model import SMALL
from helpers.toy import toy_dataset
from iwae.evaluation.active_units import active_units
from iwae.evaluation.likelihood import likelihoods
from iwae.models.networks.tanh import TanhNetwork
from iwae.models.pruning import prune, units_to_keep
from iwae.models.vae import HierarchicalVAE

KEPT = {
    1: ([True, False, True],),
    2: ([True, False, True, True], [False, True]),
    3: ([True, True, False, True], [True, False, True], [True, False]),
}


def masks(layers):
    return tuple(np.array(mask) for mask in KEPT[layers])


def with_dead_units(layers):
    """A random model in which the units to be removed are exactly N(0, 1) under p and q, and are not listened to."""
    rng = np.random.default_rng(layers)
    model = HierarchicalVAE.create(SMALL[layers], jax.random.key(layers))
    model = jax.tree.map(lambda a: a + 0.2 * rng.normal(size=a.shape).astype(np.float32), model)
    encoder, decoder = list(model.encoder), list(model.decoder)

    def silence(linear, mask):
        return type(linear)(linear.weight * mask, linear.bias * mask)

    def deafen(layer, mask):
        first, *rest = layer.network.hidden
        heard = type(first)(first.weight * mask[:, None], first.bias)
        return dataclasses.replace(layer, network=TanhNetwork((heard, *rest)))

    def quiet(layer, mask):
        return layer.with_heads([silence(head, mask) for head in layer.heads])

    for i, mask in enumerate(masks(layers)):
        encoder[i] = quiet(encoder[i], mask)
        decoder[i] = deafen(decoder[i], mask)
        if i + 1 < layers:
            encoder[i + 1] = deafen(encoder[i + 1], mask)
            decoder[i + 1] = quiet(decoder[i + 1], mask)
    return HierarchicalVAE(tuple(encoder), tuple(decoder))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_units_that_carry_nothing_can_go_without_any_change(layers):
    model, kept = with_dead_units(layers), masks(layers)
    dataset = toy_dataset(binary=True)
    smaller = prune(model, kept, tuple(np.zeros(len(mask)) for mask in kept))
    assert smaller.latent == tuple(int(mask.sum()) for mask in kept)
    before = likelihoods(model, dataset, num_samples=20)
    after = likelihoods(smaller, dataset, num_samples=20, kept=kept)
    np.testing.assert_allclose(after.log_likelihood, before.log_likelihood, atol=1e-4)
    fresh = likelihoods(smaller, dataset, num_samples=20)
    assert not np.allclose(fresh.log_likelihood, before.log_likelihood, atol=1e-3)


def test_what_a_constant_unit_gave_moves_into_the_biases():
    model = HierarchicalVAE.create(SMALL[2], jax.random.key(0))
    mask, mean = np.array([True, False, True, True]), np.array([5.0, 0.7, 5.0, 5.0])
    smaller = prune(model, (mask, np.array([True, True])), (mean, np.zeros(2)))
    values = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    values[:, 1] = 0.7
    h = jnp.asarray(values)
    np.testing.assert_allclose(smaller.decoder[0](h[:, mask]).mean, model.decoder[0](h).mean, rtol=1e-5)
    np.testing.assert_allclose(smaller.encoder[1](h[:, mask]).mean, model.encoder[1](h).mean, rtol=1e-4, atol=1e-6)


def test_the_active_units_are_kept_and_at_least_one():
    variances = (np.array([0.5, 0.001, 0.02]), np.array([0.001, 0.004]))
    kept = units_to_keep(tuple(variance > 0.01 for variance in variances), variances)
    np.testing.assert_array_equal(kept[0], [True, False, True])
    np.testing.assert_array_equal(kept[1], [False, True])


def test_means_are_those_of_the_posterior_means():
    dataset = toy_dataset(binary=True)
    model = HierarchicalVAE.create(SMALL[1], jax.random.key(0))
    expected = model.encoder[0](jnp.asarray(dataset.train, jnp.float32)).mean
    result = active_units(model, dataset)
    np.testing.assert_allclose(result.means[0], np.mean(expected, axis=0), atol=1e-5)
    np.testing.assert_allclose(result.variances[0], np.var(expected, axis=0), rtol=1e-4)
