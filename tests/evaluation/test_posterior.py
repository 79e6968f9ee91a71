"""Draws from the posterior, and L_k at a ladder of k, on models that are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.deep_gaussian import DeepGaussian
from helpers.toy import toy_dataset
from iwae import bounds
from iwae.errors import IWAEError
from iwae.evaluation import likelihood
from iwae.evaluation.chains import AnnealedSettings
from iwae.evaluation.importance_weights import example_log_weights, pareto_k
from iwae.evaluation.likelihood import ladder, likelihoods
from iwae.evaluation.posterior import annealed_posterior, posterior
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE


def check_moments(draws, exact, x):
    weight, bias, sigma = exact.first_posterior()
    mean = x[0] @ weight + bias
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * sigma / np.sqrt(len(draws)))
    np.testing.assert_allclose(draws.std(axis=0), sigma, rtol=0.1)


def test_resampled_draws_come_from_the_posterior_and_not_from_the_encoder():
    exact = DeepGaussian.random(2)
    model, x = exact.model(shift=0.3, widen=1.2), np.repeat(exact.sample(1), 2000, axis=0)
    first, second = posterior(model, x, num_samples=400)
    assert first.shape == second.shape == (1, 2000, 2)
    check_moments(first[0], exact, x[:1])
    encoded, _ = posterior(model, x, num_samples=1)
    with pytest.raises(AssertionError):
        check_moments(encoded[0], exact, x[:1])
    # Jointly: the layers of a draw belong together.
    together = np.corrcoef(np.concatenate([first[0], second[0]], axis=1).T)[:2, 2:].diagonal()
    assert np.all(together > 0.2)


def test_the_ends_of_annealed_chains_come_from_the_posterior():
    exact = DeepGaussian.random(1)
    x = exact.sample(1)
    settings = AnnealedSettings(chains=2000, steps=20, leapfrogs=4)
    (draws,) = annealed_posterior(exact.model(shift=0.3, widen=1.2), x, num_draws=2000, settings=settings)
    assert draws.shape == (2000, 1, 2)
    weight, bias, sigma = exact.first_posterior()
    assert np.all(np.abs(draws[:, 0].mean(0) - (x[0] @ weight + bias)) < 8 * sigma / np.sqrt(2000))
    np.testing.assert_allclose(draws[:, 0].std(0), sigma, rtol=0.12)


@pytest.mark.parametrize("kinds", [("gaussian", "gaussian"), ("bernoulli", "bernoulli")])
def test_draws_are_functions_of_seed_and_index(kinds):
    model = HierarchicalVAE.create(Architecture(6, (4, 2), ((5,), (3,)), kinds), jax.random.key(0))
    data = toy_dataset(test=80)
    whole = posterior(model, data, num_samples=50, num_draws=3)
    part = posterior(model, data, num_samples=50, num_draws=3, indices=[77, 5])
    for layer, same, units in zip(whole, part, (4, 2), strict=True):
        assert layer.shape == (3, 80, units)
        np.testing.assert_array_equal(same, layer[:, [77, 5]])


def test_the_ladder_is_the_likelihood_at_every_k():
    model = HierarchicalVAE.create(Architecture(6, (4, 2), ((5,), (3,))), jax.random.key(0))
    data = toy_dataset(test=70)
    rungs = ladder(model, data, [50, 2, 333])
    assert [rung.num_samples for rung in rungs] == [2, 50, 333]
    log_weights = example_log_weights(model, data, num_samples=333).T
    for rung in rungs:
        expected = likelihoods(model, data, num_samples=rung.num_samples)
        np.testing.assert_allclose(rung.log_likelihood, expected.log_likelihood, atol=1e-4)
        np.testing.assert_allclose(rung.effective_sample_size, expected.effective_sample_size, rtol=1e-3)
        weights = np.exp(log_weights[: rung.num_samples].astype(np.float64))
        delta = weights.var(axis=0) / weights.mean(axis=0) ** 2 / (2 * rung.num_samples)
        np.testing.assert_allclose(rung.delta, delta, rtol=1e-3, atol=1e-6)
        if rung.num_samples > 2:
            np.testing.assert_allclose(rung.jvi2, bounds.jvi2(jnp.asarray(log_weights[: rung.num_samples])), atol=1e-3)
    assert np.all(np.isnan(rungs[0].jvi2))
    assert np.all(rungs[2].delta <= 0.5)
    assert np.isnan(rungs[1].pareto_k).all()
    np.testing.assert_allclose(rungs[2].pareto_k, pareto_k(log_weights.T), atol=1e-3)


def test_a_ladder_of_full_blocks_has_the_bits_of_each_k_alone(monkeypatch):
    model, data = HierarchicalVAE.create(Architecture(6, (4,), ((5,),)), jax.random.key(0)), toy_dataset(test=50)
    monkeypatch.setattr(likelihood, "LOG_WEIGHTS_AT_ONCE", 150)
    for rung in ladder(model, data, [50, 400], seed=2):
        alone = likelihoods(model, data, num_samples=rung.num_samples, seed=2)
        np.testing.assert_array_equal(rung.log_likelihood, alone.log_likelihood)
        np.testing.assert_array_equal(rung.effective_sample_size, alone.effective_sample_size)
        np.testing.assert_allclose(rung.jvi2, alone.jvi2, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(rung.pareto_k, alone.pareto_k)


def test_jvi2_and_the_delta_method_say_where_the_likelihood_lies():
    exact = DeepGaussian.random(2)
    x = np.repeat(exact.sample(1), 3000, axis=0)
    (rung,) = ladder(exact.model(shift=0.25, widen=1.2), x, [20])
    gap = exact.log_likelihood(x[:1])[0] - rung.log_likelihood
    error = gap.std() / np.sqrt(len(gap))
    assert gap.mean() > 5 * error
    assert rung.delta.mean() == pytest.approx(gap.mean(), rel=0.3)
    corrected = exact.log_likelihood(x[:1])[0] - rung.jvi2
    assert abs(corrected.mean()) < 0.15 * gap.mean() + 3 * corrected.std() / np.sqrt(len(corrected))


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda m, x: posterior(m, x, num_samples=0), "`num_samples` must be an integer of at least 1, got 0"),
        (lambda m, x: posterior(m, x, num_draws=0), "`num_draws` must be an integer of at least 1, got 0"),
        (lambda m, x: posterior(m, x, num_samples=10**6), "`num_samples` must be at most 100,000, got 1000000"),
        (lambda m, x: annealed_posterior(m, x, num_draws=0), "`num_draws` must be an integer of at least 1, got 0"),
        (lambda m, x: ladder(m, x, []), "`ks` must be one or more numbers of samples, got none"),
        (lambda m, x: ladder(m, x, [0, 5]), "`ks` must be an integer of at least 1, got 0"),
    ],
)
def test_bad_input_is_refused_in_a_line(call, problem):
    exact = DeepGaussian.random(1)
    with pytest.raises(IWAEError, match=problem):
        call(exact.model(), exact.sample(2))
