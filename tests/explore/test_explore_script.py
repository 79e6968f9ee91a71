"""What the page's script computes, in a real Chromium, against the model."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.explorer import OpenModel, rough_model
from helpers.numpy_model import SMALL
from helpers.toy import toy_dataset
from iwae import HierarchicalVAE, likelihoods
from iwae.data import Dataset
from iwae.evaluation.visualization import traverse
from iwae.explore.content import LIMIT, MAX_SAMPLES
from iwae.models.architecture import Architecture
from iwae.models.likelihoods import BernoulliLikelihood, GaussianLikelihood, likelihood_of

# The page adds in float64. So does the model it is held against: of the paper's log weights float32 has no four digits
# after the point.
TOLERANCE = 1e-4
ARCHITECTURES = {
    "1 layer": SMALL[1],
    "2 layers": SMALL[2],
    "3 layers": SMALL[3],
    "linear": Architecture(6, (3,), ((),)),
    "1 binary layer": dataclasses.replace(SMALL[1], kinds=("bernoulli",)),
    "2 binary layers": dataclasses.replace(SMALL[2], kinds=("bernoulli", "bernoulli")),
    "binary above Gaussian": dataclasses.replace(SMALL[2], kinds=("gaussian", "bernoulli")),
    "Gaussian above binary": dataclasses.replace(SMALL[2], kinds=("bernoulli", "gaussian")),
}
PAPER = {f"paper's {layers}": Architecture.paper(layers, 784) for layers in (1, 2)}


def numbers(noise: tuple[jax.Array, ...]) -> list[list[list[float]]]:
    """Noise `[k, 1, units]` of each layer as the script takes it: for each sample a list for each layer."""
    return [[np.asarray(layer[i, 0]).tolist() for layer in noise] for i in range(len(noise[0]))]


def dataset_for(model: HierarchicalVAE, **changes: Any):
    return toy_dataset(train=40, dim=model.visible, **changes)


def in_parts(fast: Sequence[Any], everything: Iterable[Any]) -> list[Any]:
    """`fast` as they are, and the rest of `everything` as slow."""
    return [*fast, *(pytest.param(*one, marks=pytest.mark.slow) for one in everything if one not in fast)]


FAST = [
    ("1 layer", False),
    ("3 layers", True),
    ("linear", False),
    ("2 binary layers", False),
    ("binary above Gaussian", False),
    ("Gaussian above binary", True),
    ("paper's 2", False),
]


@pytest.mark.parametrize(
    ("name", "binary_data"), in_parts(FAST, itertools.product([*ARCHITECTURES, *PAPER], [False, True]))
)
def test_the_script_computes_what_the_model_does(browser, open_model: OpenModel, name, binary_data):
    model = rough_model(ARCHITECTURES[name]) if name in ARCHITECTURES else paper_model(PAPER[name])
    dataset = dataset_for(model, binary=binary_data)
    assert open_model(model, dataset).stat().st_size < LIMIT
    x = check(browser, model)
    assert set(np.unique(x)) <= {0.0, 1.0}
    if binary_data:
        np.testing.assert_array_equal(x, dataset.test[3])


KINDS = ["gaussian", "gaussian, unscaled", "gaussian, missing", "bernoulli, missing"]


@pytest.mark.parametrize(
    ("kind", "layers"),
    in_parts([*((kind, 1) for kind in KINDS), ("gaussian, missing", 2)], itertools.product(KINDS, [1, 2])),
)
def test_other_visible_data(browser, open_model: OpenModel, kind, layers):
    rng = np.random.default_rng(3)
    likelihood, _, special = kind.partition(", ")
    train = rng.random((40, 6)) if likelihood == "bernoulli" else 5 + 3 * rng.normal(size=(40, 6))
    if special == "missing":
        train[rng.random(train.shape) < 0.3] = np.nan
    objects = {"gaussian, unscaled": GaussianLikelihood(), "bernoulli, missing": BernoulliLikelihood(missing=True)}
    dataset = Dataset.from_arrays(train, train[:12].copy(), likelihood=objects.get(kind, likelihood))
    made = likelihood_of(dataset)
    model = rough_model(SMALL[layers], made)
    open_model(model, dataset)
    x = check(browser, model)
    assert np.isnan(x).any() == (special == "missing")
    # What is shown is in the units of the data.
    shown = browser.execute_script("return Array.from(encodeExample(3, 1).stored, (v) => Number.isNaN(v) ? null : v)")
    np.testing.assert_allclose(np.array(shown, float), train[3], rtol=1e-6)
    found = browser.execute_script("return Array.from(original(about, decode(about, resting)))")
    np.testing.assert_allclose(found, traverse(model, [0], [0.0])[0, 0], rtol=1e-4, atol=1e-4)


def check(browser: Any, model: HierarchicalVAE) -> np.ndarray:
    """Holds all figures of the open page's fourth example against the model; returns the example as it is scored."""
    x = np.array(browser.execute_script("return Array.from(encodeExample(3, 1).scored, String)"), np.float64)
    noise = model.draw_noise(jax.random.key(5), 40, 1)
    top = np.random.default_rng(0).normal(size=model.latent[-1])
    script = """
        const [x, noise, top] = [encodeExample(3, 1).scored, ...arguments];
        const samples = importanceSamples(about, x, noise);
        const result = weighted(samples);
        return {
            logWeights: samples.map((sample) => sample.logWeight),
            means: samples.map((sample) => Array.from(sample.mean)),
            ...result,
            reconstruction: Array.from(result.reconstruction),
            posteriorMean: Array.from(posteriorMean(about, x)),
            decoded: Array.from(decode(about, top)),
        };
    """
    found = browser.execute_script(script, numbers(noise), top.tolist())
    expected = {key: np.asarray(value) for key, value in in_float64(model, x, noise, top).items()}
    weights = np.exp(expected["logWeights"] - expected["logWeights"].max())
    expected["logLikelihood"] = np.log(weights.mean()) + expected["logWeights"].max()
    expected["effectiveSampleSize"] = weights.sum() ** 2 / (weights**2).sum()
    expected["reconstruction"] = weights @ expected["means"] / weights.sum()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=0, atol=TOLERANCE, err_msg=key)
    as_trained = model.log_weights_at(jnp.asarray(x, jnp.float32)[None], noise)[:, 0]
    np.testing.assert_allclose(found["logWeights"], as_trained, rtol=2e-6, atol=TOLERANCE)
    return x


def in_float64(model: HierarchicalVAE, x: np.ndarray, noise: tuple[jax.Array, ...], top: np.ndarray) -> dict[str, Any]:
    """What the script gives, from the model itself, its weights as float64."""
    with jax.enable_x64(True):
        model, noise = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), (model, noise))
        return jax.tree.map(np.asarray, figures(model, x[None], noise, top[None]))


@eqx.filter_jit
def figures(model: HierarchicalVAE, rows: Any, noise: tuple[jax.Array, ...], decoded: Any) -> dict[str, jax.Array]:
    _, latents = model.sample_posterior(rows, noise)
    posterior = model.encoder_input(rows)
    for layer in model.encoder:
        posterior = layer(posterior).mean
    for layer in reversed(model.decoder):
        decoded = layer(decoded).mean
    return {
        "logWeights": model.log_weights_at(rows, noise)[:, 0],
        "means": model.decoder[0](latents[0]).mean[:, 0],
        "posteriorMean": posterior[0],
        "decoded": decoded[0],
    }


def paper_model(architecture: Architecture) -> HierarchicalVAE:
    """Weights as training begins with, on pixels that are seldom one, as those of MNIST."""
    return HierarchicalVAE.create(architecture, jax.random.key(2), bias=np.full(784, -2.2))


@pytest.mark.parametrize("name", ["1 layer", "2 layers", "2 binary layers"])
def test_its_own_draws_agree_with_the_librarys_figures(browser, open_model: OpenModel, name):
    """L_500 of two sets of draws differs by the noise of both: five standard errors of log w's average."""
    model = rough_model(ARCHITECTURES[name])
    dataset = dataset_for(model)
    open_model(model, dataset)
    measured = likelihoods(model, dataset, num_samples=MAX_SAMPLES)
    recorded = browser.execute_script("return about.examples.log_likelihood")
    np.testing.assert_allclose(recorded, measured.log_likelihood, rtol=1e-6)
    for index in range(3):
        found = browser.execute_script("return encodeExample(arguments[0], 500)", index)
        error = np.sqrt(
            1 / found["effectiveSampleSize"] - 1 / 500 + 1 / measured.effective_sample_size[index] - 1 / 500
        )
        assert abs(found["logLikelihood"] - recorded[index]) < 5 * error + TOLERANCE
    # More samples begin with those of fewer.
    few, many = browser.execute_script("return [4, 9].map((k) => drawNoise(about, 7, k).map((noise) => noise.join()))")
    assert (len(few), len(many)) == (4, 9)
    assert few == many[:4]


def test_standard_normals(browser, open_model: OpenModel):
    model = rough_model(SMALL[1])
    open_model(model, dataset_for(model))
    script = "const next = normals(arguments[0], arguments[1]); return Array.from({length: 20000}, next)"
    one, again, other = (np.array(browser.execute_script(script, *seeds)) for seeds in [(1, 3), (1, 3), (1, 4)])
    np.testing.assert_array_equal(one, again)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.04
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.04
    for draws in (one, other):
        assert abs(draws.mean()) < 0.04
        assert abs(draws.std() - 1) < 0.03
        assert np.mean(np.abs(draws) < 1) == pytest.approx(0.6827, abs=0.02)
        assert np.mean(np.abs(draws) > 3) == pytest.approx(0.0027, abs=0.002)
    z = np.linspace(-9, 9, 61)
    found = browser.execute_script("return arguments[0].map(normalCdf)", z.tolist())
    np.testing.assert_allclose(found, jax.scipy.stats.norm.cdf(z), rtol=1e-5)


@pytest.mark.parametrize("name", ["2 layers", "2 binary layers"])
def test_draws_from_the_prior(browser, open_model: OpenModel, name):
    model = rough_model(ARCHITECTURES[name])
    open_model(model, dataset_for(model))
    script = "return Array.from({length: 2000}, (_, i) => Array.from(drawPrior(about, i)))"
    draws = np.array(browser.execute_script(script))
    binary = name == "2 binary layers"
    mean = np.asarray(jax.nn.sigmoid(model.prior.logits)) if binary else np.zeros(model.latent[-1])
    assert set(np.unique(draws)) == {0.0, 1.0} if binary else len(np.unique(draws)) == draws.size
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.1)
    np.testing.assert_allclose(draws.std(axis=0), np.sqrt(mean * (1 - mean)) if binary else 1.0, atol=0.1)
    np.testing.assert_allclose(browser.execute_script("return Array.from(resting)"), mean, atol=1e-6)


def test_where_every_weight_is_zero_no_figure_is_finite(browser, open_model: OpenModel):
    model = rough_model(SMALL[1])
    open_model(model, dataset_for(model))
    found = browser.execute_script("""
        const result = weighted([{logWeight: -Infinity, mean: [0.5]}, {logWeight: -Infinity, mean: [0.5]}]);
        return [result.logLikelihood, result.effectiveSampleSize].map(Number.isFinite);
    """)
    assert found == [False, False]
