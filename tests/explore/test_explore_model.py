"""What the page of `iwae explore` shows, against the model itself and loops in NumPy."""

import dataclasses
import io
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from helpers.numpy_model import BIAS, SMALL, numpy_hidden, numpy_linear, numpy_log_weight
from helpers.toy import toy_dataset
from iwae import HierarchicalVAE, IWAEError, active_units, likelihoods
from iwae.evaluation.likelihood import ActiveUnits
from iwae.evaluation.visualization import TRAVERSED_PROBABILITIES, traverse
from iwae.explore.model_view import (
    MAX_SAMPLES,
    MAX_SLIDERS,
    ModelView,
    decode_at_means,
    slider_units,
    top_posterior_mean,
    weighted_reconstruction,
)
from iwae.explore.pictures import STRIP_HEIGHT, picture
from iwae.explore.server import describe
from iwae.report.captions import CAPTIONS


def rough_model(layers: int) -> HierarchicalVAE:
    """Random weights large enough for unequal importance weights."""
    rng = np.random.default_rng(layers)
    model = HierarchicalVAE.create(SMALL[layers], jax.random.key(layers), bias=BIAS)
    return jax.tree.map(lambda a: a + 0.3 * rng.normal(size=a.shape).astype(np.float32), model)


def numpy_visible_mean(model, latent):
    """The visible layer's mean at a value of the layer above it."""
    logits = numpy_linear(model.decoder[0].outputs, numpy_hidden(model.decoder[0], latent))
    return 1 / (1 + np.exp(-logits))


def view_of(layers: int, *, binary: bool = False) -> tuple[ModelView, HierarchicalVAE]:
    model = rough_model(layers)
    active = ActiveUnits((), tuple(np.linspace(1, 0.005, units) for units in model.latent))
    return ModelView(model, toy_dataset(binary=binary), active), model


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_decoding_follows_the_conditional_means(layers):
    model = rough_model(layers)
    top = np.random.default_rng(0).normal(size=(4, model.latent[-1])).astype(np.float32)
    value = top.astype(np.float64)
    for layer in model.decoder[:0:-1]:
        value = numpy_linear(layer.mean, numpy_hidden(layer, value))  # pyright: ignore[reportAttributeAccessIssue]
    actual = eqx.filter_jit(decode_at_means)(model, jnp.asarray(top))
    np.testing.assert_allclose(actual, numpy_visible_mean(model, value), rtol=1e-4)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_posterior_mean_follows_the_conditional_means(layers):
    model = rough_model(layers)
    x = np.random.default_rng(0).integers(0, 2, size=(3, 6)).astype(np.float32)
    value = x.astype(np.float64)
    for layer in model.encoder:
        value = numpy_linear(layer.mean, numpy_hidden(layer, value))
    np.testing.assert_allclose(top_posterior_mean(model, jnp.asarray(x)), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 4, 7])
def test_the_weighted_reconstruction_is_that_of_a_loop_over_samples(layers, k):
    model = rough_model(layers)
    x = np.random.default_rng(1).integers(0, 2, size=(1, 6)).astype(np.float32)
    noise = model.draw_noise(jax.random.key(5), 7, 1)
    actual = eqx.filter_jit(weighted_reconstruction)(model, jnp.asarray(x), noise, jnp.int32(k))
    total, squares, mean = 0.0, 0.0, np.zeros(6)
    for i in range(k):
        epsilon = [np.asarray(layer[i, 0], np.float64) for layer in noise]
        weight = np.exp(numpy_log_weight(model, x[0], epsilon))
        features = numpy_hidden(model.encoder[0], x[0])
        sigma = np.exp(numpy_linear(model.encoder[0].log_sigma, features))
        latent = numpy_linear(model.encoder[0].mean, features) + sigma * epsilon[0]
        mean += weight * numpy_visible_mean(model, latent)
        total += weight
        squares += weight**2
    np.testing.assert_allclose(actual.mean, mean / total, rtol=1e-4)
    assert float(actual.log_likelihood) == pytest.approx(np.log(total / k), rel=1e-5)
    assert float(actual.effective_sample_size) == pytest.approx(total**2 / squares, rel=1e-4)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("binary", [False, True])
def test_an_encoded_example_has_the_figures_that_evaluate_gives(layers, binary):
    view, model = view_of(layers, binary=binary)
    dataset = toy_dataset(binary=binary)
    measured = likelihoods(model, dataset, "test", num_samples=60)
    for index in (0, 7, len(dataset.test) - 1):
        encoded = view.encode(index, 60)
        assert encoded.log_likelihood == pytest.approx(measured.log_likelihood[index], rel=1e-5)
        assert encoded.effective_sample_size == pytest.approx(measured.effective_sample_size[index], rel=1e-4)
        assert set(np.unique(encoded.encoded)) <= {0.0, 1.0}
        np.testing.assert_allclose(encoded.original, dataset.test[index] * dataset.scale)
        mean = np.asarray(top_posterior_mean(model, jnp.asarray(encoded.encoded)[None]))[0]
        np.testing.assert_allclose(encoded.values, mean[[unit.index for unit in view.units]], rtol=1e-5, atol=1e-6)


def test_the_effective_sample_size_lies_between_one_and_k():
    view, _ = view_of(1)
    assert view.encode(0, 1).effective_sample_size == pytest.approx(1.0)
    for k in (2, 50, MAX_SAMPLES):
        assert 1.0 <= view.encode(0, k).effective_sample_size <= k


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_sliders_move_their_units_and_the_others_stay_at_zero(layers):
    model, dataset = rough_model(layers), toy_dataset()
    units = model.latent[-1]
    variances = np.array([0.5, 0.001, 0.9, 0.2][:units])
    nothing = tuple(np.zeros(n) for n in model.latent)
    view = ModelView(model, dataset, ActiveUnits(nothing, (*nothing[:-1], variances)))
    order = [i for i in np.argsort(-variances) if variances[i] > 0.01]
    assert [unit.index for unit in view.units] == order
    assert [unit.variance for unit in view.units] == [variances[i] for i in order]
    values = np.linspace(-1, 2, len(order))
    top = np.zeros((1, units), np.float32)
    top[0, order] = values
    np.testing.assert_allclose(view.decode(values), decode_at_means(model, jnp.asarray(top))[0], rtol=1e-5)


def test_where_no_unit_is_active_all_have_sliders_and_the_number_is_bounded():
    active = ActiveUnits((np.zeros(3),), (np.array([0.001, 0.003, 0.002]),))
    assert [unit.index for unit in slider_units(active)] == [1, 2, 0]
    many = ActiveUnits((np.zeros(1000),), (np.linspace(1, 2, 1000),))
    assert [unit.index for unit in slider_units(many)] == list(range(999, 999 - MAX_SLIDERS, -1))


def test_the_prior_gives_the_same_values_for_the_same_number():
    view, _ = view_of(1)
    np.testing.assert_array_equal(view.prior(3), view.prior(3))
    draws = np.array([view.prior(i) for i in range(400)])
    assert draws.shape == (400, len(view.units))
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=0.2)
    np.testing.assert_allclose(draws.std(axis=0), 1.0, atol=0.15)


@pytest.mark.parametrize(("index", "k", "words"), [(-1, 5, "0 to 11"), (12, 5, "0 to 11"), (0, 0, "1 to 500")])
def test_what_is_out_of_range_is_refused_in_one_line(index, k, words):
    view, _ = view_of(1)
    with pytest.raises(IWAEError, match=words) as raised:
        view.encode(index, k)
    assert "\n" not in str(raised.value)


def test_data_without_test_examples_can_still_be_explored():
    model = rough_model(1)
    dataset = dataclasses.replace(toy_dataset(), test=np.zeros((0, 6), np.uint8))
    view = ModelView(model, dataset, active_units(model, dataset))
    view.compile()
    with pytest.raises(IWAEError, match="no test examples"):
        view.encode(0, 1)


@pytest.fixture
def binary_view() -> tuple[ModelView, HierarchicalVAE]:
    """A model whose top layer is Bernoulli, with a prior away from one half, and one unit that has no slider."""
    architecture = dataclasses.replace(SMALL[2], kinds=("bernoulli", "bernoulli"))
    model = HierarchicalVAE.create(architecture, jax.random.key(3), bias=BIAS)
    logits = jnp.linspace(-2.0, 2.0, model.latent[-1])
    model = eqx.tree_at(lambda m: m.prior.logits, model, logits)
    variances = np.linspace(1, 0.02, model.latent[-1])
    variances[0] = 0.001
    nothing = tuple(np.zeros(units) for units in model.latent)
    return ModelView(model, toy_dataset(), ActiveUnits(nothing, (nothing[0], variances))), model


def test_binary_units_rest_at_the_priors_mean_and_are_drawn_from_it(binary_view):
    view, model = binary_view
    assert view.units_are_binary
    probabilities = np.asarray(model.prior.mean)
    columns = [unit.index for unit in view.units]
    assert 0 not in columns
    np.testing.assert_allclose(view.resting(), probabilities[columns], rtol=1e-6)
    draws = np.array([view.prior(i) for i in range(400)])
    assert set(np.unique(draws)) == {0.0, 1.0}
    np.testing.assert_allclose(draws.mean(axis=0), probabilities[columns], atol=0.1)
    values = np.ones(len(columns))
    top = probabilities.copy()
    top[columns] = values
    np.testing.assert_allclose(view.decode(values), decode_at_means(model, jnp.asarray(top)[None])[0], rtol=1e-5)
    encoded = view.encode(2, 10)
    assert np.all((encoded.values > 0) & (encoded.values < 1))
    about = describe(view, "title", [])
    assert about["binary_units"]
    np.testing.assert_allclose([unit["resting"] for unit in about["units"]], view.resting())


def test_traversals_of_binary_units_go_from_zero_to_one(binary_view):
    _, model = binary_view
    images = traverse(model, [1], (0.0, 1.0))
    for column, value in enumerate((0.0, 1.0)):
        top = np.asarray(model.prior.mean).copy()
        top[1] = value
        np.testing.assert_allclose(images[0, column], decode_at_means(model, jnp.asarray(top)[None])[0], rtol=1e-5)
    assert (TRAVERSED_PROBABILITIES[0], TRAVERSED_PROBABILITIES[-1]) == (0, 1)
    analysis: Any = {"layers": [{"active": 2}], "architecture": {"kinds": ["gaussian", "bernoulli"]}}
    alt = CAPTIONS["traversals"].alt(analysis)
    assert "columns for values from 0 to 1" in alt


def read_png(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_an_image_is_a_pixel_for_each_value():
    values = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    np.testing.assert_array_equal(read_png(picture(values, (2, 3))), [[0, 51, 102], [153, 204, 255]])


def test_a_vector_is_a_strip_of_bars():
    bars = read_png(picture(np.array([0.0, 0.5, 1.0]), None))
    assert bars.shape == (STRIP_HEIGHT, 3, 4)
    np.testing.assert_array_equal((bars[..., 3] > 0).sum(axis=0), [0, STRIP_HEIGHT // 2, STRIP_HEIGHT])
    assert bars[-1, 1, 3] == 255
    assert bars[0, 1, 3] == 0


def test_values_that_are_no_numbers_are_drawn_as_nothing():
    np.testing.assert_array_equal(
        read_png(picture(np.array([np.nan, -5.0, 7.0, np.inf]), (2, 2))), [[0, 0], [255, 255]]
    )
