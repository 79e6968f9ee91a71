"""`patience`: training ends once the validation bound has stopped rising, and the best epoch's state is the run's."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.small_runs import QUICK_MEASURE, Messages, files_below, flip_byte, go, same_training, small_config
from iwae import IWAEError, RunConfig, TrainOptions, load, results
from iwae.cli import main
from iwae.runs.checkpoint import CheckpointError
from iwae.runs.directory import Run
from iwae.runs.reporter import Reporter
from iwae.runs.train import train_runs

PATIENCE = 3


def same(one: Path, other: Path) -> None:
    """Asserts that two runs have the same bits."""
    for name in ("best", "latest"):
        same_training(one, other, name)
    assert (one / "samples.npy").read_bytes() == (other / "samples.npy").read_bytes()


class Killed(Exception):
    """Ends a process where it stands."""


class KilledAt(Reporter):
    """Kills training after so many epochs."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def training(self, progress: Any) -> None:
        if progress.epoch_done and progress.epoch + 1 == self.epoch:
            raise Killed


def impatient(data: Path, **changes: Any) -> RunConfig:
    return small_config(data, hidden=(50,), epochs=300, learning_rate=1e-2, patience=PATIENCE, **changes)


def valid_bounds(run: Run) -> list[float]:
    return [line.get("valid_bound", -np.inf) for line in run.metrics.lines()]


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted. Tests only read it."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    go(path, impatient(data))
    return path


def test_the_best_epoch_is_what_is_measured(data: Path, stopped: Path) -> None:
    run = Run.open(stopped)
    bounds = valid_bounds(run)
    best = int(np.argmax(bounds))
    assert best > 0
    assert len(bounds) == best + 1 + PATIENCE < 300
    results = run.results()
    assert results is not None
    line = run.metrics.lines()[best]
    assert (results["epochs"], results["step"], results.get("train_bound")) == (best + 1, line["step"], line["bound"])
    assert (results["checkpoint"], run.checkpoint().step) == ("checkpoints/best.safetensors", line["step"])
    assert run.checkpoint(newest=True).step == run.metrics.lines()[-1]["step"]
    assert results["weights_sha256"] == run.checkpoint().weights_digest()
    weight = run.checkpoint().arrays["model.encoder.0.hidden.0.weight"]
    np.testing.assert_array_equal(load(stopped).encoder[0].network.hidden[0].weight, weight)
    assert run.config.name().endswith("-patience3-seed0")
    before, messages = files_below(stopped), Messages()
    go(stopped, impatient(data), reporter=messages)
    assert files_below(stopped) == before
    assert f"This run is complete: {stopped}" in messages.texts


def test_the_list_of_runs_says_which_epoch_is_the_runs(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(stopped)]) == 0
    epochs = results(stopped)[0]["epochs"]
    assert f"best after {epochs} epochs" in capsys.readouterr().out


@pytest.mark.parametrize("save_every", [1e-9, 1e9])
@pytest.mark.parametrize("from_best", [-1, 0, 2])
def test_a_run_killed_before_or_after_its_best_epoch_ends_in_the_same_bits(
    from_best: int, save_every: float, data: Path, stopped: Path, tmp_path: Path
) -> None:
    """Where nothing else was saved since, the best state is newer than the one to continue from."""
    results = json.loads((stopped / "results.json").read_text())
    path = tmp_path / "run"
    with pytest.raises(Killed):
        go(path, impatient(data), reporter=KilledAt(results["epochs"] + from_best), save_every=save_every)
    go(path, impatient(data))
    same(path, stopped)


def test_restarted_from_its_beginning_it_ends_in_the_same_bits(data: Path, stopped: Path, tmp_path: Path) -> None:
    go(tmp_path / "run", impatient(data))
    go(tmp_path / "run", impatient(data), checkpoint=0)
    same(tmp_path / "run", stopped)
    assert (tmp_path / "run/replaced-1/best.safetensors").exists()


def test_a_damaged_best_state_is_named_and_an_earlier_stage_leads_out(
    data: Path, stopped: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(stopped, tmp_path / "run")
    flip_byte(path / "checkpoints/best.safetensors")
    with pytest.raises(CheckpointError, match=r"best\.safetensors: .* is 0\.safetensors: .* `checkpoint` 0"):
        go(path, impatient(data))
    go(path, impatient(data), checkpoint=0)
    same(path, stopped)


def test_of_runs_that_train_together_each_stops_at_its_own_epoch(data: Path, stopped: Path, tmp_path: Path) -> None:
    runs = {tmp_path / f"seed{seed}": impatient(data, seed=seed) for seed in (0, 1)}
    train_runs(runs, options=TrainOptions(), measure=QUICK_MEASURE)
    for path in runs:
        bounds = valid_bounds(Run(path))
        assert len(bounds) == int(np.argmax(bounds)) + 1 + PATIENCE


def test_it_needs_validation_examples_and_a_number(data: Path, tmp_path: Path) -> None:
    with np.load(data) as arrays:
        np.savez(tmp_path / "none.npz", train=arrays["train"], test=arrays["test"])
    with pytest.raises(IWAEError, match=r"`patience` needs validation examples, and .*none.npz has none"):
        go(tmp_path / "run", impatient(tmp_path / "none.npz"))
    with pytest.raises(IWAEError, match="`patience` must be an integer of at least 1, got 0"):
        small_config(data, patience=0)
