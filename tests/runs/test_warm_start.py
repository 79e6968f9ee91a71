"""Runs that start from another's last state: what is kept, what is recorded, what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from helpers.small_runs import Messages, go, same_training, small_config, write_data
from iwae.cli import main, paper_experiment
from iwae.errors import IWAEError
from iwae.runs.checkpoint import load_checkpoint
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A directory with `d.npz` and a trained run `vae`."""
    directory = tmp_path_factory.mktemp("warm")
    data = write_data(directory / "d.npz")
    go(directory / "vae", small_config(data, schedule="quick"), stages=2)
    return directory


def warm(source: Path, **changes) -> RunConfig:
    values = {"model": "iwae", "k": 5, "init_from": str(source / "vae"), "epochs": 3, **changes}
    return small_config(source / "d.npz", **values)


def test_weights_and_moments_are_the_sources_and_the_count_starts_anew(source):
    reporter = Messages()
    go(source / "kept", warm(source), reporter=reporter)
    theirs = load_file(source / "vae/checkpoints/2.safetensors")
    mine = load_file(source / "kept/checkpoints/0.safetensors")
    for name, array in theirs.items():
        if name.startswith(("model.", "optimizer.")):
            np.testing.assert_array_equal(mine[name], array, err_msg=name)
    assert mine["step"] == 0
    assert theirs["step"] > 0
    assert any("vae k=1, now trained on as iwae k=5" in text for text in reporter.texts)
    metrics = [json.loads(line) for line in (source / "kept/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in metrics] == [1, 2, 3]
    assert {line["learning_rate"] for line in metrics} == {1e-4}
    results = Run(source / "kept").results()
    assert results is not None
    assert (results["stages_done"], results["stages_total"]) == (1, 1)


def test_show_keeps_the_name_of_a_warm_start_whole(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copytree(source / "vae", tmp_path / "mnist-vae-k1-1layer-seed0")
    config = warm(source, init_from=str(tmp_path / "mnist-vae-k1-1layer-seed0"), epochs=1)
    name = "mnist-iwae-k50-1layer-from-mnist-vae-k1-1layer-seed0-seed0"
    go(tmp_path / name, config)
    assert main(["show", str(tmp_path / name)]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{name}  ")


def test_a_run_whose_source_was_moved_along_with_it_is_continued(source, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(source / "vae", old / "vae")
    config = warm(source, init_from=str(old / "vae"))
    go(old / "iwae", config)
    old.rename(new)
    messages = Messages()
    go(new / "iwae", replace(config, init_from=str(new / "vae")), reporter=messages)
    assert any("This run is complete" in text for text in messages.texts)
    with pytest.raises(IWAEError, match="another configuration"):
        go(new / "iwae", replace(config, init_from=str(new / "other")))


def test_the_source_is_recorded(source):
    go(source / "recorded", warm(source))
    record = json.loads((source / "recorded/run.json").read_text())["init_from"]
    checkpoint = load_checkpoint(source / "vae/checkpoints/2.safetensors")
    assert record["weights_sha256"] == checkpoint.weights_digest()
    assert record["config"] == Run(source / "vae").config.to_json()
    assert (record["checkpoint"], record["step"]) == ("2.safetensors", checkpoint.step)


def test_a_fresh_optimizer_starts_with_its_own_moments(source):
    go(source / "fresh", warm(source, fresh_optimizer=True, learning_rate=1e-3))
    mine = load_file(source / "fresh/checkpoints/0.safetensors")
    assert mine["optimizer.count"] == 0
    assert all(np.all(array == 1) for name, array in mine.items() if name.startswith("optimizer.nu."))
    first = json.loads((source / "fresh/metrics.jsonl").read_text().splitlines()[0])
    assert first["learning_rate"] == 1e-3


def test_it_continues_exactly_even_without_its_source(source):
    go(source / "whole", warm(source))
    go(source / "again", warm(source))
    (source / "vae").rename(source / "away")
    try:
        go(source / "again", warm(source), checkpoint=0)
    finally:
        (source / "away").rename(source / "vae")
    same_training(source / "whole", source / "again", 1)


def test_another_architecture_or_dimension_is_refused_before_anything_is_written(source, tmp_path):
    with pytest.raises(IWAEError, match=r"its model has 6 visible, 3 latent and 8, 8 hidden units, this run's has"):
        go(tmp_path / "run", warm(source, latent=(4,)))
    wide = write_data(tmp_path / "wide.npz", shape=(7,))
    with pytest.raises(IWAEError, match="this run's has 7 visible"):
        go(tmp_path / "run", small_config(wide, init_from=str(source / "vae")))
    assert not (tmp_path / "run").exists()


def test_a_missing_source_is_refused(source, tmp_path):
    with pytest.raises(IWAEError, match="there is no such directory"):
        go(tmp_path / "run", warm(source, init_from=str(tmp_path / "nothing")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "`epochs` must be an integer of at least 1, got 0"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a positive number, got 0.0"),
        ({"fresh_optimizer": True}, "`fresh_optimizer` goes with `init_from`"),
        ({"init_from": "x", "schedule": "quick"}, "`schedule` quick does not go with `init_from`"),
        ({"init_from": "x", "epochs": 0}, "`epochs` must be an integer of at least 1, got 0"),
        ({"init_from": "x", "learning_rate": -1.0}, "`learning_rate` must be a positive number"),
    ],
)
def test_options_that_have_no_meaning_are_refused(changes, message):
    with pytest.raises(IWAEError, match=message):
        RunConfig.of(**changes)


def test_the_papers_warm_start_is_the_default():
    config = RunConfig.of(model="iwae", k=50, init_from="results/mnist-vae-k1-1layer-seed0")
    assert [(stage.epochs, stage.learning_rate) for stage in config.full_schedule()] == [(2187, 1e-4)]
    assert not config.fresh_optimizer
    assert config.name() == "mnist-iwae-k50-1layer-from-mnist-vae-k1-1layer-seed0-seed0"
    assert RunConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("exp", "command"),
    [
        ("iwae_to_vae", "python experiments.py --model vae --dataset MNIST --k 1 --layers 1"),
        ("vae_to_iwae", "python experiments.py --model iwae --dataset MNIST --k 50 --layers 1"),
    ],
)
def test_the_scripts_experiments_name_the_command_that_makes_a_missing_source(exp, command, tmp_path, capsys):
    status = paper_experiment(["--exp", exp], default_datasets_dir=tmp_path, results_dir=tmp_path)
    error = capsys.readouterr().err
    assert status == 1
    assert error.count("\n") == 1
    assert f"is missing: make it with `{command}`" in error


def test_the_scripts_experiments_say_in_words_what_starts_from_what(tmp_path, capsys, monkeypatch):
    source = tmp_path / "mnist-vae-k1-1layer-seed0"
    run = Run(source)
    run.create()
    run.write_record({"config": RunConfig().to_json(), "data": {}})
    run.checkpoint_path(8).touch()
    seen = {}
    monkeypatch.setattr(
        "iwae.cli.original.Train.run", lambda self, *_, **__: seen.update(config=self.configuration) or 0
    )
    assert paper_experiment(["-e", "iwae_to_vae"], default_datasets_dir=tmp_path, results_dir=tmp_path) == 0
    assert "a one-layer IWAE with k=50, initialized at the trained one-layer VAE with k=1" in capsys.readouterr().out
    assert seen["config"] == RunConfig.of(model="iwae", k=50, init_from=str(source))
