"""Likelihoods and active units: against closed forms, direct sums, and under every way of cutting the work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from helpers.linear_gaussian import LinearGaussian, linear
from helpers.toy import toy_dataset
from iwae.data import Dataset
from iwae.errors import IWAEError
from iwae.evaluation import batches as evaluation
from iwae.evaluation.active_units import active_units, paper_active_units
from iwae.evaluation.likelihood import likelihoods
from iwae.models.architecture import Architecture
from iwae.models.layers import GaussianLayer
from iwae.models.likelihoods import BernoulliLikelihood, VisibleLayer
from iwae.models.networks.base import Linear
from iwae.models.networks.tanh import TanhNetwork
from iwae.models.vae import HierarchicalVAE
from iwae.training.loop import create_model

TWO_LAYERS = Architecture(6, (4, 2), ((5, 5), (4, 4)))


def rough_model(dataset: Dataset) -> HierarchicalVAE:
    """A model whose posterior is far from exact, so that log weights vary."""
    model = create_model(dataset, TWO_LAYERS, 0)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: a + 0.2 * rng.normal(size=a.shape).astype(np.float32), model)


def direct(model, dataset, num_samples):
    """L_k and the effective sample size from one array of all log weights, in float64."""
    key = evaluation.purpose_key(0, evaluation.Purpose.LIKELIHOOD)
    indices = jnp.arange(len(dataset.test))
    noise = evaluation.example_noise(evaluation.NoiseLayout.of(model), key, indices, jnp.arange(num_samples))
    log_weights = np.asarray(model.log_weights_at(jnp.asarray(dataset.test, jnp.float32), noise), np.float64)
    total = np.asarray(logsumexp(log_weights, axis=0))
    return total - np.log(num_samples), np.exp(2 * total - logsumexp(2 * log_weights, axis=0))


@pytest.mark.parametrize("num_samples", [1, 7, 50, 130])
def test_likelihoods_are_the_log_mean_of_all_weights(num_samples):
    dataset = toy_dataset(binary=True)
    model = rough_model(dataset)
    result = likelihoods(model, dataset, num_samples=num_samples)
    expected, effective = direct(model, dataset, num_samples)
    np.testing.assert_allclose(result.log_likelihood, expected, atol=1e-4)
    np.testing.assert_allclose(result.effective_sample_size, effective, rtol=1e-3)
    assert result.nll == pytest.approx(-expected.mean(), abs=1e-4)
    assert result.stderr == pytest.approx(expected.std(ddof=1) / np.sqrt(12), rel=1e-3)
    assert result.mean_effective_sample_size == pytest.approx(effective.mean(), rel=1e-3)


@pytest.mark.parametrize("block_rows", [1, 50, 130, 700, 10_000])
def test_likelihoods_do_not_depend_on_how_the_work_is_cut(block_rows):
    dataset = toy_dataset(test=12)
    model = rough_model(dataset)
    reference = likelihoods(model, dataset, num_samples=60)
    result = likelihoods(model, dataset, num_samples=60, block_rows=block_rows)
    np.testing.assert_allclose(result.log_likelihood, reference.log_likelihood, atol=1e-4)
    np.testing.assert_allclose(result.effective_sample_size, reference.effective_sample_size, rtol=1e-3)


def test_an_example_does_not_depend_on_the_others():
    dataset = toy_dataset(test=12)
    model = rough_model(dataset)
    every = likelihoods(model, dataset, num_samples=20).log_likelihood
    first = likelihoods(model, dataset, num_samples=20, max_examples=5).log_likelihood
    np.testing.assert_allclose(first, every[:5], atol=1e-4)


def test_the_seed_changes_the_samples_but_not_the_images():
    dataset = toy_dataset(test=12)
    model = rough_model(dataset)
    a, b = (likelihoods(model, dataset, num_samples=3, seed=seed).log_likelihood for seed in (0, 1))
    assert np.all(a != b)
    few, many = (np.abs(_difference(model, dataset, k)) for k in (3, 3000))
    assert many.mean() < 0.3 * few.mean()


def _difference(model, dataset, num_samples):
    a, b = (likelihoods(model, dataset, num_samples=num_samples, seed=seed) for seed in (0, 1))
    return a.log_likelihood - b.log_likelihood


def test_grey_images_are_binarized_once_for_all_measurements():
    dataset = toy_dataset(test=40)
    model = rough_model(dataset)

    def binarized(size: int) -> np.ndarray:
        batches = evaluation.prepared_batches(*evaluation.on_data(model, dataset, "test"), "test", size)
        return np.concatenate([np.asarray(x)[:count] for x, _, count, _ in batches])

    batches = [binarized(7), binarized(40)]
    np.testing.assert_array_equal(batches[0], batches[1])
    assert set(np.unique(batches[0])) == {0.0, 1.0}
    assert np.abs(batches[0].mean() - dataset.test.mean() / 255) < 0.08
    train = next(evaluation.prepared_batches(*evaluation.on_data(model, dataset, "train"), "train", 40))[0]
    assert train.shape == (40, 6)


@pytest.mark.parametrize("layers", [1, 2])
def test_with_the_exact_posterior_one_sample_gives_the_exact_likelihood(layers):
    exact = LinearGaussian.random(layers)
    x = exact.sample(9).astype(np.float32)
    dataset = Dataset("gaussian", x, x[:0], x, 1.0, True, None, ())
    model = jax.tree.map(jnp.float32, exact.model())
    for k in (1, 40):
        result = likelihoods(model, dataset, num_samples=k)
        np.testing.assert_allclose(result.log_likelihood, exact.log_likelihood(x), atol=1e-4)
        np.testing.assert_allclose(result.effective_sample_size, k, rtol=1e-3)


def test_progress_is_reported_and_ends_at_the_total():
    dataset = toy_dataset(test=12)
    seen = []
    likelihoods(rough_model(dataset), dataset, num_samples=5, block_rows=25, on_examples=lambda *a: seen.append(a))
    assert seen == [(5, 12), (10, 12), (12, 12)]


@pytest.mark.parametrize("num_samples", [0, -1, 100_001])
def test_numbers_of_samples_out_of_range_are_refused(num_samples):
    dataset = toy_dataset()
    with pytest.raises(IWAEError, match="`num_samples` must be"):
        likelihoods(rough_model(dataset), dataset, num_samples=num_samples)


def test_an_empty_split_and_another_dimension_are_refused():
    dataset = toy_dataset(valid=0)
    with pytest.raises(IWAEError, match="the valid split of toy has no examples"):
        likelihoods(rough_model(dataset), dataset, "valid", num_samples=1)
    with pytest.raises(IWAEError, match="toy has 7 dimensions, but the model was built for 6"):
        likelihoods(rough_model(dataset), toy_dataset(dim=7), num_samples=1)


def constant(n_in: int, n_out: int) -> Linear:
    return linear(np.zeros((n_in, n_out), np.float32), np.zeros(n_out, np.float32))


def test_active_units_are_those_whose_posterior_mean_varies():
    # h_1 copies bits with gains 1, 0.1, 0.3 and 0; h_2's mean is h_1's first unit, and its first-layer noise.
    gains = np.zeros((6, 4), np.float32)
    gains[[0, 1, 2], [0, 1, 2]] = [1.0, 0.1, 0.3]
    first = GaussianLayer(TanhNetwork(()), linear(gains, np.zeros(4, np.float32)), constant(6, 4))
    weight = np.zeros((4, 2), np.float32)
    weight[0, 0], weight[3, 1] = 1.0, 1.0
    second = GaussianLayer(TanhNetwork(()), linear(weight, np.zeros(2, np.float32)), constant(4, 2))
    decoder = (
        VisibleLayer(TanhNetwork(()), constant(4, 6), BernoulliLikelihood()),
        GaussianLayer(TanhNetwork(()), constant(2, 4), constant(2, 4)),
    )
    model = HierarchicalVAE((first, second), decoder)
    dataset = toy_dataset(train=4000, binary=True)
    dataset.train[:] = np.random.default_rng(0).integers(0, 2, size=dataset.train.shape)
    result = active_units(model, dataset)
    bits = dataset.train.var(axis=0)
    np.testing.assert_allclose(result.variances[0], [bits[0], 0.01 * bits[1], 0.09 * bits[2], 0.0], atol=1e-6)
    assert result.counts[0] == 2
    # Averaged over samples, the noise that h_2's mean inherits from h_1 is no activity; with one sample it is.
    np.testing.assert_allclose(result.variances[1], [bits[0], 0.0], atol=0.03)
    assert result.variances[1][1] < 0.01
    assert result.counts == (2, 1)
    assert paper_active_units(model, dataset).counts == (2, 2)


def test_the_papers_count_uses_the_first_500_training_images():
    dataset = toy_dataset(train=600, binary=True)
    model = rough_model(dataset)
    first = toy_dataset(train=600, binary=True)
    first.train[500:] = 1 - first.train[500:]
    for a, b in zip(
        paper_active_units(model, dataset).variances, paper_active_units(model, first).variances, strict=True
    ):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(active_units(model, dataset).variances[0], active_units(model, first).variances[0])
