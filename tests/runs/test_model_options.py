"""Runs of other networks, priors and posteriors: their names and records, training, continuing, measuring, pictures."""

import io
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import iwae
from helpers.small_runs import go, same_training, small_config, write_data
from iwae.errors import IWAEError
from iwae.figures import grids
from iwae.models.networks.conv import ConvEncoder
from iwae.runs.analyze import AnalyzeOptions, analyze_run
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.prune import prune_run
from iwae.training.loop import create_model

OTHER = [
    ({"network": "mlp", "activation": "relu", "dropout": 0.1, "layer_norm": True}, "mlp-relu-dropout0.1-layernorm"),
    ({"network": "mlp", "activation": "silu", "depth": 3}, "mlp-depth3"),
    ({"network": "conv", "conv_blocks": 1}, "conv-blocks1"),
    ({"prior": "mixture", "prior_components": 7}, "mixture7-prior"),
    ({"prior": "vampprior"}, "vamp500-prior"),
    ({"prior": "flow"}, "flow-prior"),
    ({"posterior": "full-covariance"}, "full-covariance-posterior"),
    ({"posterior": "flow", "flow_layers": 2}, "flow-posterior-flow2x100"),
]


@pytest.mark.parametrize(("options", "name"), OTHER, ids=[name for _, name in OTHER])
def test_a_configuration_is_named_and_recorded_by_what_is_not_usual(options: dict[str, Any], name: str) -> None:
    config = RunConfig.of(**options)
    assert config.name() == f"mnist-vae-k1-1layer-{name}-seed0"
    record = json.loads(json.dumps(config.to_json()))
    assert RunConfig.from_json(record) == config
    usual = RunConfig().to_json()
    assert usual.keys().isdisjoint(set(options) - {"network"})
    assert {key for key in record if key not in usual} >= set(options) - {"network", "activation"}
    assert config.differences(RunConfig()) != []


def test_depth_and_channels() -> None:
    assert RunConfig.of(latent=(4,), hidden=(8,), depth=3).architecture(5).hidden == ((8, 8, 8),)
    assert RunConfig.of(depth=1, layers=2).architecture(5).hidden == ((200,), (100,))
    assert RunConfig.of(network="conv", layers=2).architecture(6, (2, 3)).hidden == ((32, 64), (100, 100))
    conv = RunConfig.of(network="conv", latent=(4, 3), hidden=(8, 5), depth=3).architecture(12, (2, 2, 3))
    assert (conv.hidden, conv.image_shape) == (((8, 16, 32), (5, 5, 5)), (2, 2, 3))
    assert RunConfig.of(network="conv").architecture(6, (2, 3)).image_shape == (2, 3, 1)


@pytest.mark.parametrize(
    "options",
    [{"network": "conv"}, {"prior": "flow"}, {"posterior": "full-covariance"}, {"network": "mlp", "dropout": 0.1}],
)
def test_vectors_and_options_that_do_not_go_together_leave_nothing_behind(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """Vectors are no images; binary latents have no such prior or posterior."""
    data, wrong = write_data(tmp_path / "data.npz"), options
    if options != {"network": "conv"}:
        wrong = options | (
            {"latent_kind": "bernoulli", "objective": "vimco", "k": 2}
            if "dropout" not in options
            else {"network": "tanh"}
        )
    with pytest.raises(IWAEError) as raised:
        go(tmp_path / "run", small_config(data, **wrong), stages=1)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def colours(path: Path, count: int = 40) -> Path:
    """Images of one of three colours each, with a brighter corner."""
    rng = np.random.default_rng(0)
    images = np.tile(rng.integers(0, 60, (count, 1, 1, 3)), (1, 6, 5, 1))
    images[np.arange(count), :, :, rng.integers(3, size=count)] += 120
    images[:, :2, :2] += 40
    images = np.clip(images + rng.integers(-5, 6, images.shape), 0, 255).astype(np.uint8)
    np.savez(path, train=images[: count - 15], valid=images[-15:-10], test=images[-10:])
    return path


@pytest.fixture(scope="module")
def colour_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Any]:
    """A convolutional model of colour images with dropout and a VampPrior, trained twice as far after a stop."""
    root = tmp_path_factory.mktemp("colours")
    config = RunConfig.of(
        dataset=str(colours(root / "colours.npz")),
        likelihood="discretized-logistic",
        network="conv",
        latent=(3,),
        hidden=(4,),
        dropout=0.1,
        layer_norm=True,
        prior="vampprior",
        prior_components=5,
        objective="iwae",
        estimator="dreg",
        k=3,
        batch_size=5,
        learning_rate=3e-3,
    )
    go(root / "run", config, stages=1)
    results = go(root / "run", config, stages=2)
    go(root / "whole", config, stages=2)
    same_training(root / "run", root / "whole", 2)
    return Run(root / "run"), results


def test_colour_images_train_continue_and_are_measured(colour_run: tuple[Run, Any]) -> None:
    run, results = colour_run
    assert (run.data["image_shape"], run.data["dim"]) == ([6, 5, 3], 90)
    architecture = run.record["architecture"]
    assert architecture.get("image_shape") == [6, 5, 3]
    assert architecture.get("prior_components") == run.record["config"]["prior_components"] == 5
    bounds = [line["bound"] for line in run.metrics.lines()]
    assert bounds[-1] > bounds[0]
    assert np.isfinite(results["test"]["nll"])
    model = iwae.load(run.path)
    assert isinstance(model.encoder[0].network, ConvEncoder)  # pyright: ignore[reportAttributeAccessIssue]
    assert model.encoder[0].network.settings["dropout"] == 0.1  # pyright: ignore[reportAttributeAccessIssue]
    with Image.open(run.path / "samples.png") as image:
        assert image.mode == "RGB"


@pytest.mark.slow
def test_its_pictures_are_in_colour_and_what_has_none_says_why(colour_run: tuple[Run, Any]) -> None:
    run, _ = colour_run
    found = analyze_run(run.path, options=AnalyzeOptions(samples=10))
    assert {"samples", "reconstructions"} <= found["pictures"].keys()
    assert found["skipped"]["decoder_weights"] == found["skipped"]["encoder_weights"] == "the images have colours"
    with Image.open(run.path / "analysis" / "reconstructions.png") as image:
        assert image.mode == "RGB"
        pixels = np.asarray(image)
    # The first image stands there as it is.
    expected = np.load(run.path.parent / "colours.npz")["test"][0]
    factor = -(-grids.CELL // 6)
    cell = pixels[grids.MARGIN : grids.MARGIN + 6 * factor : factor, grids.MARGIN : grids.MARGIN + 5 * factor : factor]
    np.testing.assert_allclose(cell.astype(int), expected.astype(int), atol=1)


def test_it_is_not_pruned_or_explored(colour_run: tuple[Run, Any], tmp_path: Path) -> None:
    run, _ = colour_run
    dataset = iwae.load_dataset(run.config.dataset, reading=run.config.reading)
    with pytest.raises(IWAEError, match="only models with tanh networks can be pruned: this one has conv networks"):
        prune_run(run, Run(tmp_path / "pruned"), dataset)


def test_a_flow_prior_is_not_pruned(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.npz")
    go(tmp_path / "flow", small_config(data, prior="flow", epochs=1))
    with pytest.raises(IWAEError, match="standard or mixture prior can be pruned: this one has a flow one"):
        prune_run(Run(tmp_path / "flow"), Run(tmp_path / "no"), iwae.load_dataset(str(data)))
    assert not (tmp_path / "no").exists()


def test_a_warm_start_keeps_the_parts_or_says_which_differ(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data.npz")
    parts = {"network": "residual", "prior": "flow", "posterior": "flow", "flow_layers": 2, "flow_hidden": 4}
    go(tmp_path / "source", small_config(data, **parts, epochs=1))
    warm = {"init_from": str(tmp_path / "source"), "epochs": 1}
    go(tmp_path / "on", small_config(data, **parts, **warm))
    before, after = (Run(tmp_path / name).checkpoint().arrays for name in ("source", "on"))
    assert before.keys() == after.keys()
    with pytest.raises(IWAEError, match="`network` residual, `activation` silu, `prior` flow") as raised:
        go(tmp_path / "off", small_config(data, **warm))
    assert "\n" not in str(raised.value)


def test_shades_keep_the_range_of_pixels_and_share_it() -> None:
    (unit,), (pixels,) = grids.shades(np.array([0.0, 0.5, 1.0])), grids.shades(np.array([0.0, 51.0, 255.0]))
    assert (unit.tolist(), pixels.tolist()) == ([0, 128, 255], [0, 51, 255])
    one, other = grids.shades(np.array([-1.0, 1.0]), np.array([0.0, np.nan, 3.0]))
    assert (one.tolist(), other.tolist()) == ([0, 128], [64, 64, 255])
    with Image.open(io.BytesIO(grids.sample_grid(np.tile([0.0, 0.5, 1.0], (4, 6)), (2, 3, 3)))) as image:
        assert image.mode == "RGB"
        assert image.getpixel((grids.MARGIN, grids.MARGIN)) == (0, 128, 255)


@pytest.mark.parametrize("likelihood", ["bernoulli", "discretized-logistic", "gaussian"])
def test_colour_images_make_a_model_of_any_likelihood_of_values(likelihood: str) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3)).astype(np.uint8)
    dataset = iwae.Dataset.from_arrays(rows, likelihood=likelihood)
    assert dataset.image_shape == (5, 4, 3)
    model = create_model(dataset, iwae.Architecture(None, (2,), ((3,),), network="conv"))
    weights = model.log_weights(model.prepare(jnp.asarray(dataset.train), jax.random.key(0)), jax.random.key(1), 2)
    assert weights.shape == (2, 6)
    assert np.isfinite(weights).all()
