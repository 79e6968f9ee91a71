"""Annealed importance sampling, against models whose log p(x) is known."""

import dataclasses
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from helpers.deep_gaussian import DeepGaussian
from helpers.toy import toy_dataset
from iwae.errors import IWAEError
from iwae.evaluation import annealed, chains
from iwae.evaluation.annealed import ais
from iwae.evaluation.batches import prepare
from iwae.evaluation.chains import AnnealedSettings, run_chains, temperatures, tune
from iwae.evaluation.examples import example_batches
from iwae.evaluation.likelihood import likelihoods
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE

LAYERS = pytest.mark.parametrize("layers", [1, 2, 3])
# A program is compiled for each number of layers and of steps and each start: tests share these.
FEW, MORE = 4, 30


@LAYERS
def test_from_the_exact_posterior_every_weight_is_the_likelihood(layers):
    exact = DeepGaussian.random(layers)
    x = exact.sample(5)
    found = ais(exact.model(), x, chains=3, steps=FEW, leapfrogs=3)
    np.testing.assert_allclose(found.log_weights, np.tile(exact.log_likelihood(x), (3, 1)), atol=2e-5)
    np.testing.assert_allclose(found.stderr, 0.0, atol=2e-5)
    np.testing.assert_allclose(found.effective_sample_size, 3.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("layers", "start", "steps"),
    [(1, "encoder", FEW), (1, "prior", 1), (2, "prior", FEW), (3, "encoder", FEW)],
)
def test_the_mean_weight_is_the_likelihood(layers, start, steps):
    # 20,000 runs of a tiny chain. A weight taken after the move, or a move at another temperature, shifts their mean.
    exact = DeepGaussian.random(layers)
    x = exact.sample(1)
    found = ais(
        exact.model(shift=0.25, widen=1.2), x, chains=20_000, steps=steps, leapfrogs=3, start=start, seed=layers
    )
    relative = np.exp(found.log_weights[:, 0] - exact.log_likelihood(x))
    error = relative.std() / np.sqrt(len(relative))
    assert error < (0.05 if start == "prior" and steps == 1 else 0.02)
    assert abs(relative.mean() - 1.0) < 4 * error
    assert found.stderr[0] == pytest.approx(error / relative.mean(), rel=1e-3)


def test_more_temperatures_come_closer_from_below():
    exact = DeepGaussian.random(2)
    x = exact.sample(1)
    gaps = []
    for steps in (1, FEW, MORE):
        found = ais(exact.model(shift=0.4, widen=1.3), x, chains=2000, steps=steps, leapfrogs=5, start="prior")
        values = exact.log_likelihood(x) - found.log_weights[:, 0]
        gaps.append((values.mean(), values.std() / np.sqrt(len(values))))
    for (high, high_error), (low, low_error) in itertools.pairwise(gaps):
        assert high - low > 3 * np.hypot(high_error, low_error)
    assert gaps[-1][0] < 0.1 * gaps[0][0]
    assert gaps[-1][0] > -4 * gaps[-1][1]


def quadrature(model, x):
    """log p(x) of a model with one latent unit, by the trapezium rule in float64."""
    grid = np.linspace(-10, 10, 4001)
    with jax.enable_x64(True):
        wide = jax.tree.map(jnp.float64, model)
        latents = jnp.broadcast_to(grid[:, None, None], (len(grid), len(x), 1))
        values = wide.log_joint(jnp.asarray(x, jnp.float64), (latents,))
        return logsumexp(np.asarray(values), axis=0) + np.log(grid[1] - grid[0])


def test_of_binary_data_it_is_the_integral():
    model = HierarchicalVAE.create(Architecture(6, (1,), ((5,),)), jax.random.key(0))
    model = jax.tree.map(lambda leaf: 2.5 * leaf, model)
    data = toy_dataset(binary=True)
    found = ais(model, data, chains=50, steps=40, leapfrogs=5, start="prior")
    expected = quadrature(model, np.asarray(prepare(model, data)))
    off = (found.log_likelihood - expected) / np.maximum(found.stderr, 1e-4)
    assert np.all(np.abs(off) < 4.5)
    assert abs(found.nll + expected.mean()) < 0.01
    assert found.nll_stderr == pytest.approx(found.log_likelihood.std(ddof=1) / np.sqrt(12))


def test_one_step_from_the_encoder_is_importance_sampling():
    model = HierarchicalVAE.create(Architecture(6, (4, 2), ((5,), (3,))), jax.random.key(0))
    model, data = jax.tree.map(lambda leaf: 0.3 * leaf, model), toy_dataset()
    found = ais(model, data, chains=1000, steps=1, leapfrogs=1)
    expected = likelihoods(model, data, num_samples=1000)
    assert np.all(np.abs(found.log_likelihood - expected.log_likelihood) < 6 * found.stderr)
    assert found.effective_sample_size.mean() == pytest.approx(expected.mean_effective_sample_size, rel=0.1)


def test_a_figure_does_not_depend_on_what_it_is_measured_with():
    start = "prior"
    model = HierarchicalVAE.create(Architecture(6, (4, 2), ((5,), (3,))), jax.random.key(0))
    data = toy_dataset(test=150)
    whole = ais(model, data, chains=5, steps=6, leapfrogs=2, start=start)
    order = np.random.default_rng(0).permutation(150)
    # In other company, in another order, and with fewer chains; and as after a kill, from the middle on.
    for chosen in (order, np.arange(70, 150), [149], range(3)):
        indices = np.array(chosen)
        part = ais(model, data, chains=5, steps=6, leapfrogs=2, start=start, indices=indices)
        np.testing.assert_array_equal(part.log_weights, whole.log_weights[:, indices])
        np.testing.assert_array_equal(part.acceptance, whole.acceptance[indices])
    fewer = ais(model, data, chains=2, steps=6, leapfrogs=2, start=start, indices=order[:9])
    np.testing.assert_array_equal(fewer.log_weights, whole.log_weights[:2, order[:9]])
    other = ais(model, data, chains=2, steps=6, leapfrogs=2, start=start, indices=[5], seed=1)
    assert np.all(other.log_weights != whole.log_weights[:2, [5]])
    assert len(np.unique(whole.log_weights)) == whole.log_weights.size


def tuned_chains(settings, change):
    exact = DeepGaussian.random(1)
    model = exact.model(shift=0.3, widen=1.3)
    (batch,) = example_batches(exact.sample(10), np.arange(10))
    tuned = tune(model, batch, settings)
    tuned = tuned._replace(log_steps=tuned.log_steps + change)
    return run_chains(model, tuned, settings, batch.every_chain(settings.chains))


def test_step_sizes_are_fixed_while_the_chains_count():
    # Steps that are far too large stay so to the last temperature: nothing is accepted, and nothing has moved.
    # Over so many that a slow adaptation would show.
    settings = AnnealedSettings(chains=8, steps=150, leapfrogs=3)
    large = tuned_chains(settings, 8.0)
    assert large.acceptance.shape == (80, 150)
    assert large.acceptance.max() < 0.01
    small = tuned_chains(settings, -8.0)
    assert small.acceptance.min() > 0.999
    np.testing.assert_allclose(small.ends, large.ends, atol=0.05)
    # Without moves, the weight is that of importance sampling with the first draw, whatever the path.
    once = tuned_chains(dataclasses.replace(settings, steps=1), 8.0)
    np.testing.assert_allclose(large.log_weights, once.log_weights, atol=1e-4)


@pytest.mark.parametrize(("layers", "start"), [(1, "prior"), (2, "encoder"), (2, "prior")])
def test_moves_are_accepted_as_often_as_they_were_tuned_for(layers, start):
    exact = DeepGaussian.random(layers)
    found = ais(exact.model(shift=0.3, widen=1.5), exact.sample(60), chains=4, steps=MORE, leapfrogs=4, start=start)
    assert found.acceptance.shape == (60,)
    assert found.acceptance_by_step.shape == (MORE,)
    assert found.acceptance.min() > chains.TARGET_ACCEPTANCE - 0.2
    assert abs(found.acceptance_by_step.mean() - chains.TARGET_ACCEPTANCE) < 0.08
    assert np.all(np.abs(found.acceptance_by_step - chains.TARGET_ACCEPTANCE) < 0.2)


def test_the_standard_error_is_the_spread_of_repeated_runs():
    exact = DeepGaussian.random(1)
    data = np.repeat(exact.sample(1), 400, axis=0)
    found = ais(exact.model(shift=0.25, widen=1.2), data, chains=64, steps=FEW, leapfrogs=3)
    assert np.mean(found.stderr) == pytest.approx(found.log_likelihood.std(), rel=0.15)
    single = ais(exact.model(), data[:2], chains=1, steps=1)
    assert np.all(np.isnan(single.stderr))
    assert single.log_likelihood.dtype == np.float64


def test_the_last_states_are_draws_from_the_posterior():
    exact = DeepGaussian.random(1)
    x = exact.sample(1)
    settings = AnnealedSettings(chains=4000, steps=MORE, leapfrogs=5, start="prior")
    (batch,) = example_batches(x, np.arange(1))
    ends = run_chains(exact.model(), tune(exact.model(), batch, settings), settings, batch.every_chain(4000)).ends
    weight, bias, sigma = exact.first_posterior()
    assert np.all(np.abs(ends.mean(0) - (x[0] @ weight + bias)) < 5 * sigma / np.sqrt(4000))
    np.testing.assert_allclose(ends.std(0), sigma, rtol=0.06)


@pytest.mark.parametrize("steps", [1, 2, 100, 10_000])
def test_temperatures_rise_from_zero_to_one(steps):
    beta = temperatures(steps)
    assert beta[0] == 0.0
    assert beta[-1] == 1.0
    assert len(beta) == steps + 1
    assert np.all(np.diff(beta) > 0)
    np.testing.assert_allclose(beta + beta[::-1], 1.0)


def test_log_weights_are_summed_without_rounding():
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32) - 3.0
    total, correction = jnp.zeros(()), jnp.zeros(())
    add = jax.jit(chains._add)
    for value in values[:3000]:
        total, correction = add(total, correction, value)
    expected = values[:3000].astype(np.float64).sum()
    assert float(total) + float(correction) == pytest.approx(expected, rel=1e-9)
    total, correction = chains._add(jnp.zeros(2), jnp.zeros(2), jnp.array([-jnp.inf, 1.0]))
    assert np.asarray(total + correction).tolist() == [-np.inf, 1.0]


def test_low_acceptance_is_warned_of(monkeypatch):
    exact = DeepGaussian.random(1)
    model, x = exact.model(shift=0.3), exact.sample(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ais(model, x, chains=2, steps=FEW)
    monkeypatch.setattr(
        annealed, "tune", lambda *given: (found := tune(*given))._replace(log_steps=found.log_steps + 8)
    )
    with pytest.warns(UserWarning, match="3 of 3 examples have moves that are accepted in under 10 %.*raise `steps`"):
        ais(model, x, chains=2, steps=FEW)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"steps": 0}, "`steps` must be an integer of at least 1, got 0"),
        ({"chains": 0}, "`chains` must be an integer of at least 1, got 0"),
        ({"leapfrogs": 2.5}, "`leapfrogs` must be an integer of at least 1, got 2.5"),
        ({"start": "data"}, "`start` must be 'encoder' or 'prior', got 'data'"),
        ({"indices": [3]}, "`indices` must be from 0 to 2, the rows of the data, got 3 to 3"),
        ({"indices": []}, "`indices` must be one or more integers"),
        ({"indices": [0.5]}, "`indices` must be one or more integers"),
        ({"data": np.zeros((3, 5))}, "5 dimensions, but the model was built for 4"),
        ({"data": np.full((3, 4), np.nan)}, "NaN or infinite"),
        ({"data": np.zeros((0, 4))}, "no examples"),
    ],
)
def test_bad_input_is_refused_in_a_line(given, problem):
    exact = DeepGaussian.random(1)
    with pytest.raises(IWAEError, match=problem):
        ais(exact.model(), **{"data": np.zeros((3, 4)), **given})


def test_binary_latents_are_refused_in_a_line():
    binary = Architecture(6, (3,), ((5,),), ("bernoulli",))
    model = HierarchicalVAE.create(binary, jax.random.key(0))
    with pytest.raises(IWAEError, match="needs Gaussian latent layers, and this model has binary ones"):
        ais(model, toy_dataset())


def test_progress_is_told():
    exact, told = DeepGaussian.random(1), []
    ais(exact.model(), exact.sample(70), chains=1, steps=1, on_examples=lambda *done: told.append(done))
    assert told == [(64, 70), (70, 70)]
