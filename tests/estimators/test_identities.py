"""Identities between estimators that hold draw by draw, and gradients that stay finite."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.exact_expectation import X, distance, rough_model
from helpers.linear_gaussian import LinearGaussian
from iwae import bounds
from iwae.estimators.base import Estimator, WeightedEstimator
from iwae.estimators.bound import DoublyReparameterized, Reparameterized, StickingTheLanding
from iwae.estimators.gradients import Coefficients, weighted_gradient
from iwae.estimators.importance_weighted import PIWAE, DReGAlpha, PIWAEDReG
from iwae.estimators.score import OVIS, VIMCO, OVISMonteCarlo
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE

# One number of samples wherever any does, so that the same operations are compiled once.
K = 6
LAYERS = pytest.mark.parametrize("layers", [1, 2, 3])


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def gradients_at(estimators: list[WeightedEstimator], layers: int, num_samples: int = K) -> list[HierarchicalVAE]:
    """Gradients of several estimators from the same noise, three examples."""
    model = rough_model(layers, units=(3,) * layers)
    x = (jax.random.uniform(jax.random.key(5), (3, 3)) < 0.5).astype(float)
    noise = model.draw_noise(jax.random.key(6), num_samples, 3)
    return [weighted_gradient(model, x, noise, e.coefficients, e.derivative)[1] for e in estimators]


def assert_same(ours: HierarchicalVAE, theirs: HierarchicalVAE, scale: float = 1.0) -> None:
    for group in ("encoder", "decoder"):
        factor = scale if group == "encoder" else 1.0
        assert distance(ours, jax.tree.map(lambda leaf: factor * leaf, theirs), group) < 1e-10  # noqa: B023


@LAYERS
def test_with_one_sample_the_path_derivatives_are_one(layers):
    dreg, alpha, stl = gradients_at(
        [DoublyReparameterized(1, bounds.iwae), DReGAlpha(1, 0.0), StickingTheLanding(1, bounds.elbo)], layers, 1
    )
    assert_same(dreg, stl)
    assert_same(alpha, stl)


@LAYERS
def test_dreg_alpha_holds_dreg_and_half_of_stl(layers):
    dreg, zero, stl, half = gradients_at(
        [
            DoublyReparameterized(K, bounds.iwae),
            DReGAlpha(K, 0.0),
            StickingTheLanding(K, bounds.iwae),
            DReGAlpha(K, 0.5),
        ],
        layers,
    )
    assert_same(zero, dreg)
    assert_same(half, stl, scale=0.5)


@LAYERS
def test_dreg_of_the_elbo_is_stl(layers):
    dreg, stl = gradients_at([DoublyReparameterized(K, bounds.elbo), StickingTheLanding(K, bounds.elbo)], layers)
    assert_same(dreg, stl)


@LAYERS
def test_piwae_has_the_decoder_of_iwae_and_the_encoder_of_miwae(layers):
    kinds = (PIWAE, Reparameterized), (PIWAEDReG, DoublyReparameterized)
    for piecewise, kind in kinds:
        both, iwae, miwae = gradients_at(
            [piecewise(K, 3), Reparameterized(K, bounds.iwae), kind(K, bounds.iwae, 3)], layers
        )
        assert distance(both, iwae, "decoder") < 1e-10
        assert distance(both, miwae, "encoder") < 1e-10


def test_groups_are_the_average_of_their_bounds():
    average = lambda w: bounds.miwae(w.reshape(2, 3, -1))  # noqa: E731
    grouped, averaged = gradients_at([DoublyReparameterized(K, bounds.iwae, 2), DoublyReparameterized(K, average)], 2)
    assert_same(grouped, averaged)


@pytest.mark.parametrize("layers", [1, 2])
def test_at_the_exact_posterior_path_derivatives_vanish_draw_by_draw(layers):
    exact = LinearGaussian.random(layers, latent=3, visible=3)
    model, x = exact.model(), jnp.asarray(exact.sample(3))
    for estimator in (
        StickingTheLanding(K, bounds.elbo),
        StickingTheLanding(K, bounds.iwae),
        DoublyReparameterized(K, bounds.iwae),
        DoublyReparameterized(K, bounds.jvi),
        DReGAlpha(K, 1.0),
        PIWAEDReG(K, 3),
    ):
        encoder = estimator(model, x, jax.random.key(0)).gradient.encoder
        assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(encoder)) < 1e-12
    plain = Reparameterized(K, bounds.iwae)(model, x, jax.random.key(0)).gradient.encoder
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(plain)) > 0.1


@pytest.mark.parametrize("spread", [1.0, 400.0])
def test_samples_of_no_weight_leave_every_gradient_finite(spread):
    """Log weights 400 nats apart underflow even in double precision; each group of PIWAE keeps its own share."""
    model = rough_model(2, units=(3, 3))
    x = jnp.broadcast_to(X, (3, 3))
    noise = tuple(spread * n for n in model.draw_noise(jax.random.key(0), K, 3))
    estimators: list[WeightedEstimator] = [
        Reparameterized(6, bounds.iwae),
        DoublyReparameterized(6, bounds.iwae),
        PIWAE(6, 3),
        PIWAEDReG(6, 3),
        VIMCO(6),
        OVIS(6, 1.0),
        OVISMonteCarlo(6, 2),
    ]
    for estimator in estimators:
        bound, gradient = weighted_gradient(model, x, noise, estimator.coefficients, estimator.derivative)
        assert jnp.all(jnp.isfinite(bound))
        assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(gradient))
    piecewise, miwae = (
        weighted_gradient(model, x, noise, e.coefficients, e.derivative)[1].encoder
        for e in (PIWAE(6, 3), Reparameterized(6, bounds.iwae, 3))
    )
    for ours, theirs in zip(jax.tree.leaves(piecewise), jax.tree.leaves(miwae), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)


def test_doubly_reparameterized_gradients_cost_no_second_forward_pass():
    """Operations as the compiler counts them, at the paper's sizes."""
    with jax.enable_x64(False):
        x = jax.ShapeDtypeStruct((20, 784), jnp.float32)
        key = jax.eval_shape(lambda: jax.random.key(0))
        for layers, most in ((1, 1.001), (2, 1.05)):
            model = eqx.filter_eval_shape(HierarchicalVAE.create, Architecture.paper(layers, 784), jax.random.key(0))
            flops = []
            for estimator in (Reparameterized(50, bounds.iwae), DReGAlpha(50, 0.0)):
                costs = jax.jit(estimator.__call__).lower(model, x, key).compile().cost_analysis()
                assert costs is not None
                flops.append(costs["flops"])
            assert flops[1] / flops[0] < most


def test_an_estimator_of_ones_own_is_a_small_class():
    class Halved(WeightedEstimator):
        derivative = "path"

        def coefficients(self, log_weights):
            bound, decoder, encoder = DReGAlpha(self.num_samples, 0.0).coefficients(log_weights)
            return Coefficients(bound, decoder, 0.5 * encoder)

    own, dreg = gradients_at([Halved(K), DReGAlpha(K, 0.0)], 2)
    assert_same(own, dreg, scale=0.5)
    assert isinstance(Halved(K), Estimator)
