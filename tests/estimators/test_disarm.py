"""DisARM's expectation and variance without sampling: its pairs have few outcomes, and all are summed."""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import ndtri
from jax.tree_util import Partial

from helpers.exact_expectation import Grid, X, distance, gradient_of_expectation, of_encoder, rough_model
from iwae import bounds
from iwae.errors import IWAEError
from iwae.estimators.base import WeightedEstimator
from iwae.estimators.disarm import DisARM
from iwae.estimators.gradients import weighted_gradient
from iwae.estimators.score import VIMCO, LeaveOneOut
from iwae.models.vae import HierarchicalVAE
from iwae.runs.config import RunConfig

UNITS = 2


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


@eqx.filter_jit
def pairs(model: HierarchicalVAE, num_pairs: int) -> tuple[jax.Array, jax.Array]:
    """Noise of every outcome of so many pairs, `[outcomes, 2 pairs, 1, units]`, and the outcomes' probabilities.

    A unit's pair is a function of which of three intervals u is in: their ends are sigmoid(l) and 1 - sigmoid(l).
    """
    chance = model.encoder[0](jnp.asarray(X)[None]).mean[0]
    low = jnp.minimum(chance, 1 - chance)
    ends = jnp.stack([jnp.zeros_like(low), low, 1 - low, jnp.ones_like(low)])
    middles, widths = (ends[1:] + ends[:-1]) / 2, ends[1:] - ends[:-1]
    chosen = np.array(list(itertools.product(range(3), repeat=num_pairs * len(low)))).reshape(-1, num_pairs, len(low))
    units = np.arange(len(low))
    first = ndtri(middles[chosen, units])[:, :, None]
    return jnp.concatenate([first, -first], axis=1), jnp.prod(widths[chosen, units], axis=(1, 2))


def mean_and_variance(
    estimator: WeightedEstimator, model: HierarchicalVAE, noise: jax.Array, chances: jax.Array
) -> tuple[HierarchicalVAE, float, float]:
    """The expected gradient of what is maximized, the total variance of the encoder's, and the expected value."""

    @eqx.filter_jit
    def found(
        model: HierarchicalVAE, noise: jax.Array, chances: jax.Array
    ) -> tuple[HierarchicalVAE, jax.Array, jax.Array]:
        at_x = jnp.asarray(X)[None]
        values, gradients = jax.vmap(lambda n: estimator.gradient(model, at_x, (n,), estimator.coefficients))(noise)
        mean = jax.tree.map(lambda leaf: -jnp.tensordot(chances, leaf, axes=1), gradients)
        encoder = jax.vmap(of_encoder)(gradients)
        return mean, chances @ jnp.sum((encoder + of_encoder(mean)) ** 2, axis=1), chances @ values[:, 0]

    mean, variance, value = found(model, noise, chances)
    return mean, float(variance), float(value)


def independent(model: HierarchicalVAE, num_samples: int) -> tuple[jax.Array, jax.Array]:
    """As `pairs`, of independent samples."""
    grid = Grid.binary(model, num_samples)
    return jnp.moveaxis(jnp.asarray(grid.noise[0]), 0, 1)[:, :, None], jnp.asarray(grid.weights)


BOUNDS: dict[str, tuple[Callable[..., jax.Array], int]] = {
    "elbo": (bounds.elbo, 1),
    "elbo of 2": (bounds.elbo, 2),
    "iwae": (bounds.iwae, 2),
    "iwae of 3": (bounds.iwae, 3),
    "renyi": (Partial(bounds.renyi, alpha=0.5), 2),
    "not symmetric": (lambda w: bounds.iwae(w + jnp.arange(2.0)[:, None]), 2),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_it_is_unbiased_for_both_groups_of_parameters(name):
    bound, count = BOUNDS[name]
    model = rough_model(1, "bernoulli", (UNITS,))
    noise, chances = pairs(model, count)
    assert float(chances.sum()) == pytest.approx(1.0)
    grid = Grid.binary(model, count)
    mean, _, value = mean_and_variance(DisARM(count, bound), model, noise, chances)
    expected = gradient_of_expectation(bound, model, grid, binary=True)
    assert distance(mean, expected, "decoder") < 1e-9
    assert distance(mean, expected, "encoder") < 1e-9
    x = jnp.broadcast_to(X, (len(grid.weights), 3))
    values = eqx.filter_jit(lambda model, x, noise: bound(model.log_weights_at(x, noise)))(model, x, grid.noise)
    assert value == pytest.approx(float(grid.weights @ values))


def test_groups_are_averaged():
    model = rough_model(1, "bernoulli", (UNITS,))
    mean, _, _ = mean_and_variance(DisARM(2, bounds.iwae, 2), model, *pairs(model, 2))
    expected = gradient_of_expectation(bounds.elbo, model, Grid.binary(model, 2), binary=True)
    assert distance(mean, expected, "encoder") < 1e-9


class WithoutTheFactor(DisARM):
    """The plain score of the pairs, as if they were independent."""

    def gradient(self, model, x, noise, coefficients):
        return weighted_gradient(model, x, noise, coefficients, self.derivative)


class WithoutTheSlopes(DisARM):
    """As if the bound did not depend on the encoder but by the samples."""

    def _signals(self, own, partners):
        value, slope, _ = super()._signals(own, partners)
        swapped = [bounds.iwae(own.at[i].set(partners[i])) for i in range(len(own))]
        return value, slope, value - jnp.stack(swapped)


@pytest.mark.parametrize("mutant", [WithoutTheFactor, WithoutTheSlopes])
def test_what_is_left_out_is_missed(mutant):
    model = rough_model(1, "bernoulli", (UNITS,))
    mean, _, _ = mean_and_variance(mutant(2, bounds.iwae), model, *pairs(model, 2))
    expected = gradient_of_expectation(bounds.iwae, model, Grid.binary(model, 2), binary=True)
    assert distance(mean, expected, "encoder") > 0.05


def test_it_has_less_variance_than_as_many_independent_samples():
    model = rough_model(1, "bernoulli", (3,))
    _, ours, _ = mean_and_variance(DisARM(1, bounds.elbo), model, *pairs(model, 1))
    _, rloo, _ = mean_and_variance(LeaveOneOut(2), model, *independent(model, 2))
    assert 0.0 < ours < 0.9 * rloo
    _, ours, _ = mean_and_variance(DisARM(2, bounds.iwae), model, *pairs(model, 2))
    _, vimco, _ = mean_and_variance(VIMCO(2), model, *independent(model, 2))
    # Two pairs cost what two estimates of VIMCO's do.
    assert 0.0 < ours < 0.95 * vimco / 2


def test_one_pair_by_hand():
    """The paper's formula, for one unit of which q knows nothing but its logit."""
    log_weights = jnp.log(jnp.array([[2.0], [5.0]]))
    found = DisARM(1, bounds.elbo).coefficients(log_weights)
    half = np.log(2 / 5) / 2
    np.testing.assert_allclose(found.encoder[:, 0], [half, -half], rtol=1e-12)
    np.testing.assert_allclose(found.decoder[:, 0], [0.5, 0.5], rtol=1e-12)
    np.testing.assert_allclose(found.bound, [np.log(10) / 2], rtol=1e-12)


def test_a_few_samples_backward_keep_the_expectation():
    model = rough_model(1, "bernoulli", (UNITS,))
    x = jnp.broadcast_to(X, (20_000, 3))
    exact = gradient_of_expectation(bounds.iwae, model, Grid.binary(model, 2), binary=True)
    found = eqx.filter_jit(DisARM(2, bounds.iwae, num_backward=1))(model, x, jax.random.key(0)).gradient
    assert distance(jax.tree.map(jnp.negative, found), exact, "encoder") < 0.1


def test_the_draws_of_a_step_are_pairs_of_its_key():
    model = rough_model(1, "bernoulli", (3,))
    estimator, key = DisARM(4, bounds.iwae), jax.random.key(2)
    (noise,) = estimator.noise(model, key, 5)
    np.testing.assert_array_equal(noise[:4], -noise[4:])
    np.testing.assert_array_equal(noise[:4], model.draw_noise(key, 4, 5)[0])
    gradient = eqx.filter_jit(estimator)(model, jnp.zeros((5, 3)), key).gradient
    assert jax.tree.structure(gradient) == jax.tree.structure(eqx.filter(model, eqx.is_inexact_array))


@pytest.mark.parametrize(("kind", "latent"), [("gaussian", (2,)), ("bernoulli", (2, 1))])
def test_other_latents_are_refused(kind, latent):
    model = rough_model(len(latent), kind, latent)
    with pytest.raises(IWAEError, match="DisARM needs one stochastic layer of binary latents"):
        DisARM(2, bounds.iwae)(model, jnp.zeros((1, 3)), jax.random.key(0))
    settings = {"latent_kind": kind, "layers": len(latent), "latent": latent, "hidden": (4,) * len(latent)}
    with pytest.raises(IWAEError, match="`estimator` disarm needs one layer of binary latents: give `latent_kind`"):
        RunConfig.of(objective="iwae", k=2, estimator="disarm", **settings)
    single = RunConfig.of(objective="iwae", k=2, estimator="disarm", latent_kind="bernoulli")
    assert single.name() == "mnist-iwae-k2-disarm-1layer-bernoulli-seed0"
