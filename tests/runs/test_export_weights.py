"""A run with its weights alone: everything but further training takes it as it is."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import iwae
from helpers.small_runs import go, small_config, write_data
from iwae.cli.app import main, parse
from iwae.cli.train import Train
from iwae.data import load_dataset
from iwae.errors import IWAEError
from iwae.runs.checkpoint import CheckpointError
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.export_weights import export_weights, train_command
from iwae.runs.prune import prune_run


@pytest.fixture(scope="module")
def light(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_weights(Run.open(whole), Run.open(whole).checkpoint(), tmp_path_factory.mktemp("light") / "run")


def test_it_is_the_same_model_in_a_third_of_the_bytes(whole: Path, light: Path) -> None:
    for mine, theirs in zip(*(jax.tree.leaves(iwae.load(path)) for path in (light, whole)), strict=True):
        assert np.array_equal(mine, theirs)
    sizes = [(path / "checkpoints/3.safetensors").stat().st_size for path in (light, whole)]
    moments = 4 * 2 * sum(leaf.size for leaf in jax.tree.leaves(iwae.load(whole)))
    assert sizes[1] - sizes[0] > 0.9 * moments
    assert [path.name for path in (light / "checkpoints").iterdir()] == ["3.safetensors"]
    assert not list(light.glob(".lock*"))


def test_it_is_shown_and_measured_as_the_run_itself(
    data: Path, whole: Path, light: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ("name", "path", "dataset")
    mine, theirs = (
        {key: value for key, value in iwae.results(path)[0].items() if key not in named} for path in (light, whole)
    )
    assert mine == theirs
    figures = []
    for path in (light, whole):
        assert main(["evaluate", str(path), "--samples", "30", "--seed", "7", "--dataset", str(data)]) == 0
        figures.append(next(line for line in capsys.readouterr().out.splitlines() if "nats" in line))
    assert figures[0] == figures[1]


def test_what_was_measured_of_other_weights_stays_behind(whole: Path, tmp_path: Path) -> None:
    run = Run.open(whole)
    out = export_weights(run, run.checkpoint(1), tmp_path / "early")
    assert not (out / "results.json").exists()
    assert not list((out / "evaluations").iterdir())
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"] == run.checkpoint(1).step
    assert Run.open(out).checkpoint().stages_done == 1


def test_training_on_is_refused_with_the_way_to_start_from_it(
    light: Path, config: RunConfig, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"weights alone.*`init_from` and `fresh_optimizer`"):
        go(light, config, stages=4)
    warm = replace(config, init_from=str(light), epochs=1, learning_rate=1e-3)
    with pytest.raises(IWAEError, match=r"weights alone.*give `fresh_optimizer`"):
        go(tmp_path / "kept", warm)
    assert not (tmp_path / "kept").exists()
    fresh = replace(warm, fresh_optimizer=True)
    go(tmp_path / "light", fresh)
    go(tmp_path / "whole", replace(fresh, init_from=str(whole)))
    digests = {Run.open(tmp_path / name).checkpoint().weights_digest() for name in ("light", "whole")}
    assert len(digests) == 1


def test_it_is_pruned_as_the_run_is(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d.npz", num_train=400)
    run, dataset = tmp_path / "run", load_dataset(str(data))
    go(run, small_config(data, latent=(8, 3), hidden=(8, 8)), stages=3)
    light = export_weights(Run.open(run), Run.open(run).checkpoint(), tmp_path / "light")
    for path in (run, light):
        prune_run(Run.open(path), Run(tmp_path / f"{path.name}-pruned"), dataset, samples=5)
    mine, theirs = (Run.open(tmp_path / f"{name}-pruned").checkpoint() for name in ("light", "run"))
    assert (mine.has_moments, theirs.has_moments) == (False, True)
    assert mine.weights_digest() == theirs.weights_digest()
    assert mine.step == theirs.step


def test_nothing_is_overwritten(light: Path, whole: Path) -> None:
    before = {path: path.read_bytes() for path in light.rglob("*") if path.is_file()}
    with pytest.raises(IWAEError, match="not empty"):
        export_weights(Run.open(whole), Run.open(whole).checkpoint(), light)
    assert {path: path.read_bytes() for path in light.rglob("*") if path.is_file()} == before


def test_the_command_line_writes_it(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(whole), "--format", "weights", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    about = json.loads((tmp_path / "out/export.json").read_text())
    written = [path.read_text() for path in (tmp_path / "out").rglob("*.json*")]
    assert len(written) > 3
    assert not any(str(tmp_path.parent) in text for text in written)
    assert about["weights_sha256"] == Run.open(whole).checkpoint().weights_digest()


@pytest.mark.parametrize(
    "config",
    [
        RunConfig.of(),
        RunConfig.of(dataset="omniglot", model="iwae", k=50, layers=2, seed=3),
        RunConfig.of(model="iwae", k=5, schedule="fast", epochs=20),
        RunConfig.of(objective="renyi", alpha=0.5, k=7, estimator="dreg", batch_size=100, learning_rate=1e-4),
        RunConfig.of(latent=(50, 20, 10), hidden=(100, 50, 30), depth=1, adam_moments="current"),
        RunConfig.of(network="residual", layer_norm=True, dropout=0.1, prior="vampprior", prior_components=40),
        RunConfig.of(init_from="first", fresh_optimizer=True, epochs=7),
        RunConfig.of(dataset="my table.csv", likelihood="auto", target=("label",), columns=("a", "b"), order="file"),
    ],
    ids=lambda config: config.name(),
)
def test_its_command_gives_the_same_configuration(config: RunConfig) -> None:
    words = shlex.split(train_command(config))
    assert words[:2] == ["iwae", "train"]
    assert parse(Train, words[2:], prog="iwae train").configuration == config
