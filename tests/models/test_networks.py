"""Networks by name: shapes, what they compute against NumPy or Equinox, dropout, and what is refused."""

from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import iwae
from iwae.models.networks.base import Dropout, LayerNorm, Nonlinearity, with_precision
from iwae.models.networks.conv import ConvDecoder, ConvEncoder, Convolution, depth_to_space
from iwae.models.networks.gated import GatedNetwork
from iwae.models.networks.mlp import MLP
from iwae.models.networks.residual import ResidualNetwork
from iwae.models.vae import HierarchicalVAE
from iwae.training.optim import adam
from iwae.training.step import LearningRates, TrainState, train_step

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SHAPE = (5, 7, 3)
DIM = 5 * 7 * 3


def shaken(tree: Any, size: float = 0.2) -> Any:
    """The same tree with other numbers: what starts at zero is not there any more."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(3)
    return jax.tree.unflatten(
        structure,
        [
            jnp.asarray(leaf + (size * rng.normal(size=leaf.shape)).astype(leaf.dtype))
            for leaf in map(np.asarray, leaves)
        ],
    )


def test_an_mlp_of_tanh_is_the_papers_network() -> None:
    ours, theirs = MLP.create((4, 6, 3), KEY, activation="tanh"), iwae.TanhNetwork.create((4, 6, 3), KEY)
    x = jax.random.normal(KEY, (2, 5, 4))
    np.testing.assert_array_equal(ours(x), theirs(x))
    assert ours.widths == theirs.widths == (6, 3)


@pytest.mark.parametrize("name", ["silu", "relu", "leaky-relu", "elu", "gelu", "softplus", "tanh"])
def test_activations_are_those_of_their_names(name: Any) -> None:
    found = Nonlinearity.create(3, name, 0.0, False)(jnp.array([-2.0, 0.0, 1.0]))
    expected = {
        "silu": [-2.0 / (1 + np.exp(2.0)), 0.0, 1.0 / (1 + np.exp(-1.0))],
        "relu": [0.0, 0.0, 1.0],
        "leaky-relu": [-0.02, 0.0, 1.0],
        "elu": [np.expm1(-2.0), 0.0, 1.0],
        "gelu": [-0.0454, 0.0, 0.8412],
        "softplus": np.log1p(np.exp([-2.0, 0.0, 1.0])),
        "tanh": np.tanh([-2.0, 0.0, 1.0]),
    }
    np.testing.assert_allclose(found, expected[name], atol=2e-4)


def test_layer_norm_is_equinoxs() -> None:
    x = jax.random.normal(KEY, (6,)) * 3.0 + 1.0
    np.testing.assert_allclose(shaken(LayerNorm.create(6), 0.0)(x), eqx.nn.LayerNorm(6)(x), rtol=1e-4, atol=1e-5)
    scaled = LayerNorm(2.0 * jnp.ones(6), jnp.full(6, 5.0))
    np.testing.assert_allclose(scaled(x), 2.0 * eqx.nn.LayerNorm(6)(x) + 5.0, rtol=1e-4, atol=1e-5)


def test_a_residual_network_is_its_stem_at_first_and_sums_after() -> None:
    network: Any = ResidualNetwork.create((4, 6, 6), KEY, activation="relu")
    x = jax.random.normal(KEY, (3, 4))
    np.testing.assert_allclose(network(x), jax.nn.relu(network.stem(x)), rtol=1e-6)
    network = shaken(network)
    h = np.asarray(network.stem(x))
    for block in network.blocks:
        inner = np.maximum(np.maximum(h, 0.0) @ block.first.weight + block.first.bias, 0.0)
        h = h + inner @ block.second.weight + block.second.bias
    np.testing.assert_allclose(network(x), np.maximum(h, 0.0), rtol=1e-4, atol=1e-5)
    assert ResidualNetwork.create((4, 6, 5), KEY).widths == (6, 5)
    np.testing.assert_array_equal(ResidualNetwork.create((4,), KEY)(x), x)


@pytest.mark.parametrize(("side", "stride"), [(4, 2), (3, 1)])
def test_convolutions_are_equinoxs(side: int, stride: int) -> None:
    ours = shaken(Convolution.create(2, 3, KEY, side=side, stride=stride))
    x = jax.random.normal(KEY, (6, 8, 2))
    theirs = eqx.nn.Conv2d(2, 3, side, stride, padding=1, key=KEY)
    theirs = eqx.tree_at(
        lambda c: (c.weight, c.bias), theirs, (ours.weight.transpose(3, 2, 0, 1), ours.bias[:, None, None])
    )
    found, expected = ours(x), theirs(x.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert found.shape == (6 // stride, 8 // stride, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_depth_to_space_puts_four_numbers_into_a_square_and_doubling_starts_without_a_pattern() -> None:
    x = np.arange(2 * 3 * 8).reshape(2, 3, 8)
    found = np.asarray(depth_to_space(jnp.asarray(x, jnp.float32)))
    assert found.shape == (4, 6, 2)
    for row, column in np.ndindex(4, 6):
        place = 2 * (row % 2) + column % 2
        np.testing.assert_array_equal(found[row, column], x[row // 2, column // 2, 2 * place : 2 * place + 2])
    image = np.asarray(depth_to_space(Convolution.doubling(2, 3, KEY)(jax.random.normal(KEY, (4, 5, 2)))))
    np.testing.assert_array_equal(image, image[::2, ::2].repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("shape", [(5, 7, 3), (8, 8, 1), (1, 3, 2)])
def test_convolutional_networks_take_any_leading_axes_and_sizes(shape: Any) -> None:
    dim = int(np.prod(shape))
    options = {"image_shape": shape, "conv_blocks": 1, "layer_norm": True}
    encoder = shaken(ConvEncoder.create((dim, 4, 6), KEY, **options))
    decoder = shaken(ConvDecoder.create((3, 6, 4), KEY, **options))
    assert (encoder.widths, decoder.widths) == ((4, 6), (6, 4))
    x, h = jax.random.normal(KEY, (2, 3, dim)), jax.random.normal(KEY, (2, 3, 3))
    for network, given in ((encoder, x), (decoder, h)):
        found = np.asarray(eqx.filter_jit(network)(given))
        assert found.shape[:2] == (2, 3)
        np.testing.assert_allclose(found[1, 2], eqx.filter_jit(network)(given[1, 2]), rtol=1e-4, atol=1e-5)
    outputs = shaken(decoder.make_outputs(2 * dim, KEY))
    assert jax.eval_shape(lambda h: outputs(decoder(h)), h).shape == (2, 3, 2 * dim)


def test_images_are_where_they_were() -> None:
    """A pixel's change reaches its surroundings alone, in the encoder's features and in the outputs."""
    encoder = shaken(ConvEncoder.create((2 * DIM, 4), KEY, image_shape=SHAPE))
    pixel = np.zeros((2, *SHAPE), np.float32)
    pixel[1, 4, 6, 2] = 1.0
    change = encoder(jnp.asarray(np.ravel(pixel))) - encoder(jnp.zeros(2 * DIM))
    assert set(zip(*np.nonzero(np.abs(change.reshape(3, 4, 4)).max(axis=-1) > 0), strict=True)) <= {
        (1, 2), (1, 3), (2, 2), (2, 3),
    }  # fmt: skip
    decoder = ConvDecoder.create((2, 4), KEY, image_shape=SHAPE)
    outputs = shaken(decoder.make_outputs(2 * DIM, KEY))
    feature = np.zeros((5, 7, 4), np.float32)
    feature[0, 0, 1] = 1.0
    change = np.array(outputs(jnp.asarray(np.ravel(feature))) - outputs(jnp.zeros(5 * 7 * 4))).reshape(2, *SHAPE)
    assert np.abs(change[:, :2, :2]).min() > 0.0
    change[:, :2, :2] = 0.0
    assert np.abs(change).max() == 0.0


def make(network: str, latent: tuple[int, ...] = (3,), **options: Any) -> HierarchicalVAE:
    hidden = ((4, 6), *[(5,)] * (len(latent) - 1)) if network == "conv" else ((5, 5),) * len(latent)
    shape = {"image_shape": SHAPE} if network == "conv" else {}
    architecture = iwae.Architecture(DIM, latent, hidden, network=network, **shape, **options)
    assert iwae.Architecture.from_json(architecture.to_json()) == architecture
    return HierarchicalVAE.create(architecture, KEY)


@pytest.mark.parametrize(
    ("network", "latent"), [("mlp", (3, 2)), ("gated", (3,)), ("residual", (3,)), ("conv", (3, 2))]
)
def test_dropout_is_drawn_in_training_and_off_in_measurement(network: str, latent: tuple[int, ...]) -> None:
    # A residual block is nothing at first.
    plain, model = (shaken(made, 0.05) for made in (make(network, latent), make(network, latent, dropout=0.5)))
    x, noise = jnp.zeros((4, DIM)), model.draw_noise(KEY, 3, 4)
    weights = eqx.filter_jit(HierarchicalVAE.log_weights_at)
    np.testing.assert_array_equal(weights(model, x, noise), weights(plain, x, noise))
    trained = [weights(model.in_training(jax.random.key(seed)), x, noise) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(trained[0], trained[1])
    assert not np.allclose(trained[0], trained[2])
    assert not np.allclose(trained[0], weights(plain, x, noise))
    # An example's samples share its mask: fewer of them have the same weights.
    few = weights(model.in_training(jax.random.key(0)), x, tuple(layer[1:] for layer in noise))
    np.testing.assert_allclose(few, trained[0][1:], rtol=1e-4)
    assert plain.in_training(KEY) is plain


def test_dropout_keeps_the_mean_and_its_masks_differ() -> None:
    dropout = Dropout(0.3, KEY)
    found = np.asarray(dropout(jnp.ones((1, 200, 500))))
    assert set(np.unique(found)) == {0.0, np.float32(1.0) / np.float32(0.7)}
    assert found.mean() == pytest.approx(1.0, abs=0.01)
    model = make("mlp", dropout=0.5).in_training(KEY)
    keys: list[Any] = [
        n.key for n in jax.tree.leaves(model, is_leaf=lambda n: isinstance(n, Dropout)) if isinstance(n, Dropout)
    ]
    assert len({tuple(np.ravel(jax.random.key_data(key))) for key in keys}) == len(keys) == 4


@pytest.mark.parametrize("word", ["iwae:dreg", "iwae", "iwae:stl:backward=2", "beta-vae"])
def test_a_step_of_training_with_dropout_is_one_of_the_networks_that_were_drawn(word: str) -> None:
    model, optimizer = make("mlp", dropout=0.4, layer_norm=True), adam()
    state = TrainState.create(model, optimizer, 0)
    rows, estimator = jnp.asarray(RNG.random((6, DIM)) < 0.5, jnp.float32), iwae.make_estimator(word, k=3)
    step = eqx.filter_jit(partial(train_step, estimator=estimator, optimizer=optimizer, batch_size=6))
    after, bound = step(state, None, rows, LearningRates.constant(1e-2))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    _, again = step(state, None, rows, LearningRates.constant(1e-2))
    assert bound == again
    # The next step, from the same weights, draws others.
    _, other = step(replace(state, step=state.step + 1), None, rows, LearningRates.constant(1e-2))
    assert bound != other


@pytest.mark.parametrize("network", ["mlp", "gated", "residual", "conv"])
def test_products_in_bfloat16_are_near(network: str) -> None:
    model = shaken(make(network), 0.1)
    x, noise = jnp.asarray(RNG.random((4, DIM)), jnp.float32), model.draw_noise(KEY, 3, 4)
    rough = with_precision(model, "bfloat16")
    exact, near = (eqx.filter_jit(HierarchicalVAE.log_weights_at)(own, x, noise) for own in (model, rough))
    assert not np.array_equal(exact, near)
    np.testing.assert_allclose(near, exact, rtol=0.05)
    ours, theirs = (
        eqx.filter_jit(iwae.make_estimator(iwae.Objective("iwae", 3), precision=precision))(model, x, KEY).gradient
        for precision in ("bfloat16", "float32")
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=0.1 * np.abs(b).max() + 1e-3)


@pytest.mark.parametrize("network", ["mlp", "gated", "residual", "conv"])
def test_models_are_saved_and_loaded(network: str, tmp_path: Any) -> None:
    options = {"dropout": 0.25, "layer_norm": True, "prior": "vampprior", "prior_components": 3}
    options |= {} if network == "gated" else {"activation": "elu"}
    model = shaken(make(network, (3, 2), **options))
    iwae.save(model, tmp_path / "model.safetensors")
    loaded = iwae.load(tmp_path / "model.safetensors")
    assert jax.tree.structure(loaded) == jax.tree.structure(model)
    for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # What no architecture says is loaded into a model of the same parts.
    other = replace(
        model, encoder=(model.encoder[0], replace(model.encoder[1], network=GatedNetwork.create((3, 4), KEY)))
    )
    assert other.network is None or network == "gated"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "mpl"}, "`network` must be tanh or mlp or gated or residual or conv, got 'mpl'"),
        ({"activation": "relu"}, "`activation` relu goes with `network` mlp or residual or conv"),
        (
            {"dropout": 0.1},
            "`dropout` 0.1 goes with `network` mlp or gated or residual or conv",
        ),
        ({"network": "mlp", "dropout": 1.0}, "`dropout` must be at least 0 and below 1, got 1.0"),
        ({"network": "mlp", "dropout": float("nan")}, "`dropout` must be at least 0 and below 1, got nan"),
        ({"network": "mlp", "activation": "sine"}, "`activation` must be silu or relu"),
        ({"network": "mlp", "layer_norm": 1}, "`layer_norm` must be true or false, got 1"),
        ({"network": "mlp", "conv_blocks": 2}, "`conv_blocks` 2 goes with `network` conv"),
        ({"prior_components": 5}, "`prior_components` 5 goes with `prior` mixture or vampprior"),
        ({"prior": "mixture", "prior_components": 0}, "`prior_components` must be an integer of at least 1"),
        ({"prior": "flow", "flow_layers": 2.5}, "`flow_layers` must be an integer of at least 1"),
        ({"posterior": 3}, "`posterior` must be diagonal or full-covariance or flow, got 3"),
        ({"image_shape": (2, 3)}, "`image_shape` goes with `network` conv, not with tanh"),
        ({"network": "conv", "image_shape": (2, 4)}, "`image_shape` must be height, width and channels of the 6"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(iwae.IWAEError) as raised:
        iwae.Architecture(6, (2,), ((3,),), **options)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_convolutions_need_images_channels_and_one_kind_of_values() -> None:
    vectors, architecture = np.ones((4, 6)), iwae.Architecture(None, (2,), ((3,),), network="conv")
    with pytest.raises(iwae.IWAEError, match="`network` conv is for images, and the data are none"):
        iwae.create_model(vectors, architecture)
    with pytest.raises(iwae.IWAEError, match="needs the channels of one convolution or more"):
        iwae.Architecture(6, (2,), ((),), network="conv")
    levels = np.arange(24).reshape(4, 2, 3) % 3
    with pytest.raises(iwae.IWAEError, match="the categorical likelihood takes others"):
        iwae.create_model(iwae.Dataset.from_arrays(levels, likelihood="categorical"), architecture)
