"""Log weights against a NumPy loop, and the model's construction."""

import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from helpers.numpy_model import BIAS, SMALL, numpy_log_weight
from iwae.data import Dataset
from iwae.errors import IWAEError
from iwae.estimators.importance_weighted import DReGAlpha
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE
from iwae.training.loop import create_model


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_log_weights_are_those_of_a_numpy_loop_over_samples_and_layers(layers):
    rng = np.random.default_rng(layers)
    model = HierarchicalVAE.create(SMALL[layers], jax.random.key(layers), bias=BIAS)
    model = jax.tree.map(lambda a: a + 0.3 * rng.normal(size=a.shape).astype(np.float32), model)
    x = rng.integers(0, 2, size=(4, 6)).astype(np.float32)
    noise = model.draw_noise(jax.random.key(7), 5, 4)
    actual = np.asarray(eqx.filter_jit(model.log_weights_at)(jnp.asarray(x), noise))
    assert actual.shape == (5, 4)
    for k in range(5):
        for b in range(4):
            expected = numpy_log_weight(model, x[b], [np.asarray(n[k, b], np.float64) for n in noise])
            assert actual[k, b] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_log_weights_draw_their_own_noise():
    model = HierarchicalVAE.create(SMALL[2], jax.random.key(0))
    x, key = jnp.ones((3, 6)), jax.random.key(1)
    drawn = model.log_weights(x, key, 4)
    np.testing.assert_array_equal(drawn, model.log_weights_at(x, model.draw_noise(key, 4, 3)))
    assert not np.allclose(drawn, model.log_weights(x, jax.random.key(2), 4))


@pytest.mark.parametrize("layers", [1, 2])
def test_the_first_layer_is_evaluated_once_per_example(layers):
    model = HierarchicalVAE.create(Architecture.paper(layers, 784), jax.random.key(0))
    jaxpr = jax.make_jaxpr(lambda m, x: m.log_weights(x, jax.random.key(1), 50))(model, jnp.zeros((20, 784)))
    contracted = [
        equation.invars[0].aval.shape  # pyright: ignore[reportAttributeAccessIssue]
        for equation in jaxpr.jaxpr.eqns
        if equation.primitive.name == "dot_general" and equation.invars[1].aval.shape[0] == 784  # pyright: ignore
    ]
    assert contracted == [(20, 784)]


def test_glorot_limits_zero_biases_and_independent_heads():
    model = HierarchicalVAE.create(Architecture.paper(2, 784), jax.random.key(3))
    first = np.asarray(model.encoder[0].network.hidden[0].weight)
    limit = math.sqrt(6 / (784 + 200))
    assert first.shape == (784, 200)
    assert np.abs(first).max() <= limit
    assert np.abs(first).max() > 0.999 * limit
    assert first.std() == pytest.approx(limit / math.sqrt(3), rel=0.01)
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(model) if leaf.ndim == 1)
    for layer in model.encoder:
        correlation = np.corrcoef(np.ravel(layer.mean.weight), np.ravel(layer.log_sigma.weight))[0, 1]
        assert abs(correlation) < 0.05


def test_visible_bias_is_the_logit_of_the_clipped_training_mean():
    mean = np.array([0.0, 0.0005, 0.25, 0.5, 0.9999, 1.0])
    model = create_model(Dataset.from_arrays(mean[None]), SMALL[1])
    clipped = np.clip(mean, 0.001, 0.999)
    np.testing.assert_allclose(model.decoder[0].outputs.bias, np.log(clipped / (1 - clipped)), rtol=1e-5)  # pyright: ignore


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_samples_are_probabilities_and_follow_the_hierarchy(layers):
    model = HierarchicalVAE.create(SMALL[layers], jax.random.key(0))
    values = np.asarray(model.sample(jax.random.key(1), 50))
    assert values.shape == (50, 6)
    assert np.all((values > 0) & (values < 1))
    assert values.std(0).min() > 0
    assert model.latent == SMALL[layers].latent
    assert model.visible == 6


def test_paper_sizes():
    one, two = Architecture.paper(1, 784), Architecture.paper(2, 784)
    assert (one.latent, one.hidden) == ((50,), ((200, 200),))
    assert (two.latent, two.hidden) == ((100, 50), ((200, 200), (100, 100)))
    shapes = [
        tuple(layer.weight.shape) for layer in HierarchicalVAE.create(two, jax.random.key(0)).decoder[0].network.hidden
    ]
    assert shapes == [(100, 200), (200, 200)]
    assert Architecture.from_json(two.to_json()) == two


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, (), ()), "at least one stochastic layer"),
        ((4, (3,), ()), "1 stochastic layers need"),
        ((4, (0,), ((2,),)), "positive integer, got 0"),
        ((4, (3,), ((2.5,),)), "positive integer, got 2.5"),
        ((4, (3,), (8,)), r"`hidden` a tuple with one such tuple per stochastic layer, .* got \(3,\) and \(8,\)"),
        ((4, 3, ((8,),)), "`latent` must be a tuple of numbers"),
        ((4, (3,), 8), "`hidden` a tuple with one such tuple"),
    ],
)
def test_architectures_without_meaning_are_refused(arguments, message):
    with pytest.raises(IWAEError, match=message):
        Architecture(*arguments)


def test_the_paper_has_no_third_layer():
    with pytest.raises(IWAEError, match="`latent`"):
        Architecture.paper(3)


@pytest.mark.parametrize("shape", [(6,), (3, 5), (2, 3, 6)])
def test_examples_of_another_shape_are_refused(shape, monkeypatch):
    """One example alone would be taken for a batch of its pixels."""
    # The tests' own check of shapes would come first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    model = HierarchicalVAE.create(Architecture(6, (2,), ((4, 4),)), jax.random.key(0))
    said = re.escape(f"`x` must have shape [batch, 6], got {list(shape)}")
    with pytest.raises(IWAEError, match=said):
        model.log_weights(jnp.zeros(shape), jax.random.key(1), 3)
    with pytest.raises(IWAEError, match=said):
        DReGAlpha(3, 0.0)(model, jnp.zeros(shape), jax.random.key(1))
