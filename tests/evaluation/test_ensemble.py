"""Multiple importance sampling with several encoders, by hand and against exact likelihoods."""

import re
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import iwae
from helpers.deep_gaussian import DeepGaussian
from helpers.toy import toy_dataset
from iwae.errors import IWAEError
from iwae.evaluation.batches import NoiseLayout, example_noise
from iwae.evaluation.ensemble import ensemble_likelihoods
from iwae.evaluation.likelihood import log_likelihood
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key

EXACT = DeepGaussian.random(2)
X = EXACT.sample(70)


def shifted(*shifts: float) -> list[HierarchicalVAE]:
    """One decoder, and encoders whose means are off by so much."""
    first = EXACT.model()
    return [replace(first, encoder=EXACT.model(shift=shift).encoder) for shift in shifts]


def test_of_one_model_it_is_its_own_bound():
    (model,) = shifted(0.4)
    found = ensemble_likelihoods([model], X, num_samples=40)
    np.testing.assert_allclose(found.log_likelihood, log_likelihood(model, X, 40), atol=1e-4)
    np.testing.assert_array_equal(found.miselbo, found.log_likelihood)


def test_weights_by_hand():
    """Every encoder's samples, weighed by the mean of all encoders' densities, with no function of the house's own."""
    models, x, k = shifted(0.5, -0.6), X[:3], 4
    found = ensemble_likelihoods(models, x, num_samples=k)
    keys = [purpose_key(0, Purpose.LIKELIHOOD), jax.random.fold_in(purpose_key(0, Purpose.ENSEMBLE), 1)]
    log_weights = []
    for own, key in zip(models, keys, strict=True):
        noise = example_noise(NoiseLayout.of(own), key, jnp.arange(3), jnp.arange(k))
        _, latents = own.sample_posterior(jnp.asarray(x), noise)
        densities = [np.exp(np.asarray(m.log_posterior(jnp.asarray(x), latents), np.float64)) for m in models]
        log_weights.append(np.asarray(own.log_joint(jnp.asarray(x), latents)) - np.log(np.mean(densities, axis=0)))
    each = [logsumexp(one, axis=0) - np.log(k) for one in log_weights]
    np.testing.assert_allclose(found.miselbo, np.mean(each, axis=0), atol=1e-4)
    np.testing.assert_allclose(found.log_likelihood, logsumexp(log_weights, axis=(0, 1)) - np.log(2 * k), atol=1e-4)


def test_the_mean_weight_is_the_likelihood_and_the_bound_tighter_than_the_encoders_own():
    models, many = shifted(0.4, -0.4), np.repeat(X[:1], 4000, axis=0)
    (exact,) = EXACT.log_likelihood(X[:1])
    # Of one sample of each encoder; the examples are replicates.
    found = ensemble_likelihoods(models, many)
    weights = np.exp(found.log_likelihood - exact)
    assert abs(weights.mean() - 1.0) < 4 * weights.std() / 4000**0.5 < 0.15
    assert found.miselbo.mean() < found.log_likelihood.mean() < exact
    apart = np.mean([log_likelihood(model, many, 1).mean() for model in models])
    assert found.miselbo.mean() > apart + 0.1


def test_equal_encoders_are_one():
    (model,) = shifted(0.4)
    two = ensemble_likelihoods([model, model], X[:5], num_samples=3)
    one = ensemble_likelihoods([model], X[:5], num_samples=3)
    # The weights are those of one encoder, but the second's draws are others.
    assert not np.any(two.miselbo == one.miselbo)
    many = ensemble_likelihoods([model, model], X[:5], num_samples=3, indices=[4, 1])
    np.testing.assert_array_equal(many.miselbo, two.miselbo[[4, 1]])


def test_what_is_no_ensemble_is_refused():
    (model,) = shifted(0.0)
    with pytest.raises(IWAEError, match="an ensemble needs one or more `models`, got none"):
        ensemble_likelihoods([], X)
    other = eqx.tree_at(lambda m: m.decoder[0].mean.bias, model, replace_fn=lambda leaf: leaf + 1.0)
    with pytest.raises(IWAEError, match=r"`models\[1\]` has another decoder or prior than `models\[0\]`"):
        ensemble_likelihoods([model, other], X)
    with pytest.raises(IWAEError, match=r"`models\[1\]` has 4 inputs and latents of \(2,\), `models\[0\]` 4 and"):
        ensemble_likelihoods([model, DeepGaussian.random(1).model()], X)
    with pytest.raises(IWAEError, match="`num_samples` must be an integer of at least 1, got 0"):
        ensemble_likelihoods([model], X, num_samples=0)


def test_the_documentations_ensemble_shares_its_decoder():
    """The page's code on a small data set; that the decoder moved would be refused."""
    page = (Path(__file__).parents[2] / "docs/models.md").read_text()
    (code,) = re.findall(r"```python\n((?:(?!```).)*ensemble_likelihoods.*?)```", page, flags=re.DOTALL)
    data, architecture = toy_dataset(), iwae.Architecture(None, (2,), ((4,),))
    names = {"data": data, "architecture": architecture, "model": iwae.create_model(data, architecture)}
    exec(code, names)
    assert repr(names["found"]).startswith("EnsembleLikelihoods(MISELBO -")
    assert names["found"].num_encoders == 3
    encoders = [jax.tree.leaves(each.encoder)[0] for each in names["models"]]
    assert not np.any(encoders[1] == encoders[2])
