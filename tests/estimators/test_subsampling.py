"""A few samples stand for all in the backward pass: how they are drawn, and that the gradient stays unbiased."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers.exact_expectation import rough_model
from iwae import bounds
from iwae.errors import IWAEError
from iwae.estimators.bound import Reparameterized
from iwae.estimators.gradients import Coefficients
from iwae.estimators.importance_weighted import PIWAE, DReGAlpha
from iwae.estimators.objective import Objective, make_estimator
from iwae.estimators.score import ReweightedWakeSleep
from iwae.estimators.subsampling import choose, inclusion_probabilities
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE
from iwae.runs.config import RunConfig

# A program is compiled for each number of samples and each count.
COUNTS = st.sampled_from([(1, 1), (2, 1), (7, 1), (7, 3), (12, 5), (12, 11), (12, 12)])
LARGEST = 12
SIZES = hnp.arrays(np.float64, (LARGEST, 1), elements=st.one_of(st.just(0.0), st.floats(1e-12, 1e3)))
probabilities_of = jax.jit(inclusion_probabilities, static_argnums=1)
choose_of = jax.jit(choose, static_argnums=1)


@given(SIZES, COUNTS)
def test_inclusion_probabilities_are_in_proportion_but_for_those_that_are_certain(sizes, counts):
    k, count = counts
    sizes = sizes[:k]
    with jax.enable_x64(True):
        probabilities = np.asarray(probabilities_of(sizes, count))[:, 0]
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    np.testing.assert_allclose(probabilities.sum(), min(count, (sizes > 0).sum()), rtol=1e-9)
    uncertain = (probabilities < 1 - 1e-9) & (sizes[:, 0] > 0)
    ratios = probabilities[uncertain] / sizes[uncertain, 0]
    np.testing.assert_allclose(ratios, ratios[:1].repeat(len(ratios)), rtol=1e-9)
    if uncertain.any():
        # Whoever is certain is so because in proportion it would be expected more than once.
        certain = probabilities >= 1 - 1e-9
        assert (sizes[certain, 0] * ratios[0] >= 1 - 1e-9).all()


@given(SIZES, SIZES, COUNTS)
def test_sums_over_the_chosen_have_the_expectation_of_sums_over_all(decoder, encoder, counts):
    k, count = counts
    # The choice is a step function of its offset: a fine grid of offsets is its expectation, up to the grid's step.
    points = 1000
    offsets = (np.arange(points) + 0.5) / points
    # Different signs and, by the last axis, the same coefficients for every offset.
    a, b = (np.broadcast_to(values[:k], (k, points)) for values in (decoder, -encoder))
    coefficients: Any = (np.zeros(points), a, b)
    with jax.enable_x64(True):
        chosen, few = choose_of(Coefficients(*coefficients), count, offsets)
    for values, sampled in ((a, few.decoder), (b, few.encoder)):
        sums = np.zeros(k)
        np.add.at(sums, np.asarray(chosen).ravel(), np.asarray(sampled).ravel() / points)
        largest = np.abs(np.asarray(sampled)).max(initial=0.0)
        np.testing.assert_allclose(sums, values[:, 0], rtol=1e-6, atol=4 * largest / points)


def test_no_sample_is_drawn_twice_while_there_are_enough():
    log_weights = 3 * jax.random.normal(jax.random.key(0), (50, 200))
    weights = jax.nn.softmax(log_weights, axis=0)
    offsets = jax.random.uniform(jax.random.key(1), (200,))
    chosen, _ = choose(Coefficients(jnp.zeros(200), weights, weights), 8, offsets)
    assert all(len(set(column)) == 8 for column in np.asarray(chosen).T)
    # The largest weight of each example is far above 1/8, and always among them.
    largest = np.asarray(jnp.argmax(weights, axis=0))
    heavy = np.asarray(jnp.max(weights, axis=0)) > 1 / 8
    assert heavy.mean() > 0.9
    assert all(top in column for top, column in zip(largest[heavy], np.asarray(chosen).T[heavy], strict=True))


@pytest.mark.parametrize(
    "make",
    [
        lambda n: Reparameterized(6, bounds.iwae, num_backward=n),
        lambda n: DReGAlpha(6, 0.0, num_backward=n),
        lambda n: PIWAE(6, 3, num_backward=n),
        lambda n: ReweightedWakeSleep(6, num_backward=n),
    ],
    ids=["iwae", "dreg", "piwae", "rws"],
)
def test_gradients_have_the_expectation_of_those_with_all_samples(make):
    """The same example many times, each time with other noise; noise and choice are drawn apart from each other."""
    with jax.enable_x64(True):
        model = rough_model(2)
        x = jnp.broadcast_to(jnp.array([1.0, 0.0, 1.0]), (5_000, 3))

        def moments(estimator, key):
            gradients = jax.vmap(lambda one, k: estimator(model, one[None], k).gradient)(
                x, jax.random.split(key, len(x))
            )
            flat = jnp.concatenate([leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(gradients)], axis=1)
            return flat.mean(axis=0), flat.var(axis=0) / len(x)

        few, few_variance = jax.jit(lambda k: moments(make(2), k))(jax.random.key(0))
        full, full_variance = jax.jit(lambda k: moments(make(None), k))(jax.random.key(1))
        apart = jnp.abs(few - full) / jnp.sqrt(few_variance + full_variance + 1e-30)
        clear = jnp.abs(full) / jnp.sqrt(full_variance + 1e-30)
        assert float(apart.max()) < 5
        assert float(clear.max()) > 10


def test_with_all_samples_chosen_nothing_changes():
    with jax.enable_x64(True):
        model, x, key = rough_model(2), jnp.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), jax.random.key(0)
        noise_key, _ = jax.random.split(key)
        value, gradient = eqx.filter_jit(DReGAlpha(5, 0.0, num_backward=5))(model, x, key)
        expected_value, expected = eqx.filter_jit(DReGAlpha(5, 0.0))(model, x, noise_key)
    np.testing.assert_allclose(value, expected_value, rtol=1e-12)
    for mine, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_the_backward_pass_of_a_few_costs_a_few():
    """Operations as the compiler counts them, at the paper's sizes and k = 50."""
    x = jax.ShapeDtypeStruct((20, 784), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    for layers in (1, 2):
        model = eqx.filter_eval_shape(HierarchicalVAE.create, Architecture.paper(layers, 784), jax.random.key(0))
        flops = []
        for backward in (None, 4):
            estimator = make_estimator(Objective("iwae", k=50, estimator="dreg", backward=backward))
            costs = jax.jit(estimator.__call__).lower(model, x, key).compile().cost_analysis()
            assert costs is not None
            flops.append(costs["flops"])
        assert flops[1] / flops[0] < 0.5


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: DReGAlpha(5, 0.0, num_backward=0), "`num_backward` must be an integer of at least 1, got 0"),
        (lambda: DReGAlpha(5, 0.0, num_backward=6), "num_backward must be at most num_samples, which is 5, got 6"),
        (lambda: Objective("iwae", k=5, backward=6), "`backward` must be at most the 5 samples drawn, got 6"),
        (lambda: Objective("iwae", k=5, backward=2.5), "`backward` must be an integer of at least 1, got 2.5"),  # pyright: ignore
        (lambda: Objective.parse("iwae:backward=x", 5), "backward must be an integer, got 'x'"),
    ],
)
def test_numbers_without_meaning_are_refused(make, problem):
    with pytest.raises(IWAEError, match=problem):
        make()


def test_it_has_a_name_in_every_place():
    objective = Objective.parse("miwae:dreg:m=2:backward=7", 5)
    assert objective == Objective("miwae", k=5, m=2, estimator="dreg", backward=7)
    assert make_estimator(objective).num_backward == 7
    config = RunConfig.of(objective="iwae", k=50, backward=4)
    assert config.name() == "mnist-iwae-k50-backward4-1layer-seed0"
    assert RunConfig.from_json(config.to_json()) == config
