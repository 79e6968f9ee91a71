"""Bounds of log p(x) from both sides, on data that are simulated from models whose log p(x) is known."""

import jax
import numpy as np
import pytest

from helpers.deep_gaussian import DeepGaussian
from iwae.errors import IWAEError
from iwae.evaluation.bidirectional import annealed_bracket, certify, importance_brackets, simulate
from iwae.evaluation.chains import AnnealedSettings
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE


def mean_and_error(values):
    return values.mean(), values.std() / np.sqrt(len(values))


def test_both_sides_enclose_the_likelihood():
    exact = DeepGaussian.random(2)
    model = exact.model(shift=0.35, widen=1.3)
    x, latents = simulate(model, 600, seed=0)
    likelihood = exact.log_likelihood(x)
    brackets = importance_brackets(model, x, latents, [1, 4, 64])
    brackets += [annealed_bracket(model, x, latents, AnnealedSettings(2, steps, 4)) for steps in (2, 8, 32)]
    for first in (0, 3):
        gaps = [bracket.gap for bracket in brackets[first : first + 3]]
        assert gaps[0] > gaps[1] > gaps[2] > 0
        assert gaps[2] < 0.2 * gaps[0]
    for bracket in brackets:
        below, below_error = mean_and_error(likelihood - bracket.lower)
        above, above_error = mean_and_error(bracket.upper - likelihood)
        assert below > -3 * below_error
        assert above > -3 * above_error
        assert bracket.gap == pytest.approx(below + above)
        assert bracket.stderr == pytest.approx(np.std(bracket.upper - bracket.lower, ddof=1) / np.sqrt(600))
    # A single weight is off by much, on either side: the bounds are seen to hold, not only not to fail.
    for side in (likelihood - brackets[0].lower, brackets[0].upper - likelihood):
        mean, error = mean_and_error(side)
        assert mean > 5 * error


def test_a_single_backward_weight_is_unbiased_for_the_inverse():
    exact = DeepGaussian.random(2)
    model = exact.model(shift=0.2, widen=1.2)
    x, latents = simulate(model, 4000, seed=1)
    settings = AnnealedSettings(1, 4, 3)
    inverse = np.exp(exact.log_likelihood(x) - annealed_bracket(model, x, latents, settings).upper)
    mean, error = mean_and_error(inverse)
    assert error < 0.03
    assert abs(mean - 1.0) < 4 * error


def test_with_the_exact_posterior_there_is_no_gap():
    exact = DeepGaussian.random(3)
    model = exact.model()
    for bracket in certify(model, num_examples=5, ks=[1, 10], steps=[3], settings=AnnealedSettings(chains=2)):
        np.testing.assert_allclose(bracket.upper, bracket.lower, atol=1e-4)


def test_budgets_come_in_order_and_repeat():
    model = DeepGaussian.random(1).model(shift=0.3)
    given = {"num_examples": 3, "ks": [8, 2], "steps": [2, 5], "settings": AnnealedSettings(chains=4), "seed": 7}
    one, other = list(certify(model, **given)), list(certify(model, **given))
    assert [(b.method, b.samples, b.steps) for b in one] == [
        ("importance", 2, 0),
        ("importance", 8, 0),
        ("ais", 4, 2),
        ("ais", 4, 5),
    ]
    with jax.enable_x64(True):
        told = list(certify(model, **given))
    for a, *others in zip(one, other, told, strict=True):
        for b in others:
            np.testing.assert_array_equal(a.lower, b.lower)
            np.testing.assert_array_equal(a.upper, b.upper)


def test_simulated_examples_are_functions_of_their_number_and_come_from_the_model():
    exact = DeepGaussian.random(2)
    x, latents = simulate(exact.model(), 4000, seed=0)
    fewer, _ = simulate(exact.model(), 3, seed=0)
    np.testing.assert_allclose(x[:3], fewer, rtol=1e-6)
    assert latents.shape == (4000, 4)
    np.testing.assert_allclose(np.cov(x.T), exact.covariance, atol=0.2)
    np.testing.assert_allclose(np.cov(latents.T).diagonal(), np.concatenate(exact.variances), rtol=0.12)


def test_what_makes_no_sense_is_refused_before_anything_runs():
    model = DeepGaussian.random(1).model()
    with pytest.raises(IWAEError, match="`num_examples` must be an integer of at least 1, got 0"):
        certify(model, num_examples=0)
    with pytest.raises(IWAEError, match="`steps` must be an integer of at least 1, got 0"):
        certify(model, steps=[10, 0])
    with pytest.raises(IWAEError, match="`ks` must be one or more numbers of samples"):
        certify(model, ks=[])
    binary = HierarchicalVAE.create(Architecture(6, (3,), ((5,),), ("bernoulli",)), jax.random.key(0))
    with pytest.raises(IWAEError, match="needs Gaussian latent layers"):
        certify(binary)
