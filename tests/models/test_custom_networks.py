"""Models on networks of one's own: a convolutional encoder is trained, measured, saved and loaded."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import iwae
from iwae.models.pruning import prune

SIZE = 6


class Convolutional(eqx.Module):
    """A convolution over one image, which comes as a vector. A function of JAX is one of its leaves."""

    convolution: eqx.nn.Conv2d
    activation: Any

    def __init__(self, key: Any, activation: Any = jax.nn.relu):
        self.convolution = eqx.nn.Conv2d(1, 4, kernel_size=3, stride=2, padding=1, key=key)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        assert x.ndim == 1
        return jnp.ravel(self.activation(self.convolution(x.reshape(1, SIZE, SIZE))))


def networks(seed: int = 0) -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(seed))
    decoder = eqx.nn.MLP(3, 16, 16, depth=1, activation=jax.nn.relu, key=keys[1])
    return {"encoder": [Convolutional(keys[0])], "decoder": [decoder], "latent": [3]}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Images of one bright row each."""
    rng = np.random.default_rng(0)
    found = np.full((200, SIZE, SIZE), 0.1)
    found[np.arange(200), rng.integers(SIZE, size=200)] = 0.9
    return (rng.random(found.shape) < found).astype(np.uint8)


@pytest.fixture(scope="module")
def trained(images: np.ndarray) -> tuple[iwae.HierarchicalVAE, iwae.HierarchicalVAE, list[float]]:
    """The model before and after training, and the bound after each epoch."""
    start = iwae.create_model(images, **networks())
    bounds: list[float] = []
    model = iwae.fit(
        start,
        images,
        iwae.make_estimator("iwae:dreg", k=5),
        epochs=12,
        learning_rate=3e-3,
        callback=lambda progress: bounds.append(progress.bound),
    )
    return start, model, bounds


def test_a_convolutional_encoder_learns(images: np.ndarray, trained: Any) -> None:
    start, model, bounds = trained
    assert len(bounds) == 12
    assert bounds[-1] > bounds[0] + 1.0
    before, after = (iwae.log_likelihood(each, images, num_samples=100).mean() for each in (start, model))
    assert after > before + 1.0
    # The convolution itself was trained, and the function is the one that was given.
    assert not np.array_equal(start.encoder[0].network.convolution.weight, model.encoder[0].network.convolution.weight)
    assert model.encoder[0].network.activation is jax.nn.relu


def test_it_is_measured_like_any_model(images: np.ndarray, trained: Any) -> None:
    model = trained[1]
    assert iwae.encode(model, images).shape == (200, 3)
    assert iwae.reconstruct(model, images[:7], num_samples=10).shape == (7, SIZE * SIZE)
    assert model.sample(jax.random.key(0), 5).shape == (5, SIZE * SIZE)
    found = iwae.likelihoods(model, images[:50], num_samples=100)
    assert np.isfinite(found.log_likelihood).all()
    assert 1.0 <= found.mean_effective_sample_size <= 100.0


def test_it_is_saved_and_loaded_into_a_model_of_the_same_networks(
    images: np.ndarray, trained: Any, tmp_path: Path
) -> None:
    start, model, _ = trained
    path = tmp_path / "model.safetensors"
    iwae.save(model, path)
    loaded = iwae.load(path, into=start)
    np.testing.assert_array_equal(
        iwae.log_likelihood(loaded, images[:20], num_samples=30),
        iwae.log_likelihood(model, images[:20], num_samples=30),
    )
    with pytest.raises(iwae.IWAEError, match="give `into`") as raised:
        iwae.load(path)
    assert "\n" not in str(raised.value)
    other = iwae.create_model(images, iwae.Architecture(SIZE * SIZE, latent=(3,), hidden=((16,),)))
    with pytest.raises(iwae.IWAEError, match="is not in the file") as raised:
        iwae.load(path, into=other)
    assert "\n" not in str(raised.value)


def test_pruning_it_is_refused_in_one_line(trained: Any) -> None:
    model = trained[1]
    kept, means = (np.array([True, False, True]),), (np.zeros(3, np.float32),)
    with pytest.raises(iwae.IWAEError, match="only models with tanh networks can be pruned") as raised:
        prune(model, kept, means)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("place", ["encoder", "decoder"])
def test_a_network_that_cannot_take_its_input_is_named(images: np.ndarray, place: str) -> None:
    wrong = {**networks(), place: [eqx.nn.MLP(5, 4, 8, depth=1, key=jax.random.key(0))]}
    inputs = SIZE * SIZE if place == "encoder" else 3
    with pytest.raises(iwae.IWAEError, match=f"^MLP can't take an example of {inputs} numbers: ") as raised:
        iwae.create_model(images, **wrong)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "changes",
    [{"decoder": None}, {"latent": None}, {"latent": [3, 2]}, {"architecture": iwae.Architecture.paper(1)}],
    ids=["no decoder", "no latent", "two layers", "an architecture too"],
)
def test_networks_that_do_not_make_a_model_are_refused(images: np.ndarray, changes: dict[str, Any]) -> None:
    with pytest.raises(iwae.IWAEError) as raised:
        iwae.create_model(images, **{**networks(), **changes})
    assert "\n" not in str(raised.value)
    assert "`decoder`" in str(raised.value)


def test_a_layer_on_a_custom_network_gives_the_density_of_its_distribution() -> None:
    layer = iwae.GaussianLayer.on(Convolutional(jax.random.key(0)), 4, inputs=36, key=jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (3, 5, 36))
    value = jax.random.normal(jax.random.key(3), (3, 5, 4))
    found = layer.log_prob(value, x)
    assert found.shape == (3, 5)
    one = layer.log_prob(value[1, 2][None], x[1, 2][None])
    np.testing.assert_allclose(found[1, 2], one[0], rtol=1e-5)
