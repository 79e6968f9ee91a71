"""Importance weights against figures by hand, and Pareto k-hat against the shapes that it estimates."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iwae import bounds
from iwae.errors import IWAEError
from iwae.evaluation.importance_weights import (
    Tail,
    mean_effective_sample_size,
    pareto_k,
    pareto_limit,
    relative_log_weights,
    weight_above_mean,
)


def test_the_share_of_the_weight_above_the_mean() -> None:
    log_weights = np.log(np.array([[1.0, 1.0, 6.0, 8.0], [1.0, 1.0, 1.0, 1.0]]))
    relative = relative_log_weights(log_weights)
    # The mean weight of the first example is 4: the last two carry 14 of 16. No sample of the second is above its mean.
    assert weight_above_mean(relative) == pytest.approx((14 / 16 + 0) / 2)
    assert math.isnan(weight_above_mean(np.zeros((0, 4))))


def test_relative_log_weights_without_any_weight() -> None:
    values = np.array([[-np.inf, -np.inf], [0.0, -np.inf]])
    np.testing.assert_allclose(relative_log_weights(values), [[np.log(2.0), -np.inf]])


def test_effective_sample_size_by_hand():
    # (1 + 1 + 2)^2 / (1 + 1 + 4) and 1: weights of any size, one that is zero.
    log_weights = np.add(np.log([[1.0, 1.0, 2.0], [1.0, 1e-300, 1e-300]]), [[-900.0], [500.0]])
    assert mean_effective_sample_size(log_weights) == pytest.approx((16 / 6 + 1) / 2)


def test_the_limit_of_pareto_k_falls_with_the_number_of_samples():
    assert pareto_limit(100) == pytest.approx(0.5)
    assert pareto_limit(1000) == pytest.approx(2 / 3)
    assert pareto_limit(10_000) == 0.7


@pytest.mark.parametrize("count", [100, 225, 226, 1000])
def test_pareto_k_is_that_of_arviz(count):
    from arviz_stats.base.array import array_stats

    rng = np.random.default_rng(count)
    rows = rng.normal(size=(12, count)) * np.linspace(0.1, 12.0, 12)[:, None] - 90.0
    rows[3, rng.random(count) < 0.3] = -np.inf
    # Weights that equal the largest one outside the tail.
    rows[4] = np.maximum(rows[4], np.sort(rows[4])[-int(min(count / 5, 3 * count**0.5)) + 3])
    expected = [float(array_stats.psislw(-row)[1]) for row in rows]
    np.testing.assert_allclose(pareto_k(rows), expected, rtol=1e-9)


@pytest.mark.parametrize("spread", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("count", [3, 5, 8, 9, 34, 200, 3000])
def test_a_tail_gives_the_bounds_jvi2_and_k_hat_in_whatever_parts_it_was_made(count, spread):
    log_weights = np.random.default_rng(count).normal(size=(9, count)) * spread - 400.0
    with jax.enable_x64(True):
        expected = np.asarray(bounds.jvi2(jnp.asarray(log_weights.T)))
    parts = Tail.empty(9, count)
    for part in np.array_split(log_weights, 7, axis=1):
        parts = parts.adding(part)
    np.testing.assert_allclose(parts.jvi2, expected, rtol=1e-11, atol=1e-9)
    np.testing.assert_array_equal(parts.pareto_k, Tail.of(log_weights).pareto_k)
    assert parts.largest.shape[1] < 3 * count**0.5 + 34


def test_jvi2_where_weights_are_zero():
    rows = np.full((4, 9), -np.inf)
    rows[1, :1], rows[2, :2], rows[3, :3] = 0.0, [0.0, 1.0], [0.0, 1.0, 2.0]
    expected = np.asarray(bounds.jvi2(jnp.asarray(rows.T)))
    np.testing.assert_allclose(Tail.of(rows).jvi2, expected, rtol=1e-4)
    assert Tail.of(rows).jvi2[:3].tolist() == [-np.inf, np.inf, -np.inf]
    assert np.isnan(Tail.of(rows[:, :2]).jvi2).all()


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_pareto_k_is_the_shape_of_the_tail(shape):
    rng = np.random.default_rng(0)
    weights = 1 + rng.pareto(1 / shape, size=(20, 5000))
    assert np.mean(pareto_k(np.log(weights))) == pytest.approx(shape, abs=0.06)


def test_pareto_k_is_not_defined_for_weights_without_a_tail():
    rng = np.random.default_rng(0)
    rows = np.zeros((6, 1000))
    rows[1, 0] = -np.inf
    # As few binary latents give them: a few values, and the largest are equal.
    rows[2] = np.where(rng.random(1000) < 0.5, -90.0, -91.0)
    rows[3] = rng.choice([-90.0, -91.0, -95.0, -99.0], 1000, p=[0.005, 0.005, 0.49, 0.5])
    rows[4] = np.nan
    rows[5] = -np.inf
    assert np.isnan(pareto_k(rows)).all()
    assert np.isnan(pareto_k(np.full((1, 1000), np.inf))).all()
    with pytest.raises(IWAEError, match="at least 100 samples, got 99"):
        pareto_k(rows[:, :99])


def test_weights_of_zero_are_small_ones_to_pareto_k():
    row = np.random.default_rng(0).normal(size=1000)
    few, one = row.copy(), np.full(1000, -np.inf)
    few[np.argsort(row)[:600]] = -np.inf
    one[[5, 8]] = 0.0
    # The tail is the same; with two positive weights there is none, and nothing could be worse.
    plain, same, worst = pareto_k(np.stack([row, few, one]))
    assert plain == same < 0.7
    assert worst == np.inf


@pytest.mark.filterwarnings("error")
def test_pareto_k_of_any_few_values_is_a_number_or_nan_without_a_warning():
    rng = np.random.default_rng(1)
    for levels in (1, 2, 3, 5, 8, 16, 64) * 5:
        values = np.append(rng.normal(size=levels) * 3, -np.inf)
        shapes = pareto_k(rng.choice(values, (3, 400), p=rng.dirichlet(np.ones(levels + 1))))
        # What ArviZ gives for a division by zero is its prior alone: 10 * 0.5 of the tail's size and 10.
        assert not np.any(np.isclose(shapes, 5 / (60 + 10), atol=1e-6))
