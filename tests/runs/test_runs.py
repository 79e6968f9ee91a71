"""Runs in process: what they leave behind. How they go on is in test_runs_continued.py."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import iwae
from helpers.small_runs import Messages, files_below, go, same_training, small_config, write_data
from iwae import IWAEError, MeasureOptions, RunConfig
from iwae.runs import evaluate
from iwae.runs.checkpoint import CheckpointError
from iwae.runs.data import run_dataset
from iwae.runs.directory import Run
from iwae.runs.evaluate import evaluate_ladder
from iwae.runs.reporter import Reporter


def run_json(path: Path) -> dict[str, Any]:
    return json.loads((path / "run.json").read_text())


def test_a_run_measures_itself_and_records_what_it_depends_on(data: Path, config: RunConfig, whole: Path) -> None:
    results = json.loads((whole / "results.json").read_text())
    assert results["config"] == config.to_json()
    assert RunConfig.from_json(results["config"]) == config
    assert results["seed"] == 0
    assert results["stages_done"] == 3
    assert results["stages_total"] == 8
    assert results["epochs"] == 1 + 3 + 9
    assert results["step"] == 13 * 3
    assert results["data"]["examples"] == {"train": 60, "valid": 7, "test": 30}
    (file,) = results["data"]["files"]
    assert file["name"] == data.name
    assert file["checksum"].startswith("sha256:")
    assert {"iwae", "jax", "numpy", "python"} <= results["versions"].keys()
    assert results["versions"]["iwae"] == iwae.__version__
    assert results["seconds"]["training"] > 0
    assert results["seconds"]["measuring"] > 0
    assert results["test"]["num_samples"] == 20
    assert results["test"]["num_examples"] == 30
    assert len(results["active_units"]) == len(results["active_units_paper_code"]) == 1
    assert 0 <= results["active_units"][0] <= 3
    assert results["data"] == run_json(whole)["data"]
    values = np.load(whole / results["files"]["per_example"])["log_likelihood"]
    assert results["test"]["nll"] == pytest.approx(-values.mean())
    assert results["test"]["stderr"] == pytest.approx(values.std(ddof=1) / math.sqrt(30))
    for name in results["files"].values():
        assert (whole / name).is_file()
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 14))
    assert [line["stage"] for line in lines] == [0] + 3 * [1] + 9 * [2]
    assert [line["step"] for line in lines] == list(range(3, 40, 3))
    assert [line["learning_rate"] for line in lines] == [1e-3] + 3 * [0.72e-3] + 9 * [0.52e-3]
    assert results["train_bound"] == lines[-1]["bound"]
    names = {path.name for path in (whole / "checkpoints").iterdir()}
    assert names == {f"{n}.safetensors" for n in range(4)}


@pytest.mark.parametrize("epochs", [1, 40, 700])
@pytest.mark.parametrize("end", [b"", b'{"stage": 3, "epo', b'{"no": "line of metrics"}\n'])
def test_the_epochs_done_are_those_of_the_last_whole_line(tmp_path: Path, epochs: int, end: bytes) -> None:
    run = Run(tmp_path)
    assert run.metrics.epochs_done() == 0
    for epoch in range(1, epochs + 1):
        run.metrics.append({"stage": 0, "epoch": epoch, "step": epoch, "learning_rate": 1e-3, "bound": -1.0})
    with open(run.metrics.path, "ab") as file:
        file.write(end)
    assert run.metrics.epochs_done() == epochs == len(run.metrics.lines())


def test_a_complete_run_is_not_trained_again(config: RunConfig, whole: Path) -> None:
    before = files_below(whole)
    messages = Messages()
    results = go(whole, config, stages=3, reporter=messages)
    assert results == json.loads((whole / "results.json").read_text())
    assert files_below(whole) == before
    assert any("complete" in text and str(whole) in text for text in messages.texts)
    # Fewer stages than there are change nothing either.
    assert go(whole, config, stages=1)["stages_done"] == 3
    assert files_below(whole) == before


def test_three_stochastic_layers(data: Path, tmp_path: Path) -> None:
    config = RunConfig.of(dataset=str(data), model="iwae", k=2, latent=(4, 3, 2), hidden=(6, 5, 4))
    assert config.layers == 3
    results = go(tmp_path / "run", config, stages=1)
    assert results["architecture"]["hidden"] == [[6, 6], [5, 5], [4, 4]]
    assert len(results["active_units"]) == 3
    assert math.isfinite(results["test"]["nll"])
    assert iwae.load(tmp_path / "run").latent == (4, 3, 2)


def test_no_valid_split_is_needed(tmp_path: Path) -> None:
    arrays = np.load(write_data(tmp_path / "all.npz"))
    np.savez(tmp_path / "two.npz", train=arrays["train"], test=arrays["test"])
    results = go(tmp_path / "run", small_config(tmp_path / "two.npz"), stages=1)
    assert results["data"]["examples"]["valid"] == 0
    assert math.isfinite(results["test"]["nll"])


def test_vae_and_iwae_are_one_model_at_k_1(data: Path, config: RunConfig, whole: Path, tmp_path: Path) -> None:
    go(tmp_path / "run", small_config(data, model="iwae"), stages=3)
    assert config.model == "vae"
    same_training(tmp_path / "run", whole, 3)


@pytest.mark.parametrize("change", [{"seed": 1}, {"k": 2}, {"batch_size": 30}, {"beta1": 0.9}, {"schedule": "quick"}])
def test_every_part_of_the_configuration_matters(
    data: Path, whole: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    config = small_config(data, **change)
    go(tmp_path / "run", config, stages=1)
    mine, other = (load_file(path / "checkpoints/1.safetensors") for path in (tmp_path / "run", whole))
    assert any(array.tobytes() != other[name].tobytes() for name, array in mine.items() if name.startswith("model."))
    assert config.name() != small_config(data).name()


def test_measuring_options(config: RunConfig, data: Path, tmp_path: Path) -> None:
    results = go(tmp_path / "run", config, stages=1, measure=MeasureOptions(test_samples=7, test_examples=11))
    assert (results["test"]["num_samples"], results["test"]["num_examples"]) == (7, 11)
    assert results["test"]["split_examples"] == 30
    assert len(np.load(tmp_path / "run" / results["files"]["per_example"])["log_likelihood"]) == 11
    assert MeasureOptions().examples_for(small_config(data, schedule="quick")) == 2000
    assert MeasureOptions().examples_for(config) is None
    assert MeasureOptions(test_examples=5000).examples_for(small_config(data, schedule="quick")) == 5000


@pytest.mark.parametrize("shape", [(6,), (4, 5)], ids=["vectors", "images"])
def test_samples_are_a_picture_and_its_values(tmp_path: Path, shape: tuple[int, ...]) -> None:
    go(tmp_path / "run", small_config(write_data(tmp_path / "some.npz", shape=shape)), stages=1)
    values = np.load(tmp_path / "run/samples.npy")
    assert values.shape == (100, math.prod(shape))
    assert 0 <= values.min() < values.max() <= 1
    pixels = np.asarray(Image.open(tmp_path / "run/samples.png"))
    assert pixels.ndim == 2
    if len(shape) == 1:
        assert pixels.shape == values.shape
        np.testing.assert_array_equal(pixels, np.round(values * 255).astype(np.uint8))
    else:
        # The first image stands at the top left, enlarged by a whole factor inside a margin.
        cell = (pixels.shape[0] - 2) // 10 - 2
        factor = cell // shape[0]
        first = pixels[2 : 2 + cell : factor, 2 : 2 + factor * shape[1] : factor]
        np.testing.assert_array_equal(first, np.round(values[0].reshape(shape) * 255).astype(np.uint8))


def test_load_gives_the_newest_a_numbered_and_a_files_model(whole: Path) -> None:
    def weights(model: iwae.HierarchicalVAE) -> bytes:
        return b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(model))

    model = iwae.load(whole)
    assert model.latent == (3,)
    bias = load_file(whole / "checkpoints/3.safetensors")["model.decoder.0.logits.bias"]
    np.testing.assert_array_equal(model.decoder[0].outputs.bias, bias)  # pyright: ignore[reportAttributeAccessIssue]
    assert weights(model) == weights(iwae.load(whole / "checkpoints/3.safetensors"))
    assert weights(model) != weights(iwae.load(whole, checkpoint=1))
    assert weights(iwae.load(whole, checkpoint=1)) == weights(iwae.load(whole / "checkpoints/1.safetensors"))
    with pytest.raises(
        CheckpointError, match=r"7\.safetensors: there is no such checkpoint; the newest intact one is 3"
    ):
        iwae.load(whole, checkpoint=7)
    with pytest.raises(IWAEError, match="no run here"):
        iwae.load(whole / "checkpoints")


@pytest.mark.parametrize(("split", "count"), [("test", 30), ("train", 60), ("valid", 7)])
def test_a_split_is_measured_and_written(whole: Path, split: Any, count: int) -> None:
    run = Run(whole)
    checkpoint, dataset = run.checkpoint(2), run_dataset(run, None, Reporter())
    seen = []

    class Counting(Reporter):
        def measuring(self, what: str, done: int, total: int) -> None:
            seen.append((what, done, total))

    (result,) = evaluate_ladder(run, checkpoint, dataset, split, samples=[9], seed=4, reporter=Counting())
    assert result.path.parent == result.npz_path.parent == whole / "evaluations"
    record = json.loads(result.path.read_text())
    assert (record["split"], record["num_examples"], record["num_samples"], record["seed"]) == (split, count, 9, 4)
    assert (record["checkpoint"], record["step"]) == ("2.safetensors", 12)
    assert record["weights_sha256"] == checkpoint.weights_digest()
    assert record["data"]["files"][0]["checksum"] == run_json(whole)["data"]["files"][0]["checksum"]
    with np.load(result.npz_path) as arrays:
        values, effective, jvi2 = arrays["log_likelihood"], arrays["effective_sample_size"], arrays["jvi2"]
        assert np.isnan(arrays["pareto_k"]).all()
    assert values.shape == effective.shape == (count,)
    assert values.dtype == effective.dtype == np.float64
    expected = iwae.likelihoods(iwae.load(whole, checkpoint=2), dataset, split, num_samples=9, seed=4)
    np.testing.assert_array_equal(values, expected.log_likelihood)
    assert record["nll"] == pytest.approx(-values.mean())
    assert record["stderr"] == pytest.approx(values.std(ddof=1) / math.sqrt(count))
    assert record["mean_effective_sample_size"] == pytest.approx(effective.mean())
    assert record["delta"] == pytest.approx(np.mean(0.5 / effective - 0.5 / 9))
    assert record["jvi2_nll"] == pytest.approx(-jvi2.mean())
    assert record["pareto_k_median"] is record["pareto_k_above"] is None
    assert effective.min() >= 1
    assert effective.max() <= 9.001
    assert seen[-1][1:] == (count, count)


def test_another_seed_k_or_number_of_examples_replaces_nothing(whole: Path) -> None:
    run = Run(whole)
    checkpoint, dataset = run.checkpoint(2), run_dataset(run, None, Reporter())
    paths = {
        evaluate_ladder(
            run, checkpoint, dataset, "valid", samples=[samples], seed=seed, examples=examples, reporter=Reporter()
        )[0].npz_path
        for samples, seed, examples in [(9, 4, None), (9, 5, None), (8, 4, None), (9, 4, 3)]
    }
    assert len(paths) == 4


def test_a_finished_run_takes_the_measurement_that_is_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was interrupted after it, or as several processes have measured parts."""
    path = tmp_path / "run"
    before = go(path, small_config(data), stages=1)
    (path / "results.json").unlink()
    monkeypatch.setattr(evaluate, "evaluate_ladder", lambda *_, **__: pytest.fail("measured again"))
    assert go(path, small_config(data), stages=1)["test"] == before["test"]


def test_one_example_has_no_standard_error(whole: Path) -> None:
    run = Run(whole)
    (result,) = evaluate_ladder(
        run,
        run.checkpoint(),
        run_dataset(run, None, Reporter()),
        "test",
        samples=[5],
        examples=1,
        reporter=Reporter(),
    )
    assert json.loads(result.path.read_text())["stderr"] is None


def test_numbers_of_numpy_are_kept_as_plain_ones(data: Path) -> None:
    """As someone writes it who loops over an array of k or of seeds."""
    given = {"k": np.int64(3), "seed": np.uint32(7), "beta1": np.float64(0.9), "latent": (np.int32(2),)}
    config = small_config(data, **given)
    assert RunConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert config == small_config(data, k=3, seed=7, beta1=0.9, latent=(2,))
    assert json.dumps(asdict(MeasureOptions(test_samples=np.int64(5)))) == '{"test_samples": 5, "test_examples": null}'  # pyright: ignore[reportArgumentType]
