"""Coefficients of estimators by hand, and what is refused."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.special import softmax

from helpers.exact_expectation import distance, rough_model
from iwae import bounds
from iwae.errors import IWAEError
from iwae.estimators.base import WeightedEstimator
from iwae.estimators.bound import (
    DoublyReparameterized,
    Reparameterized,
    ScoreFunction,
    StickingTheLanding,
    curvatures,
    slopes,
)
from iwae.estimators.gradients import weighted_gradient
from iwae.estimators.importance_weighted import PIWAE, DReGAlpha, PIWAEDReG
from iwae.estimators.score import OVIS, VIMCO, OVISMonteCarlo, ReweightedWakeSleep


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def test_curvatures_are_those_of_the_closed_forms():
    found = eqx.filter_jit(curvatures)
    rng = np.random.default_rng(0)
    log_weights: Any = 3.0 * rng.normal(size=(7, 4))
    weights = softmax(log_weights, axis=0)
    assert_close = np.testing.assert_allclose
    assert_close(found(bounds.iwae, log_weights), weights * (1 - weights), atol=1e-12)
    assert_close(found(bounds.elbo, log_weights), 0.0, atol=1e-12)
    powers = softmax(1.7 * log_weights, axis=0)
    renyi = found(Partial(bounds.renyi, alpha=-0.7), log_weights)
    assert_close(renyi, 1.7 * powers * (1 - powers), atol=1e-12)
    without = np.stack([np.where(np.arange(7)[:, None] == i, -np.inf, log_weights) for i in range(7)])
    loo = softmax(without, axis=1)
    jackknife = 7 * weights * (1 - weights) - 6 / 7 * np.sum(loo * (1 - loo), axis=0)
    assert_close(found(bounds.jvi, log_weights), jackknife, atol=1e-11)
    # More samples than are taken at once.
    many: Any = rng.normal(size=(300, 2))
    shares = softmax(many, axis=0)
    assert_close(found(bounds.iwae, many), shares * (1 - shares), atol=1e-12)


# Weights 1, 2, 5 of one example: Z = 8, shares 1/8, 2/8, 5/8; the sums of the others are 7, 6 and 3.
HAND = np.log([[1.0], [2.0], [5.0]])
SHARES = np.array([1.0, 2.0, 5.0]) / 8
OTHERS = np.array([7.0, 6.0, 3.0])
ROOTS = np.sqrt([10.0, 5.0, 2.0])
L_3 = np.log(8 / 3)


@pytest.mark.parametrize(
    ("estimator", "encoder"),
    [
        (ScoreFunction(3, bounds.iwae), L_3 - SHARES),
        (VIMCO(3), L_3 - np.log((OTHERS + ROOTS) / 3) - SHARES),
        (OVIS(3, 1.0), L_3 - np.log(OTHERS / 2)),
        (OVIS(3, 0.25), L_3 - np.log(OTHERS / 2) - 0.75 * (SHARES + np.log(2 / 3))),
        (ReweightedWakeSleep(3, 0.25), 0.75 * SHARES),
        (DReGAlpha(3, 0.25), 0.25 * SHARES + 0.5 * SHARES**2),
        (PIWAE(3, 3), np.full(3, 1 / 3)),
        (PIWAEDReG(3, 1), SHARES**2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, WeightedEstimator) else "",
)
def test_coefficients_are_those_of_the_papers_by_hand(estimator, encoder):
    bound, decoder, actual = estimator.coefficients(jnp.asarray(HAND))
    np.testing.assert_allclose(bound, [L_3], rtol=1e-12)
    np.testing.assert_allclose(decoder[:, 0], SHARES, rtol=1e-12)
    # The estimators' numbers were made in single precision, before this test began.
    np.testing.assert_allclose(actual[:, 0], encoder, rtol=1e-7)


# Two groups of two: weights 1 and 3, 2 and 6.
GROUPED = np.log([[1.0], [3.0], [2.0], [6.0]])
IN_GROUP = np.array([1 / 4, 3 / 4, 1 / 4, 3 / 4])
GROUP_BOUNDS = np.log([2.0, 2.0, 4.0, 4.0])


@pytest.mark.parametrize(
    ("estimator", "encoder"),
    [
        (ScoreFunction(4, bounds.iwae, 2), (GROUP_BOUNDS - IN_GROUP) / 2),
        (DoublyReparameterized(4, bounds.iwae, 2), IN_GROUP**2 / 2),
        (PIWAE(4, 2), IN_GROUP / 2),
        (PIWAEDReG(4, 2), IN_GROUP**2 / 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, WeightedEstimator) else "",
)
def test_coefficients_of_groups_by_hand(estimator, encoder):
    bound, decoder, actual = estimator.coefficients(jnp.asarray(GROUPED))
    whole = isinstance(estimator, PIWAE | PIWAEDReG)
    np.testing.assert_allclose(bound, [np.log(3.0)] if whole else [(np.log(2) + np.log(4)) / 2], rtol=1e-12)
    np.testing.assert_allclose(decoder[:, 0], np.exp(GROUPED[:, 0]) / 12 if whole else IN_GROUP / 2, rtol=1e-12)
    np.testing.assert_allclose(actual[:, 0], encoder, rtol=1e-12)


def test_sleep_mixes_its_share_with_that_of_wake():
    model = rough_model(2, "bernoulli", (2, 1))
    x, key = jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), jax.random.key(0)
    wake_key, sleep_key = jax.random.split(key)
    of_both = lambda sleep, k: eqx.filter_jit(ReweightedWakeSleep(4, sleep=sleep))(model, x, k).gradient  # noqa: E731
    wake = of_both(0.0, wake_key)
    dream, latents = model.sample_joint(sleep_key, 2)
    sleep = jax.jit(jax.grad(lambda m: -jnp.mean(m.log_posterior(dream, latents))))(model)
    mixed = of_both(0.3, key)
    expected = jax.tree.map(lambda a, b: 0.7 * a + 0.3 * b, wake, sleep)
    assert distance(mixed, expected, "encoder") < 1e-12
    assert distance(mixed, wake, "decoder") < 1e-12


def test_coefficients_of_ovis_with_auxiliary_samples_by_hand():
    # L_2 of weights 1 and 2; sample i's baseline is the mean over the auxiliary weights 5 and 4, in its place.
    log_weights = jnp.log(jnp.array([[1.0], [2.0], [5.0], [4.0]]))
    bound, decoder, encoder = OVISMonteCarlo(4, 2).coefficients(log_weights)
    value = np.log(3 / 2)
    first = np.mean([np.log(7 / 2) - 5 / 7, np.log(6 / 2) - 4 / 6])
    second = np.mean([np.log(6 / 2) - 5 / 6, np.log(5 / 2) - 4 / 5])
    np.testing.assert_allclose(bound, [value], rtol=1e-12)
    np.testing.assert_allclose(decoder[:, 0], [1 / 3, 2 / 3, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(encoder[:, 0], [value - 1 / 3 - first, value - 2 / 3 - second, 0, 0], rtol=1e-12)


def test_vimcos_baseline_of_an_impossible_sample_is_made_of_the_others():
    log_weights = jnp.log(jnp.array([[0.0, 0.0], [2.0, 0.0], [8.0, 5.0]]))
    _, _, encoder = VIMCO(3).coefficients(log_weights)
    one = np.log(10 / 3) - np.log((10 + 4) / 3)
    np.testing.assert_allclose(encoder[:, 0], [one, np.log(10 / 8) - 0.2, np.log(10 / 2) - 0.8], rtol=1e-12)
    # Without its one possible sample the bound is -inf, and so is that sample's baseline.
    np.testing.assert_array_equal(encoder[:, 1], [0.0, 0.0, np.inf])


def test_piwaes_groups_keep_their_own_shares_in_single_precision():
    """A group 300 nats below the others: squares of its shares of all samples would be zero."""
    model = jax.tree.map(jnp.float32, rough_model(1, units=(3,)))
    x = jnp.asarray([[1.0, 0.0, 1.0]], jnp.float32)
    noise = tuple(jnp.concatenate([0.1 * n[:2], 60.0 * n[2:]]) for n in model.draw_noise(jax.random.key(0), 4, 1))
    noise = jax.tree.map(jnp.float32, noise)
    for kind, plain in ((PIWAE, Reparameterized), (PIWAEDReG, DoublyReparameterized)):
        ours, theirs = (
            eqx.filter_jit(weighted_gradient)(model, x, noise, e.coefficients, e.derivative)[1].encoder
            for e in (kind(4, 2), plain(4, bounds.iwae, 2))
        )
        for leaf, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert leaf.dtype == jnp.float32
            np.testing.assert_allclose(leaf, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Reparameterized(10, bounds.iwae, 3), "10 samples can't be divided into 3 groups"),
        (lambda: PIWAE(5, 2), "5 samples can't be divided into 2 groups"),
        (lambda: PIWAEDReG(4, 0), "`num_groups` must be an integer of at least 1, got 0"),
        (lambda: Reparameterized(0, bounds.iwae), "`num_samples` must be an integer of at least 1, got 0"),
        (lambda: DReGAlpha(3, float("nan")), "finite alpha, got nan"),
        (lambda: ReweightedWakeSleep(3, 1.5), "sleep must be from 0 to 1, got 1.5"),
        (lambda: ReweightedWakeSleep(1), "`num_samples` must be an integer of at least 2 for wake-phi, got 1"),
        (lambda: VIMCO(1), "`num_samples` must be an integer of at least 2 for VIMCO, got 1"),
        (lambda: OVIS(3, -0.1), "gamma must be from 0 to 1, got -0.1"),
        (lambda: OVIS(1), "`num_samples` must be an integer of at least 2 for OVIS, got 1"),
        (lambda: OVISMonteCarlo(2, 1), "`num_samples` must be an integer of at least 3 with 1 auxiliary, got 2"),
        (lambda: OVISMonteCarlo(2, 0), "`auxiliary` must be an integer of at least 1, got 0"),
    ],
)
def test_estimators_without_meaning_are_refused(make, problem):
    with pytest.raises(IWAEError, match=problem):
        make()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"bound": lambda b: b[None]}, r"a bound of shape \[2\], got of shape \[1, 2\]"),
        ({"decoder": lambda a: a[0]}, r"a decoder of shape \[3, 2\], got of shape \[2\]"),
        ({"encoder": lambda a: 1.0}, r"an? encoder of shape \[3, 2\], got of shape \[\]"),
    ],
)
def test_coefficients_of_ones_own_of_other_shapes_are_refused(change, problem):
    class Own(WeightedEstimator):
        derivative = "path"

        def coefficients(self, log_weights):
            found = DReGAlpha(self.num_samples, 0.0).coefficients(log_weights)
            return found._replace(**{name: to(getattr(found, name)) for name, to in change.items()})

    with pytest.raises(IWAEError, match=problem):
        Own(3)(rough_model(1), jnp.zeros((2, 3)), jax.random.key(0))


def test_a_derivative_that_there_is_not_is_refused():
    class Own(WeightedEstimator):
        def coefficients(self, log_weights):
            return DReGAlpha(self.num_samples, 0.0).coefficients(log_weights)

    with pytest.raises(IWAEError, match="Own needs a derivative: total, path or score"):
        Own(3)

    class Other(Own):
        derivative = "paths"  # pyright: ignore[reportAssignmentType]

    with pytest.raises(IWAEError, match="derivative is one of total, path, score, got 'paths'"):
        Other(3)(rough_model(1), jnp.zeros((2, 3)), jax.random.key(0))


def test_a_bound_that_is_no_function_of_each_examples_samples_is_refused():
    with pytest.raises(IWAEError, match=r"into \[batch\], but this one made \[\] of \[2, 3\]: reduce over axis 0"):
        slopes(jnp.mean, jnp.zeros((2, 3)))


@pytest.mark.parametrize("kind", [Reparameterized, StickingTheLanding, DoublyReparameterized])
def test_binary_latents_refuse_derivatives_through_their_samples(kind):
    model = rough_model(2, "bernoulli", (2, 1))
    with pytest.raises(IWAEError, match=r"binary latents have no (total|path) derivative"):
        kind(2, bounds.iwae)(model, jnp.zeros((1, 3)), jax.random.key(0))
