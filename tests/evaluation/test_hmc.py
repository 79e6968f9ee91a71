"""HMC moves: reversible, and their target stays what it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from iwae.evaluation import hmc

DIM = 3
PRECISION = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])
MEAN = np.array([1.0, -0.5, 0.3])


def correlated(h):
    return -0.5 * jnp.einsum("...i,ij,...j", h - MEAN, PRECISION, h - MEAN)


def quartic(h):
    return -jnp.sum(0.25 * h**4 - 0.5 * h**2, axis=-1)


def impossible_above_one(h):
    return jnp.where(h[..., 0] > 1.0, jnp.nan, -0.5 * jnp.sum(h**2, axis=-1))


def noise(rows, number=0):
    return jax.random.normal(jax.random.key(number), (rows, hmc.noise_width(DIM)))


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (0.3, 0.7)])
def test_the_leapfrog_comes_back(weights):
    terms, weights = (correlated, quartic), jnp.array(weights)
    start = hmc.evaluate(terms, 0.7 * noise(100)[:, :DIM])
    momentum, step = noise(100, 1)[:, :DIM], jnp.full((100, DIM), 0.1)
    end, last = hmc.leapfrog(terms, weights, start, momentum, step, 10)
    assert float(jnp.min(jnp.max(jnp.abs(end.position - start.position), axis=1))) > 0.05
    back, turned = hmc.leapfrog(terms, weights, end, -last, step, 10)
    np.testing.assert_allclose(back.position, start.position, atol=1e-5)
    np.testing.assert_allclose(-turned, momentum, atol=1e-5)


def test_the_energy_error_falls_with_the_square_of_the_step():
    terms, weights = (quartic,), jnp.ones(1)
    start, momentum = hmc.evaluate(terms, 0.7 * noise(200)[:, :DIM]), noise(200, 1)[:, :DIM]

    def error(size, count):
        end, last = hmc.leapfrog(terms, weights, start, momentum, jnp.full((200, DIM), size), count)
        change = end.values[0] - start.values[0] + 0.5 * jnp.sum(momentum**2 - last**2, axis=1)
        return float(jnp.sqrt(jnp.mean(change**2)))

    assert error(0.1, 5) / error(0.05, 10) == pytest.approx(4.0, rel=0.15)


def chain(terms, weights, start, step, moves, count=5):
    @jax.jit
    def run(position):
        def body(point, key):
            draws = jax.random.normal(key, (len(position), hmc.noise_width(DIM)))
            return hmc.move(terms, weights, point, jnp.full(position.shape, step), count, draws)

        return jax.lax.scan(body, hmc.evaluate(terms, position), jax.random.split(jax.random.key(3), moves))

    end, accepted = run(start)
    return np.asarray(end.position, np.float64), np.asarray(accepted)


@pytest.mark.parametrize("step", [0.3, 1.2])
def test_exact_draws_stay_exact_draws(step):
    # From exact draws, moments and the ranks of any function stay what they are, whatever the acceptance is.
    rng, rows = np.random.default_rng(0), 40_000
    covariance = np.linalg.inv(PRECISION)
    start = rng.multivariate_normal(MEAN, covariance, rows)
    end, accepted = chain((correlated,), jnp.ones(1), jnp.asarray(start, jnp.float32), step, 3)
    assert accepted.mean() < (0.999 if step < 0.5 else 0.93)
    assert np.abs(end - start).mean() > 0.3
    error = np.sqrt(np.diag(covariance) / rows)
    assert np.all(np.abs(end.mean(0) - MEAN) < 4 * error)
    np.testing.assert_allclose(np.cov(end.T), covariance, atol=4 * 3.0 * np.sqrt(2 / rows))
    for direction in (np.array([1.0, 0.0, 0.0]), np.array([1.0, -1.0, 2.0])):
        spread = np.sqrt(direction @ covariance @ direction)
        uniform = stats.norm.cdf((end - MEAN) @ direction / spread)
        assert stats.chisquare(np.histogram(uniform, 20, (0, 1))[0]).pvalue > 1e-3


def test_ranks_of_a_draw_among_its_own_chains_states_are_uniform():
    # Simulation-based calibration: an exact draw, and states of a stationary chain from it, are exchangeable when the
    # draw is put at a random place of the chain.
    rng, rows, length = np.random.default_rng(1), 10_000, 9
    weights = jnp.array([0.4, 0.6])
    other = np.diag([1.0, 3.0, 0.5])
    precision = 0.4 * PRECISION + 0.6 * other
    mean = np.linalg.solve(precision, 0.4 * PRECISION @ MEAN)
    start = rng.multivariate_normal(mean, np.linalg.inv(precision), rows)
    terms = (correlated, lambda h: -0.5 * jnp.einsum("...i,ij,...j", h, other, h))

    @jax.jit
    def run(position, key):
        def body(point, key):
            draws = jax.random.normal(key, (rows, hmc.noise_width(DIM)))
            point, _ = hmc.move(terms, weights, point, jnp.full((rows, DIM), 0.6), 3, draws)
            return point, point.position

        return jax.lax.scan(body, hmc.evaluate(terms, position), jax.random.split(key, length))[1]

    # A reversible kernel: the states before the draw are those of a second chain from it.
    first, second = (np.asarray(run(jnp.asarray(start, jnp.float32), jax.random.key(k))) for k in (0, 1))
    place = rng.integers(0, length + 1, rows)
    for function in (lambda h: h[..., 0], lambda h: np.sum(h**2, axis=-1)):
        one, two, own = function(first), function(second), function(start.astype(np.float32))
        number = np.arange(length)[:, None]
        ranks = np.sum((one < own) & (number < place), axis=0)
        ranks += np.sum((two < own) & (number < length - place), axis=0)
        assert stats.chisquare(np.bincount(ranks, minlength=length + 1)).pvalue > 1e-3


def test_a_long_chain_finds_its_target_from_afar():
    end, _ = chain((quartic,), jnp.ones(1), jnp.full((4000, DIM), 3.0), 0.4, 100)
    grid = np.linspace(-4, 4, 2001)
    density = np.exp(-(0.25 * grid**4 - 0.5 * grid**2))
    second = (density * grid**2).sum() / density.sum()
    assert np.mean(end**2) == pytest.approx(second, abs=4 * np.std(end**2) / np.sqrt(end.size))
    assert np.all(np.abs(end.mean(0)) < 4 * end.std(0) / np.sqrt(len(end)))


def test_proposals_without_a_density_are_refused():
    end, accepted = chain((impossible_above_one,), jnp.ones(1), jnp.zeros((500, DIM)), 0.5, 30)
    assert np.all(np.isfinite(end))
    assert np.all(end[:, 0] <= 1.0)
    assert np.all((accepted >= 0.0) & (accepted <= 1.0))
    assert accepted.mean() < 0.9


def test_weights_change_the_target_without_a_new_evaluation():
    terms = (correlated, quartic)
    point = hmc.evaluate(terms, noise(5)[:, :DIM])
    weights = jnp.array([0.2, 0.8])
    value, gradient = jax.vmap(jax.value_and_grad(lambda h: 0.2 * correlated(h) + 0.8 * quartic(h)))(point.position)
    np.testing.assert_allclose(hmc.weighted(weights, point.values), value, rtol=1e-5)
    np.testing.assert_allclose(hmc.weighted(weights, point.gradients), gradient, rtol=1e-4, atol=1e-5)
