"""SUMO and randomized multilevel Monte Carlo, against models whose log p(x) is known."""

import warnings

import jax
import numpy as np
import pytest

from helpers.deep_gaussian import DeepGaussian
from iwae.errors import IWAEError
from iwae.evaluation import unbiased
from iwae.evaluation.likelihood import log_likelihood
from iwae.evaluation.unbiased import UnbiasedLikelihoods, rmlmc, sumo

METHODS = pytest.mark.parametrize("method", [sumo, rmlmc])
EXACT = DeepGaussian.random(1)
MODEL, X = EXACT.model(shift=0.3, widen=1.3), EXACT.sample(3)


@METHODS
@pytest.mark.parametrize("least_samples", [1, 2])
def test_the_mean_of_many_draws_is_the_exact_likelihood(method, least_samples):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = method(MODEL, X[:1], repeats=4000, least_samples=least_samples)
    (error,), (exact,) = found.stderr, EXACT.log_likelihood(X[:1])
    assert error < 0.05
    assert abs(found.log_likelihood[0] - exact) < 4 * error
    # The bound that the series begins with is not.
    bounds = log_likelihood(MODEL, np.repeat(X[:1], 4000, axis=0), num_samples=least_samples)
    assert exact - bounds.mean() > 4 * error + 4 * bounds.std() / 4000**0.5
    # On average as many samples as the docstring says.
    expected = {sumo: least_samples + 5.08, rmlmc: 4.41 * least_samples}[method]
    assert found.num_samples.mean() == pytest.approx(expected, rel=0.15)


@METHODS
def test_from_the_exact_posterior_every_draw_is_the_likelihood(method):
    found = method(EXACT.model(), X, repeats=20)
    np.testing.assert_allclose(found.values, np.tile(EXACT.log_likelihood(X), (20, 1)), atol=1e-3)


@METHODS
def test_a_draw_depends_on_the_seed_and_the_example_alone(method):
    whole = method(MODEL, X, repeats=30)
    np.testing.assert_array_equal(method(MODEL, X, repeats=7, indices=[2, 0]).values, whole.values[:7, [2, 0]])
    np.testing.assert_array_equal(method(MODEL, X[:1], repeats=30).num_samples, whole.num_samples[:, :1])
    other = method(MODEL, X, repeats=30, seed=1)
    assert not np.any(other.values == whole.values)
    assert len(np.unique(whole.values)) == whole.values.size
    with jax.enable_x64(True):
        np.testing.assert_array_equal(method(MODEL, X, repeats=7).values, whole.values[:7])


def test_progress_counts_draws():
    seen = []
    sumo(MODEL, X, repeats=30, on_examples=lambda done, total: seen.append((done, total)))
    assert seen == [(64, 90), (90, 90)]


def test_one_draw_that_is_all_of_the_variance_is_told(monkeypatch):
    values = np.zeros((200, 2))
    values[3, 1] = 5.0
    found = UnbiasedLikelihoods(values, np.ones((200, 2)))
    assert found.largest_share > 0.99
    assert UnbiasedLikelihoods(np.zeros((1, 2)), np.ones((1, 2))).largest_share == 0.0
    assert np.isnan(UnbiasedLikelihoods(np.zeros((1, 2)), np.ones((1, 2))).stderr).all()
    assert (
        repr(found) == "UnbiasedLikelihoods(NLL -0.01 ± 0.01 nats of 2 examples, 200 draws of each; 1.0 samples a draw)"
    )
    monkeypatch.setattr(unbiased, "TOO_LARGE_SHARE", 0.01)
    with pytest.warns(UserWarning, match="one of 1,200 draws has .*: the variance may be infinite"):
        sumo(MODEL, X, repeats=400)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"repeats": 0}, "`repeats` must be an integer of at least 1, got 0"),
        ({"least_samples": 0}, "`least_samples` must be an integer of at least 1, got 0"),
        ({"indices": [3]}, "`indices` must be from 0 to 2"),
    ],
)
@METHODS
def test_what_has_no_meaning_is_refused(method, settings, problem):
    with pytest.raises(IWAEError, match=problem):
        method(MODEL, X, **settings)
