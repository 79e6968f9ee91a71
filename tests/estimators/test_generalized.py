"""GDReG's expectation by quadrature and by paired draws, and its noise beside that of DReG."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from helpers.deep_gaussian import DeepGaussian
from helpers.exact_expectation import NODES, X, distance, rough_model
from helpers.linear_gaussian import LinearGaussian
from iwae import bounds
from iwae.errors import IWAEError
from iwae.estimators.base import WeightedEstimator
from iwae.estimators.bound import DoublyReparameterized, Reparameterized
from iwae.estimators.generalized import GeneralizedDoublyReparameterized
from iwae.estimators.objective import Objective, make_estimator


def upper(model) -> jax.Array:
    """The decoder's layers above the visible one as a vector."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(model.decoder[1:])])


@pytest.mark.parametrize(
    ("layers", "nodes", "exact"), [(2, NODES, 1e-6), pytest.param(3, 30, 1e-4, marks=pytest.mark.slow)]
)
def test_with_one_sample_its_expectation_is_that_of_the_score(layers, nodes, exact):
    """All outcomes of one normal a layer, by the trapezoidal rule."""
    with jax.enable_x64(True):
        model = rough_model(layers)
        points = np.linspace(-7.0, 7.0, nodes)
        grid = np.stack(np.meshgrid(*[points] * layers, indexing="ij")).reshape(layers, 1, -1, 1)
        chances = np.exp(-0.5 * np.sum(grid**2, axis=0))[..., 0]
        chances /= chances.sum()
        x = jnp.broadcast_to(X, (chances.size, 3))

        @eqx.filter_jit
        def expected(kind):
            estimator = kind(1, bounds.iwae)

            def weighted(log_weights):
                found = estimator.coefficients(log_weights)
                weights = chances * chances.size
                return found._replace(decoder=found.decoder * weights, encoder=found.encoder * weights)

            return estimator.gradient(model, x, tuple(map(jnp.asarray, grid)), weighted)[1]

        ours, theirs = expected(GeneralizedDoublyReparameterized), expected(Reparameterized)
        assert distance(ours, theirs, "decoder") < exact
        # Draw by draw they differ: the test would see nothing otherwise.
        single = [kind(1, bounds.iwae)(model, x[:1], jax.random.key(0)).gradient for kind in (
            GeneralizedDoublyReparameterized, Reparameterized)]  # fmt: skip
        assert float(jnp.max(jnp.abs(upper(single[0]) - upper(single[1])))) > 1e-3


BOUNDS = {"iwae": bounds.iwae, "renyi": Partial(bounds.renyi, alpha=0.5)}


@pytest.mark.parametrize(
    ("name", "sigma", "is_quieter"), [("iwae", 2.0, True), ("renyi", 2.0, True), ("iwae", 0.4, False)]
)
def test_of_a_linear_gaussian_model_it_has_the_expectation_of_dreg_and_other_noise(name, sigma, is_quieter):
    """It follows the slope of p(x | h_1) where DReG has that of p(h_1 | h_2): less noise if that is the flatter one."""
    exact = replace(DeepGaussian.random(2), sigma=sigma)
    model, x = exact.model(shift=0.3, widen=1.2), jnp.asarray(exact.sample(2))
    kinds = (GeneralizedDoublyReparameterized, DoublyReparameterized)

    @eqx.filter_jit
    def draws(estimators: tuple[WeightedEstimator, ...]) -> list[jax.Array]:
        keys = jax.random.split(jax.random.key(0), 10_000)
        return [jax.lax.map(lambda k, e=e: upper(e(model, x, k).gradient), keys, batch_size=2000) for e in estimators]

    ours, theirs = map(np.asarray, draws(tuple(kind(6, BOUNDS[name]) for kind in kinds)))
    difference = ours - theirs
    error = difference.std(axis=0) / len(ours) ** 0.5
    assert np.all(np.abs(difference.mean(axis=0)) < 5 * error + 1e-7)
    quieter, louder = (ours, theirs) if is_quieter else (theirs, ours)
    assert quieter.var(axis=0).sum() < 0.8 * louder.var(axis=0).sum()
    assert error.max() < 0.1 * np.abs(theirs.mean(axis=0)).max()


def test_all_but_the_upper_layers_is_dregs():
    exact = LinearGaussian.random(1)
    x = jnp.asarray(exact.sample(3), jnp.float32)
    one = jax.tree.map(jnp.float32, exact.model(shift=0.3))
    deep = DeepGaussian.random(3)
    for model, rows in ((one, x), (deep.model(shift=0.3), jnp.asarray(deep.sample(3)))):
        ours, theirs = (
            make_estimator(Objective("iwae", k=4, estimator=name))(model, rows, jax.random.key(1))
            for name in ("gdreg", "dreg")
        )
        assert ours.value == theirs.value
        same = [
            (ours.gradient.encoder, theirs.gradient.encoder),
            (ours.gradient.decoder[0], theirs.gradient.decoder[0]),
        ]
        for pair in same:
            for a, b in zip(*map(jax.tree.leaves, pair), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        assert jax.tree.structure(ours.gradient) == jax.tree.structure(theirs.gradient)


def test_upper_layers_of_other_kinds_are_refused():
    model = rough_model(2)

    class Other:
        def __init__(self, normal):
            self.mean, self.log_prob, self.sample = normal.mean, normal.log_prob, normal.sample

    class Layer(eqx.Module):
        layer: Any

        def __call__(self, given):
            return Other(self.layer(given))

        def log_prob(self, value, given):
            return self(given).log_prob(value)

    odd = eqx.tree_at(lambda m: m.decoder[1], model, Layer(model.decoder[1]))
    with pytest.raises(IWAEError, match="GDReG needs diagonal Gaussians in the decoder's upper layers: use DReG"):
        GeneralizedDoublyReparameterized(2, bounds.iwae)(odd, jnp.zeros((1, 3)), jax.random.key(0))
