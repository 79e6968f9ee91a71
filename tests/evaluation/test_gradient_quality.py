"""Diagnostics against closed forms and the results that are known of the estimators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.linear_gaussian import LinearGaussian
from iwae import bounds
from iwae.errors import IWAEError
from iwae.estimators.bound import Reparameterized
from iwae.estimators.gradients import Coefficients
from iwae.estimators.objective import Objective
from iwae.evaluation.gradient_quality import (
    _gap,  # pyright: ignore[reportPrivateUsage]
    _Moments,  # pyright: ignore[reportPrivateUsage]
    gradient_quality,
    unbiased,
)


def test_mean_and_variance_are_those_of_a_loop():
    exact = LinearGaussian.random(2)
    model = jax.tree.map(jnp.float32, exact.model(shift=0.3, widen=1.2))
    x = jnp.asarray(exact.sample(3), jnp.float32)
    draws = 3000
    (found,) = gradient_quality(model, x, [Objective("iwae", k=4)], draws=draws, reference_k=4)

    def draw(key):
        gradient = Reparameterized(4, bounds.iwae)(model, x, key).gradient.encoder
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(gradient)])

    keys = jax.random.split(jax.random.key(7), draws)
    rows = np.asarray(jax.jit(lambda k: jax.lax.map(draw, k, batch_size=1000))(keys))
    assert found.encoder.variance == pytest.approx(rows.var(axis=0, ddof=1).sum(), rel=0.2)
    expected = np.sqrt((rows.mean(0) ** 2).sum() - rows.var(axis=0, ddof=1).sum() / draws)
    assert found.encoder.mean_norm == pytest.approx(expected, rel=0.1)
    assert not found.encoder.bias.is_visible


def test_the_elbos_decoder_is_biased_against_a_tight_bound_and_a_tight_bound_is_not():
    exact = LinearGaussian.random(1)
    model = jax.tree.map(jnp.float32, exact.model(shift=0.5, widen=1.3))
    x = jnp.asarray(exact.sample(3), jnp.float32)
    one, many = gradient_quality(
        model, x, [Objective("iwae", k=1), Objective("iwae", k=100)], draws=2000, reference_k=300
    )
    assert one.decoder.to_large_k.norm > 4 * one.decoder.to_large_k.resolution
    assert not many.decoder.to_large_k.is_visible
    # Both are unbiased for their own bounds.
    assert not one.decoder.bias.is_visible
    assert not many.decoder.bias.is_visible


def test_bias_is_seen_where_there_is_one_and_nowhere_else():
    exact = LinearGaussian.random(1)
    model = jax.tree.map(jnp.float32, exact.model(shift=0.5, widen=1.2))
    x = jnp.asarray(exact.sample(3), jnp.float32)
    words = ["iwae", "iwae:dreg", "vr-max", "iwae:stl", "rws:rws-dreg", "iwae:dreg:alpha=1"]
    found = gradient_quality(model, x, [Objective.parse(word, 4) for word in words], draws=3000, reference_k=8)
    biased = {word for word, quality in zip(words, found, strict=True) if quality.encoder.bias.is_visible}
    # Wake-phi is its own objective, and no gradient of L_k.
    assert biased == {"iwae:stl", "iwae:dreg:alpha=1"}
    assert not any(quality.decoder.bias.is_visible for quality in found)


class HalvedDecoder(Reparameterized):
    """Half of the decoder's gradient."""

    def coefficients(self, log_weights):
        bound, decoder, encoder = super().coefficients(log_weights)
        return Coefficients(bound, 0.5 * decoder, encoder)


def test_a_custom_estimator_is_held_against_the_objective_that_it_is_given_with():
    exact = LinearGaussian.random(2)
    model = jax.tree.map(jnp.float32, exact.model(shift=0.5, widen=1.2))
    x, target = jnp.asarray(exact.sample(3), jnp.float32), Objective("iwae", k=4)
    given = [(Reparameterized(4, bounds.iwae), target), (HalvedDecoder(4, bounds.iwae), target)]
    same, halved = gradient_quality(model, x, given, draws=500, reference_k=8)
    by_name, _ = gradient_quality(model, x, [target, target], draws=500, reference_k=8)
    assert same.decoder == by_name.decoder
    assert halved.decoder.bias.is_visible
    assert halved.decoder.bias.norm == pytest.approx(same.decoder.mean_norm / 2, rel=0.2)
    assert not halved.encoder.bias.is_visible


def test_what_noise_alone_does_is_rarely_called_visible():
    rng = np.random.default_rng(0)
    for mixing in (np.ones((1, 9)), np.eye(9), rng.normal(size=(9, 9))):
        seen = 0
        for _ in range(400):
            sides = [rng.normal(size=(100, len(mixing))) @ mixing for _ in range(2)]
            ours, theirs = (_Moments({"encoder": s.mean(0)}, {"encoder": s.var(0, ddof=1)}, 100) for s in sides)
            seen += _gap(ours, theirs, "encoder").is_visible
        # 5 % of 400, and four standard deviations.
        assert seen <= 38


@pytest.mark.parametrize(
    ("word", "binary", "expected"),
    [
        ("iwae:stl", False, "iwae:dreg"),
        ("iwae:dreg:alpha=0.5", False, "iwae:dreg"),
        ("vimco", False, "iwae:dreg"),
        ("ovis:gamma=0.3", True, "vimco"),
        ("iwae:score", True, "vimco"),
        ("renyi:score:alpha=0.5", False, "renyi:dreg:alpha=0.5"),
        ("ciwae:score:beta=0.5", True, "ciwae:score:beta=0.5"),
        ("vr-max:stl", False, "vr-max"),
        ("miwae:stl:m=2", False, "miwae:dreg:m=2"),
        ("piwae:m=2", False, "piwae:dreg:m=2"),
        ("rws", False, "rws:rws-dreg"),
        ("rws", True, "rws"),
        ("rws:sleep=0.5", False, "rws:sleep=0.5"),
    ],
)
def test_the_reference_is_unbiased_for_the_same_objective(word, binary, expected):
    assert unbiased(Objective.parse(word, 3), binary) == Objective.parse(expected, 3)


def test_with_one_sample_binary_latents_have_the_score_function():
    assert unbiased(Objective.parse("iwae:score", 1), binary=True) == Objective.parse("iwae:score", 1)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"draws": 9}, "`draws` must be at least 10, got 9"),
        ({"reference_k": 2}, "`reference_k` must be at least the largest k, 3, got 2"),
    ],
)
def test_counts_without_meaning_are_refused(settings, problem):
    model = jax.tree.map(jnp.float32, LinearGaussian.random(1).model())
    with pytest.raises(IWAEError, match=problem):
        gradient_quality(model, jnp.zeros((1, 4)), [Objective("iwae", k=3)], **settings)
