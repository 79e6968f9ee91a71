"""Kinds of values against SciPy: densities, draws, biases, and what is refused."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import iwae
from helpers import peers
from iwae.errors import IWAEError
from iwae.models.likelihoods import LIKELIHOODS, likelihood_from_json
from iwae.models.likelihoods.gaussian import SMALLEST_SIGMA

UNITS = 4
KEY = jax.random.key(0)
RANDOM = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def poisson(outputs: np.ndarray, likelihood: Any) -> Any:
    return scipy.stats.poisson(np.exp(outputs))


def negative_binomial(outputs: np.ndarray, likelihood: Any) -> Any:
    mean, shape = np.split(np.exp(outputs), 2, axis=-1)
    return scipy.stats.nbinom(shape, shape / (shape + mean))


def student_t(outputs: np.ndarray, likelihood: Any) -> Any:
    location, raw, freedom = np.split(outputs, 3, axis=-1)
    shift, spread = np.array(likelihood.shift), np.array(likelihood.spread)
    degrees = 2.0 + np.log1p(np.exp(freedom + 4.0))
    return scipy.stats.t(degrees, shift + spread * location, spread * (SMALLEST_SIGMA + np.exp(raw)))


def zero_inflated(outputs: np.ndarray, likelihood: Any) -> Any:
    counts, logits = np.split(outputs, [2 * UNITS], axis=-1)
    return peers.ZeroInflated(negative_binomial(counts, likelihood), scipy.special.expit(logits))


def discretized_logistic(outputs: np.ndarray, likelihood: Any) -> Any:
    location, raw = np.split(outputs, 2, axis=-1)
    return peers.Pixels(scipy.stats.logistic((location + 1) * 127.5, (np.exp(raw) + 1e-3) * 127.5))


PEERS: dict[str, Callable[[np.ndarray, Any], Any]] = {
    "poisson": poisson,
    "negative-binomial": negative_binomial,
    "student-t": student_t,
    "zero-inflated-negative-binomial": zero_inflated,
    "categorical": lambda outputs, likelihood: peers.Categories(outputs, likelihood.levels),
    "discretized-logistic": discretized_logistic,
    "continuous-bernoulli": lambda outputs, _: peers.Tilted(outputs),
}
CONTINUOUS = ("student-t", "continuous-bernoulli")
COUNTS = ("poisson", "negative-binomial", "zero-inflated-negative-binomial")


def rows_of(name: str, rng: np.random.Generator, count: int = 30) -> np.ndarray:
    if name == "student-t":
        return (rng.standard_t(3, size=(count, UNITS)) * 10.0 ** rng.uniform(-2, 2, UNITS) + 5).astype(np.float32)
    if name == "categorical":
        levels = np.array([2, 3, 5, 4])
        # Every level is there, whatever the generator says.
        return np.vstack([np.arange(5)[:, None] % levels, rng.integers(levels, size=(count - 5, UNITS))]).astype("f4")
    if name == "discretized-logistic":
        return np.clip(np.round(rng.normal(rng.uniform(0, 255, UNITS), 60, (count, UNITS))), 0, 255).astype(np.float32)
    if name == "continuous-bernoulli":
        return rng.beta(*rng.uniform(0.5, 3, (2, 1, UNITS)), size=(count, UNITS)).astype(np.float32)
    return rng.negative_binomial(2, rng.uniform(0.05, 0.6, UNITS), size=(count, UNITS)).astype(np.float32)


def layer_of(likelihood: Any, bias: np.ndarray) -> iwae.VisibleLayer:
    return iwae.VisibleLayer.create(3, [5], UNITS, jax.random.key(1), likelihood).with_bias(bias)


@pytest.mark.parametrize("name", PEERS)
@settings(max_examples=15)
@given(RANDOM)
def test_densities_are_scipys_also_with_gaps(name: str, rng: np.random.Generator) -> None:
    rows = rows_of(name, rng)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    likelihood = LIKELIHOODS[name].of_data(rows)
    layer = layer_of(likelihood, np.linspace(-1.0, 1.5, likelihood.num_outputs(UNITS)))
    latents = jnp.asarray(rng.normal(size=(len(rows), 3)), jnp.float32)
    outputs = np.asarray(layer.outputs(layer.network(latents)), np.float64)
    density = operator.attrgetter("logpdf" if name in CONTINUOUS else "logpmf")
    expected = np.nansum(density(PEERS[name](outputs, likelihood))(rows), axis=-1)
    found = layer.log_prob(likelihood.prepare(jnp.asarray(rows), KEY), latents)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", PEERS)
def test_draws_are_quantiles(name: str) -> None:
    """A draw made from normal noise is the quantile of the noise's level, in float32's precision of a level."""
    rng = np.random.default_rng(0)
    likelihood = LIKELIHOODS[name].of_data(rows_of(name, rng))
    outputs = rng.normal(size=(1, likelihood.num_outputs(UNITS)))
    noise = rng.normal(size=(500, UNITS)).astype(np.float32)
    drawn = likelihood.distribution(jnp.asarray(outputs, jnp.float32)).sample(jnp.asarray(noise))
    found = np.asarray(likelihood.original(drawn), np.float64)
    peer = PEERS[name](outputs, likelihood)
    if name in CONTINUOUS:
        np.testing.assert_allclose(peer.cdf(found), scipy.stats.norm.cdf(noise), atol=2e-5)
    else:
        level = scipy.stats.norm.cdf(noise)
        assert np.mean((peer.cdf(found) >= level - 1e-6) & (peer.cdf(found - 1) <= level + 1e-6)) == 1.0
    mean = np.asarray(likelihood.original(likelihood.distribution(jnp.asarray(outputs, jnp.float32)).mean))
    np.testing.assert_allclose(mean, peer.mean(), rtol=2e-3 if name == "discretized-logistic" else 1e-4)


@pytest.mark.parametrize("name", COUNTS)
def test_the_first_bias_gives_the_training_moments(name: str) -> None:
    rows = rows_of(name, np.random.default_rng(1), 4000)
    likelihood = LIKELIHOODS[name].of_data(rows)
    bias = likelihood.initial_bias(rows)
    assert bias is not None
    peer = PEERS[name](bias[None], likelihood)
    np.testing.assert_allclose(peer.mean()[0], rows.mean(axis=0), rtol=1e-5)
    if name == "negative-binomial":
        np.testing.assert_allclose(peer.var()[0], rows.var(axis=0), rtol=1e-3)


@pytest.mark.parametrize("name", PEERS)
def test_a_model_learns_and_is_kept(name: str, tmp_path: Any) -> None:
    rng = np.random.default_rng(2)
    top = rng.normal(size=(300, 1))
    rows = 1.0 + top * rng.normal(size=UNITS)
    if name == "student-t":
        rows = rows + 0.1 * rng.standard_t(3, size=rows.shape)
    elif name == "continuous-bernoulli":
        rows = scipy.special.expit(3 * rows)
    elif name in COUNTS:
        rows = rng.poisson(np.exp(rows))
    else:
        rows = np.round(np.clip(rows + 1, 0, 3)) if name == "categorical" else np.clip(60 * (rows + 1), 0, 255).round()
    rows = rows.astype(np.float32)
    rows[3, 2] = rows[260, 1] = np.nan
    data = iwae.Dataset.from_arrays(rows[:250], rows[250:], likelihood=name)
    start = iwae.create_model(data, iwae.Architecture(None, (2,), ((16,),)))
    model = iwae.fit(start, data, iwae.make_estimator("iwae:dreg", k=5), epochs=12, learning_rate=1e-2, progress=False)
    before, after = (iwae.log_likelihood(each, data.test, num_samples=50) for each in (start, model))
    assert after.mean() > before.mean() + 0.5
    iwae.save(model, tmp_path / "m.safetensors")
    np.testing.assert_array_equal(iwae.log_likelihood(iwae.load(tmp_path / "m.safetensors"), data.test, 50), after)
    assert iwae.reconstruct(model, data.test, num_samples=20).shape == (50, UNITS)
    assert likelihood_from_json(model.likelihood.to_json()) == model.likelihood


def test_a_first_bias_is_that_of_the_training_rows() -> None:
    """Shares of categories with one example more each; means of the others, of pixels before they are clipped."""
    rng = np.random.default_rng(3)
    rows = rows_of("categorical", rng, 400)
    likelihood = LIKELIHOODS["categorical"].of_data(rows)
    shares = PEERS["categorical"](np.asarray(likelihood.initial_bias(rows))[None], likelihood).shares[0]
    np.testing.assert_allclose(shares[2], (np.bincount(rows[:, 2].astype(int)) + 1) / 405, rtol=1e-6)
    for name, tolerance in (("continuous-bernoulli", 1e-6), ("discretized-logistic", 0.2)):
        rows = rows_of(name, rng, 400)
        rows[rng.random(rows.shape) < 0.2] = np.nan
        likelihood = LIKELIHOODS[name].of_data(rows)
        bias = np.asarray(likelihood.initial_bias(rows))
        np.testing.assert_allclose(PEERS[name](bias[None], likelihood).mean()[0], np.nanmean(rows, axis=0), tolerance)


@pytest.mark.parametrize("logit", [-80.0, -3.0, -0.049, -1e-4, 0.0, 1e-4, 0.06, 3.0, 80.0])
def test_the_continuous_bernoulli_holds_at_any_logit(logit: float) -> None:
    """Where its series begins, far out, and its gradient: d log p / d logit = x - mean."""
    made = LIKELIHOODS["continuous-bernoulli"].of_data(np.zeros((1, 1)))
    x = jnp.linspace(0.0, 1.0, 5)[:, None]
    expected = logit * np.asarray(x[:, 0]) - max(logit, 0.0) - np.log(scipy.special.exprel(-abs(logit)))
    found = made.distribution(jnp.array([[logit]])).log_prob(x)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    slopes = jax.vmap(jax.grad(lambda at, v: made.distribution(at[None]).log_prob(v)), (None, 0))(jnp.float32(logit), x)
    np.testing.assert_allclose(slopes, (x - made.distribution(jnp.array([logit])).mean)[:, 0], atol=1e-5)


def test_grey_values_have_densities_in_their_own_units() -> None:
    """A density of values that are 255 times as large is 255 times as small."""
    grey = np.random.default_rng(0).integers(0, 256, (6, UNITS)).astype(np.uint8)
    made = LIKELIHOODS["continuous-bernoulli"]
    scores = []
    for rows in (grey, grey.astype(np.float32) / 255):
        likelihood = made.of_data(rows)
        layer = layer_of(likelihood, np.linspace(-1, 1, UNITS))
        scores.append(layer.log_prob(likelihood.prepare(jnp.asarray(rows), KEY), jnp.zeros((6, 3))))
    np.testing.assert_allclose(scores[0], scores[1] - UNITS * np.log(255), rtol=1e-5)
    likelihood = made.of_data(grey)
    np.testing.assert_allclose(likelihood.original(likelihood.prepare(jnp.asarray(grey), KEY)), grey, atol=1e-4)


def test_the_probabilities_of_256_levels_add_up_to_one() -> None:
    likelihood = LIKELIHOODS["discretized-logistic"]()
    outputs = jnp.array([[-1.3, -9.0], [0.2, -4.0], [0.0, 0.0], [0.99, -3.0], [5.0, 1.0]])
    levels = likelihood.prepare(jnp.arange(256.0), KEY)
    log_probs = likelihood.distribution(outputs).log_prob(levels[:, None, None])
    np.testing.assert_allclose(np.exp(np.asarray(log_probs, np.float64)).sum(axis=0), 1.0, rtol=1e-4)
    assert np.isfinite(log_probs).all()


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("categorical", [[0.0, 2.0], [1.0, 0.5]], r"has 0\.5 in column 1, whose levels are 0 to 2"),
        ("discretized-logistic", [[0.0, 256.0]], r"from 0 to 256, but the discretized logistic"),
        ("discretized-logistic", [[0.0, 0.5]], r"scores whole numbers from 0 to 255"),
        ("continuous-bernoulli", [[0.0, 1.5]], r"scores numbers in \[0, 1\] or uint8 grey values"),
        ("mixed", [[0.0, 1.5]], "needs a kind for each column"),
    ],
)
def test_what_cannot_be_scored_is_refused(name: str, rows: list[list[float]], message: str) -> None:
    with pytest.raises(IWAEError, match=message):
        iwae.create_model(iwae.Dataset.from_arrays(np.array(rows), likelihood=name))


@pytest.mark.parametrize("rows", [[[0.5, 1.0]], [[-1.0, 2.0]]])
def test_what_is_no_count_is_refused(rows: list[list[float]]) -> None:
    data = iwae.Dataset.from_arrays(np.array(rows), likelihood="poisson")
    with pytest.raises(IWAEError, match=r"has values that are no counts: the Poisson likelihood needs 0, 1, 2"):
        iwae.create_model(data)
