"""Identities and order of the bounds, over log weights of any size."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import brentq
from scipy.special import logsumexp

from iwae import bounds
from iwae.errors import IWAEError

# One program for a shape instead of one for each of their operations: compiling is most of this file's time.
jvi, jvi2 = jax.jit(bounds.jvi), jax.jit(bounds.jvi2)
tvo, tvo_moments = jax.jit(bounds.tvo, static_argnums=1), jax.jit(bounds.tvo_moments, static_argnums=1)

LOG_WEIGHTS = hnp.arrays(
    np.float32,
    st.tuples(st.sampled_from([1, 2, 7]), st.just(2)),  # few shapes: each is compiled
    elements=st.floats(-1e5, 1e5, width=32) | st.just(-np.inf),
)


@given(LOG_WEIGHTS)
def test_iwae_is_log_mean_exp(log_weights):
    expected = logsumexp(log_weights.astype(np.float64), axis=0) - np.log(len(log_weights))
    actual = np.asarray(bounds.iwae(jnp.asarray(log_weights)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


@given(LOG_WEIGHTS)
def test_elbo_below_iwae_below_max(log_weights):
    elbo = np.asarray(bounds.elbo(jnp.asarray(log_weights)))
    iwae = np.asarray(bounds.iwae(jnp.asarray(log_weights)))
    slack = 1e-5 * (1.0 + np.max(np.abs(np.where(np.isfinite(log_weights), log_weights, 0.0))))
    assert not np.any(np.isnan(elbo))
    assert not np.any(np.isnan(iwae))
    assert np.all(elbo <= iwae + slack)
    assert np.all(iwae <= log_weights.max(0) + slack)


@given(hnp.arrays(np.float32, (1, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_with_one_sample_both_bounds_are_the_log_weight_itself(log_weights):
    np.testing.assert_array_equal(bounds.iwae(jnp.asarray(log_weights)), log_weights[0])
    np.testing.assert_array_equal(bounds.elbo(jnp.asarray(log_weights)), log_weights[0])


def test_gradient_of_iwae_is_the_normalized_weight():
    log_weights = jnp.array([[-90.0, 0.0], [-88.0, -np.inf], [-95.0, 1.0]])
    gradient = jax.grad(lambda w: bounds.iwae(w).sum())(log_weights)
    weights = np.exp(np.asarray(log_weights) - np.asarray(log_weights).max(0))
    np.testing.assert_allclose(gradient, weights / weights.sum(0), rtol=1e-6)


def test_the_largest_weight_gets_the_largest_share():
    gradient = jax.grad(lambda w: bounds.iwae(w).sum())(jnp.array([[-3.0], [-1.0], [-2.0]]))
    assert int(jnp.argmax(gradient[:, 0])) == 1


def test_the_sum_over_samples_comes_before_the_mean_over_the_batch():
    log_weights = jnp.array([[0.0, -10.0], [-10.0, 0.0]])
    np.testing.assert_allclose(bounds.iwae(log_weights), np.log([0.5, 0.5]), atol=1e-4)


HUGE = float(np.float32(1e30))
# Any size, -inf among them, and several samples.
WILD = hnp.arrays(
    np.float32,
    st.tuples(st.sampled_from([2, 3, 7]), st.just(2)),
    elements=st.floats(-1.0000000150474662e30, 1.0000000150474662e30, width=32)
    | st.floats(-50, 50, width=32)
    | st.just(-np.inf),
)
ALPHAS = st.floats(-5.0, 5.0) | st.sampled_from([0.0, 1.0, 1.0 - 1e-6, 1.0 + 1e-6, 0.5, -1.0])


def slack(log_weights: np.ndarray) -> np.ndarray:
    """Rounding that float32 allows, per example."""
    finite = np.where(np.isfinite(log_weights), np.abs(log_weights), 0.0)
    return 4e-6 * (1.0 + finite.max(axis=0))


def below(low: object, high: object, log_weights: np.ndarray) -> bool:
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    assert not np.any(np.isnan(low))
    assert not np.any(np.isnan(high))
    return bool(np.all((low <= high + slack(log_weights)) | np.isneginf(low)))


@given(WILD, ALPHAS, ALPHAS)
def test_renyi_falls_in_alpha_between_its_limits(log_weights, one, other):
    w = jnp.asarray(log_weights)
    low, high = max(one, other), min(one, other)
    assert below(bounds.renyi(w, low), bounds.renyi(w, high), log_weights)
    assert below(bounds.renyi(w, high), bounds.vr_max(w), log_weights)


@given(WILD, st.floats(0.0, 1.0))
def test_the_bounds_keep_their_order_for_any_log_weights(log_weights, beta):
    w = jnp.asarray(log_weights)
    order = [bounds.elbo(w), bounds.ciwae(w, beta), bounds.iwae(w), bounds.cubo(w), bounds.vr_max(w)]
    for i, low in enumerate(order):
        for high in order[i:]:
            assert below(low, high, log_weights)


@given(WILD)
def test_jvi_is_never_nan_and_not_below_the_bound_that_it_corrects(log_weights):
    # L_k is at least the average of the L_{k-1}, sample by sample, so that the correction is upwards.
    w = jnp.asarray(log_weights)
    assert below(bounds.iwae(w), jvi(w), log_weights)


@given(WILD)
def test_leave_one_out_is_the_sum_of_the_others(log_weights):
    actual = np.asarray(bounds.leave_one_out(jnp.asarray(log_weights)), np.float64)
    assert not np.any(np.isnan(actual))
    for i in range(len(log_weights)):
        expected = logsumexp(np.delete(log_weights, i, axis=0).astype(np.float64), axis=0)
        close = np.abs(actual[i] - expected) <= slack(log_weights)
        assert np.all(close | (actual[i] == expected))


@given(WILD)
def test_special_cases_are_those_bounds(log_weights):
    w = jnp.asarray(log_weights)
    np.testing.assert_array_equal(bounds.renyi(w, 0.0), bounds.iwae(w))
    np.testing.assert_array_equal(bounds.renyi(w, 1.0), bounds.elbo(w))
    np.testing.assert_array_equal(bounds.ciwae(w, 0.0), bounds.iwae(w))
    np.testing.assert_array_equal(bounds.ciwae(w, 1.0), bounds.elbo(w))
    np.testing.assert_array_equal(bounds.cubo(w), bounds.renyi(w, -1.0))
    np.testing.assert_allclose(bounds.miwae(w[None]), bounds.iwae(w), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(bounds.miwae(w[:, None]), bounds.elbo(w), rtol=1e-6, atol=1e-6)


@settings(max_examples=40)
@given(WILD, st.sampled_from([1, 4]), st.floats(0.01, 0.99))
def test_tvo_lies_between_the_elbo_and_the_largest_log_weight(log_weights, partitions, first_beta):
    w = jnp.asarray(log_weights)
    for value in (tvo(w, partitions, first_beta), tvo_moments(w, partitions)):
        assert below(bounds.elbo(w), value, log_weights)
        assert below(value, bounds.vr_max(w), log_weights)
    np.testing.assert_allclose(tvo(w, 1, first_beta), bounds.elbo(w), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(tvo_moments(w, 1), bounds.elbo(w), rtol=1e-5, atol=1e-5)


def tvo_by_hand(log_weights: np.ndarray, betas: np.ndarray) -> np.ndarray:
    total = np.zeros(log_weights.shape[1])
    for beta, end in zip(betas, [*betas[1:], 1.0], strict=True):
        shares = np.exp(beta * log_weights - logsumexp(beta * log_weights, axis=0))
        total += (end - beta) * np.sum(shares * log_weights, axis=0)
    return total


def test_tvo_is_the_left_sum_over_intervals_equally_apart_in_log_beta():
    log_weights = np.random.default_rng(0).normal(size=(7, 4)) * 3 - 90
    betas = np.array([0.0, 0.05, 0.05 ** (2 / 3), 0.05 ** (1 / 3)])
    actual = tvo(jnp.asarray(log_weights, jnp.float32), 4, 0.05)
    np.testing.assert_allclose(actual, tvo_by_hand(log_weights, betas), rtol=1e-6)


def test_by_moments_the_mean_of_log_w_grows_equally():
    log_weights = np.random.default_rng(1).normal(size=(9, 1)) * 4 - 90

    def mean(beta: float) -> float:
        shares = np.exp(beta * log_weights - np.asarray(logsumexp(beta * log_weights)))
        return float(np.sum(shares * log_weights))

    wanted = np.linspace(mean(0.0), mean(1.0), 6)[1:5]
    betas = np.array([0.0, *(brentq(lambda beta, m=m: mean(beta) - m, 0.0, 1.0) for m in wanted)])
    actual = tvo_moments(jnp.asarray(log_weights, jnp.float32), 5)
    np.testing.assert_allclose(actual, tvo_by_hand(log_weights, betas), rtol=1e-6)


def test_tvo_tends_to_the_log_of_the_mean_weight():
    """Where the samples are all that there is, the integral is log of the mean weight, L_k."""
    log_weights = jnp.asarray(np.random.default_rng(2).normal(size=(6, 3)) * 2, jnp.float32)
    limit = np.asarray(bounds.iwae(log_weights))
    far, near = (limit - np.asarray(tvo_moments(log_weights, partitions)) for partitions in (20, 2000))
    assert np.all(np.asarray(far) > 0)
    np.testing.assert_allclose(near, 0.0, atol=3e-3)
    np.testing.assert_allclose(tvo(log_weights, 3000, 1e-3), limit, atol=1e-2)


@pytest.mark.parametrize("alpha", [-3.0, -1.0, 0.3, 0.999999, 1.000001, 1.7, 4.0])
def test_renyi_and_its_gradient_are_those_of_double_precision(alpha):
    rng = np.random.default_rng(0)
    for spread in (1e-3, 1.0, 30.0):
        log_weights = rng.normal(size=(6, 5)) * spread - 90
        power = 1.0 - alpha
        centered = power * (log_weights - log_weights.mean(0))
        expected = log_weights.mean(0) + np.log1p(np.mean(np.expm1(centered), axis=0)) / power
        actual, gradient = jax.value_and_grad(lambda w: bounds.renyi(w, alpha).sum())(
            jnp.asarray(log_weights, jnp.float32)
        )
        values = bounds.renyi(jnp.asarray(log_weights, jnp.float32), alpha)
        np.testing.assert_allclose(values, expected, rtol=1e-5)
        assert float(actual) == pytest.approx(expected.sum(), rel=1e-5)
        shares = np.exp(power * log_weights - logsumexp(power * log_weights, axis=0))
        np.testing.assert_allclose(gradient, shares, rtol=2e-4 * (1 + spread), atol=1e-6)


def test_jvi_is_nowozins_formula():
    log_weights = np.random.default_rng(0).normal(size=(5, 4)) * 3
    without = [logsumexp(np.delete(log_weights, i, 0), axis=0) - np.log(4) for i in range(5)]
    expected = 5 * (logsumexp(log_weights, axis=0) - np.log(5)) - 4 * np.mean(without, axis=0)
    np.testing.assert_allclose(jvi(jnp.asarray(log_weights, jnp.float32)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("bound", "problem"),
    [
        (lambda w: bounds.ciwae(w, 1.5), "beta must be from 0 to 1, got 1.5"),
        (lambda w: bounds.ciwae(w, float("nan")), "beta must be from 0 to 1, got nan"),
        (lambda w: bounds.renyi(w, float("-inf")), "finite alpha, got -inf: vr_max"),
        (lambda w: bounds.jvi(w[:1]), "k of at least 2"),
        (lambda w: bounds.jvi2(w[:2]), "k of at least 3"),
        (lambda w: bounds.tvo(w, 0, 0.1), "`partitions` must be an integer of at least 1, got 0"),
        (lambda w: bounds.tvo(w, 3, 1.0), "first beta must lie between 0 and 1, got 1"),
        (lambda w: bounds.tvo_moments(w, 0), "`partitions` must be an integer of at least 1, got 0"),
    ],
)
def test_parameters_without_meaning_are_refused(bound, problem):
    with pytest.raises(IWAEError, match=problem):
        bound(jnp.zeros((3, 2)))


# What `bound` does where one sample, all but one and all are impossible, and where it is finite.
IMPOSSIBLE = np.array(
    [
        [0.0, -np.inf, -np.inf, 1e30],
        [-3.0, -np.inf, -np.inf, -1e30],
        [1.0, 2.0, -np.inf, 0.0],
    ],
    np.float32,
)


@pytest.mark.parametrize(
    "bound",
    [
        bounds.elbo,
        bounds.iwae,
        bounds.cubo,
        bounds.vr_max,
        bounds.jvi,
        bounds.jvi2,
        lambda w: bounds.ciwae(w, 0.3),
        lambda w: bounds.renyi(w, 0.5),
        lambda w: bounds.renyi(w, 1.5),
        lambda w: bounds.renyi(w, -2.0),
        lambda w: bounds.tvo(w, 4, 0.1),
        lambda w: bounds.tvo_moments(w, 4),
    ],
)
def test_derivatives_are_finite_where_the_bound_is(bound):
    for column in IMPOSSIBLE.T:
        log_weights = jnp.asarray(column[:, None])
        value, slope = bound(log_weights), jax.grad(lambda w: bound(w).sum())(log_weights)
        assert not jnp.isnan(value[0])
        if jnp.isfinite(value[0]):
            assert jnp.all(jnp.isfinite(slope)), (column, slope)
            # Every bound here commutes with adding a constant.
            assert float(slope.sum()) == pytest.approx(1.0, abs=1e-4)


def leave_two_out(log_weights: np.ndarray) -> float:
    """JVI-2 of log weights `[k]` as Nowozin (2018) writes it, from every bound that leaves out one or two samples."""
    k = len(log_weights)

    def mean_without(count: int) -> float:
        left = [np.delete(log_weights, out) for out in itertools.combinations(range(k), count)]
        return float(np.mean([logsumexp(values) - np.log(k - count) for values in left]))

    return k**2 / 2 * mean_without(0) - (k - 1) ** 2 * mean_without(1) + (k - 2) ** 2 / 2 * mean_without(2)


@pytest.mark.parametrize("k", [3, 4, 8, 9, 12, 60])
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 5.0, 30.0])
def test_jvi2_leaves_out_every_pair(k, spread):
    log_weights = (np.random.default_rng(k).normal(size=(k, 3)) * spread - 90).astype(np.float32)
    expected = [leave_two_out(column) for column in log_weights.T.astype(np.float64)]
    actual = jvi2(jnp.asarray(log_weights))
    np.testing.assert_allclose(actual, expected, rtol=3e-6, atol=2e-5)


def test_jvi2_keeps_its_digits_where_k_is_large():
    # k^2 / 2 is 12,500,000 here: written out in float32, no digit would be left.
    log_weights = np.random.default_rng(0).normal(size=(5000, 1)) * 2 - 90
    weights = np.exp(log_weights[:, 0] + 90)
    total, k = weights.sum(), 5000
    pairs = np.log(total - weights[:, None] - weights)[np.triu_indices(k, 1)].mean() - np.log(k - 2)
    singles = np.log(total - weights).mean() - np.log(k - 1)
    expected = k**2 / 2 * (np.log(total / k)) - (k - 1) ** 2 * singles + (k - 2) ** 2 / 2 * pairs - 90
    np.testing.assert_allclose(jvi2(jnp.asarray(log_weights, jnp.float32)), expected, atol=3e-5)


def test_jvi2_of_fewer_than_three_possible_samples_is_infinite():
    column = np.array([[-1.0, -2.0, -3.0, -np.inf, -np.inf]], np.float32).T
    cases = np.concatenate([np.where(np.arange(5)[:, None] < count, column, -np.inf) for count in range(4)], axis=1)
    values = np.asarray(jvi2(jnp.asarray(cases)))
    np.testing.assert_array_equal(values[:3], [-np.inf, np.inf, -np.inf])
    assert np.isfinite(values[3])
