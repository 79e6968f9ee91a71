"""Analysis of a run: numbers against directly computed ones, pictures, reuse of measurements, bad input."""

import json
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.special import logsumexp

import iwae
import iwae.evaluation.likelihood
from helpers.small_runs import Messages, flip_byte, go, small_config, write_data
from iwae.cli.analyze import Analyze
from iwae.data import load_dataset
from iwae.evaluation import importance_weights, visualization
from iwae.runs.analyze import AnalyzeOptions, analyze_run
from iwae.runs.directory import Run
from iwae.runs.evaluate import overfitting_gap
from iwae.runs.records import AnalysisRecord

OPTIONS = AnalyzeOptions(samples=30)
IMAGE_PICTURES = {"samples", "reconstructions", "traversals", "encoder_weights", "decoder_weights"}
CHARTS = {"training_curve", "log_variances", "log_weights", "effective_sample_size"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained runs: `images`, one layer on 5 x 4 images, and `vectors`, two layers on vectors."""
    directory = tmp_path_factory.mktemp("analysis")
    images = write_data(directory / "images.npz", shape=(5, 4))
    vectors = write_data(directory / "vectors.npz")
    go(directory / "images", small_config(images, model="iwae", k=3), stages=3)
    go(directory / "vectors", small_config(vectors, latent=(4, 2), hidden=(8, 6)), stages=1)
    return directory


@pytest.fixture(scope="module", params=["images", "vectors"])
def analyzed(place: Path, request: pytest.FixtureRequest) -> tuple[Path, AnalysisRecord]:
    path = place / request.param
    return path, analyze_run(path, options=OPTIONS)


def read_strictly(path: Path) -> dict[str, Any]:
    def forbid(name: str) -> None:
        raise AssertionError(f"{name} in {path}")

    return json.loads(path.read_text(), parse_constant=forbid)


def test_numbers_are_those_of_the_model(analyzed: tuple[Path, AnalysisRecord]) -> None:
    path, found = analyzed
    model, data = iwae.load(path), load_dataset(Run(path).config.dataset)
    test = iwae.likelihoods(model, data, num_samples=30)
    train = iwae.likelihoods(model, data, "train", num_samples=30, max_examples=30)
    assert found["test"]["nll"] == pytest.approx(test.nll)
    assert found["test"]["stderr"] == pytest.approx(test.stderr)
    assert found["train"]["nll"] == pytest.approx(train.nll)
    assert (found["test"]["num_examples"], found["train"]["num_examples"]) == (30, 30)
    assert found["gap"]["value"] == pytest.approx(test.nll - train.nll)
    assert found["gap"]["stderr"] == pytest.approx(math.sqrt(test.stderr**2 + train.stderr**2))
    units = iwae.active_units(model, data)
    assert [layer["active"] for layer in found["layers"]] == list(units.counts)
    for layer, variances in zip(found["layers"], units.variances, strict=True):
        assert layer["variances"] == pytest.approx(list(variances))
    assert found["effective_sample_size"]["quantiles"]["0.5"] == pytest.approx(np.median(test.effective_sample_size))
    assert found["train_bound"] == Run(path).metrics.lines()[-1]["bound"]


def test_the_json_is_complete(analyzed: tuple[Path, AnalysisRecord]) -> None:
    path, found = analyzed
    written = read_strictly(path / "analysis/analysis.json")
    assert written == found
    run = Run(path)
    assert written["weights_sha256"] == run.checkpoint().weights_digest()
    assert written["config"] == run.config.to_json()
    with np.load(path / "analysis" / written["arrays"]) as arrays:
        assert arrays["relative_log_weights"].shape == (30, 30)
        assert arrays["effective_sample_size"].shape == arrays["log_likelihood"].shape == (30,)
        for layer in written["layers"]:
            assert len(layer["variances"]) == layer["units"] == len(arrays[f"variances_{layer['layer']}"])
    for split in ("test", "train"):
        assert (path / written[split]["evaluation"]).is_file()


def test_pictures_are_pngs_of_a_sensible_size(analyzed: tuple[Path, AnalysisRecord]) -> None:
    path, found = analyzed
    expected = CHARTS | (IMAGE_PICTURES if path.name == "images" else set())
    active_top = found["layers"][-1]["active"]
    assert found["pictures"].keys() | found["skipped"].keys() == CHARTS | IMAGE_PICTURES
    assert found["pictures"].keys() == expected - (set() if active_top else {"traversals"})
    for name in found["pictures"].values():
        with Image.open(path / "analysis" / name) as image:
            image.load()
            assert image.format == "PNG"
            assert 100 <= min(image.size) <= max(image.size) <= 3000, name
            assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 2, name


def test_vectors_have_no_image_pictures(place: Path) -> None:
    found = analyze_run(place / "vectors", options=OPTIONS)
    assert found["skipped"] == dict.fromkeys(IMAGE_PICTURES, "the data are vectors, not images")


def test_nothing_is_measured_twice(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = analyze_run(place / "images", options=OPTIONS)
    likelihoods = iwae.evaluation.likelihood.likelihoods

    def measured(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(iwae.evaluation.likelihood, "likelihoods", measured)
    second = analyze_run(place / "images", options=OPTIONS)
    assert {**second, "seconds": 0} == {**first, "seconds": 0}
    # Fewer examples are among those measured.
    fewer = analyze_run(place / "images", options=AnalyzeOptions(samples=30, examples=10))
    monkeypatch.setattr(iwae.evaluation.likelihood, "likelihoods", likelihoods)
    model, data = iwae.load(place / "images"), load_dataset(Run(place / "images").config.dataset)
    assert fewer["train"]["nll"] == pytest.approx(
        iwae.likelihoods(model, data, "train", num_samples=30, max_examples=10).nll
    )
    # Other weights are other measurements.
    other = analyze_run(place / "images", options=OPTIONS, checkpoint=1)
    assert other["test"]["nll"] != first["test"]["nll"]
    assert other["stages_done"] == 1


def test_the_measurement_of_training_is_used(place: Path) -> None:
    messages = Messages()
    found = analyze_run(place / "vectors", options=AnalyzeOptions(samples=20), reporter=messages)
    assert any(text.startswith("Using the test likelihood") for text in messages.texts)
    results = Run(place / "vectors").results()
    assert results is not None
    assert found["test"]["nll"] == pytest.approx(results["test"]["nll"])


def test_damaged_measurements_are_made_again(place: Path) -> None:
    first = analyze_run(place / "images", options=AnalyzeOptions(samples=12))
    evaluations = place / "images/evaluations"
    for path in evaluations.glob("*-test-12*.json"):
        path.write_text("{")
    for path in evaluations.glob("*-train-12*.npz"):
        flip_byte(path, position=60)
    assert analyze_run(place / "images", options=AnalyzeOptions(samples=12))["gap"] == first["gap"]


def test_log_weights_are_those_of_the_likelihood(place: Path) -> None:
    for name in ("images", "vectors"):
        model, data = iwae.load(place / name), load_dataset(Run(place / name).config.dataset)
        log_weights = importance_weights.example_log_weights(model, data, num_samples=70, num_examples=11)
        expected = iwae.likelihoods(model, data, num_samples=70, max_examples=11)
        np.testing.assert_allclose(logsumexp(log_weights, axis=1) - np.log(70), expected.log_likelihood, rtol=1e-5)
        relative = importance_weights.relative_log_weights(log_weights)
        np.testing.assert_allclose(np.mean(np.exp(relative), axis=1), 1.0)
        np.testing.assert_allclose(np.diff(relative), np.diff(log_weights), atol=1e-5)


def test_traversals_change_one_unit_and_keep_the_rest_at_their_means(place: Path) -> None:
    model = iwae.load(place / "vectors")
    values = (-2.0, 0.0, 2.0)
    images = visualization.traverse(model, [1, 0], values)
    assert images.shape == (2, 3, 6)
    np.testing.assert_allclose(images[0, 1], images[1, 1], rtol=1e-6)
    top = jnp.array([[0.0, 2.0]])
    expected = model.decoder[0](model.decoder[1](top).mean).mean
    np.testing.assert_allclose(images[0, 2], expected[0], rtol=1e-5)


def test_reconstructions_decode_draws_of_the_posterior(place: Path) -> None:
    model, data = iwae.load(place / "images"), load_dataset(Run(place / "images").config.dataset)
    originals, decoded = visualization.reconstructions(model, data, num_examples=5)
    np.testing.assert_array_equal(originals, data.test[:5])
    draws = iwae.posterior(model, data, num_samples=1000, indices=range(5))[0][0]
    np.testing.assert_allclose(decoded, model.decoder[0](jnp.asarray(draws)).mean, rtol=1e-5)


def test_weights_are_taken_by_unit_and_norm(place: Path) -> None:
    model = iwae.load(place / "images")
    first = visualization.first_encoder_weights(model)
    assert first is not None
    assert first.shape == (8, 20)
    last = visualization.last_decoder_weights(model)
    assert last is not None
    assert last.shape == (8, 20)
    weights = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, -2.0]])
    np.testing.assert_array_equal(visualization.by_norm(weights, 2), [[3.0, 4.0], [0.0, -2.0]])


def test_the_gap_of_single_examples_has_no_error() -> None:
    none = np.array([np.nan])
    one = iwae.evaluation.likelihood.Likelihoods(np.array([-2.0]), np.array([1.0]), 1, none, none)
    assert overfitting_gap(one, one) == {"value": 0.0, "stderr": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "`samples` must be an integer of at least 1, got 0"),
        ({"samples": 100_001}, "`samples` must be at most 100,000, got 100001"),
        ({"examples": 0}, "`examples` must be an integer of at least 1, got 0"),
    ],
)
def test_bad_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(iwae.IWAEError, match=message):
        AnalyzeOptions(**options)


def test_what_can_not_be_analyzed_is_one_line(place: Path, tmp_path: Path) -> None:
    with pytest.raises(iwae.IWAEError, match="there is no run here"):
        analyze_run(tmp_path)
    with pytest.raises(iwae.IWAEError, match=r"the newest intact one is 3"):
        analyze_run(place / "images", checkpoint=9)
    assert not (tmp_path / "analysis").exists()


def test_the_command_prints_the_numbers(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Analyze(place / "vectors", samples=10, examples=8).run([]) == 0
    out = capsys.readouterr().out
    found = read_strictly(place / "vectors/analysis/analysis.json")
    assert f"Test NLL: {found['test']['nll']:.2f} ± {found['test']['stderr']:.2f} nats" in out
    assert "the first 8 of 30 test examples, k = 10" in out
    assert "No samples: the data are vectors, not images" in out
