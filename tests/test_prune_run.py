"""Pruning a run: the smaller model is a run that everything else accepts."""

import json

import numpy as np
import pytest

from iwae import evaluation, load
from iwae.cli import main
from iwae.data import load_dataset
from iwae.errors import IWAEError
from iwae.pruning import units_to_keep
from iwae.runs.directory import RunDirectory
from iwae.runs.prune import prune_run
from small_runs import cached_compilation, go, small_config, write_data


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A run with more units than its data has use for, pruned."""
    directory = tmp_path_factory.mktemp("prune")
    with cached_compilation(directory / "cache"):
        data = write_data(directory / "d.npz", num_train=400)
        go(directory / "run", small_config(data, latent=(8, 3), hidden=(8, 8)), stages=3)
        dataset = load_dataset(str(data))
        source, out = RunDirectory(directory / "run"), RunDirectory(directory / "pruned")
        result = prune_run(source, out, dataset, samples=50)
        yield directory, dataset, result


def test_what_is_kept_is_what_is_active(pruned):
    directory, dataset, result = pruned
    kept = units_to_keep(evaluation.active_units(load(directory / "run"), dataset))
    assert result.kept == tuple(int(mask.sum()) for mask in kept)
    assert result.total == (8, 3)
    assert result.kept < result.total
    assert load(directory / "pruned").latent == result.kept


def test_both_were_measured_with_the_same_noise_and_that_is_recorded(pruned):
    directory, dataset, result = pruned
    before = evaluation.likelihoods(load(directory / "run"), dataset, num_samples=50)
    assert result.before == pytest.approx(before.nll, abs=1e-5)
    record = json.loads((directory / "pruned/run.json").read_text())["pruned"]
    assert record["nll_after"] - record["nll_before"] == pytest.approx(result.difference, abs=1e-6)
    assert [len(units) for units in record["kept_units"]] == list(result.kept)
    assert abs(result.difference) < 0.1


def test_everything_else_accepts_the_pruned_run(pruned, capsys):
    directory, _, result = pruned
    path = str(directory / "pruned")
    assert main(["evaluate", path, "--samples", "20"]) == 0
    assert main(["sample", path]) == 0
    assert main(["show", path]) == 0
    assert "pruned" in capsys.readouterr().out
    results = RunDirectory(path).results()
    assert results is not None
    assert results["architecture"]["latent"] == list(result.kept)
    assert np.load(directory / "pruned/samples.npy").shape == (100, 6)


def test_training_a_pruned_run_is_refused_and_says_what_to_do(pruned):
    directory, *_ = pruned
    config = RunDirectory(directory / "pruned").config()
    with pytest.raises(IWAEError, match="is a pruned model: train on from it in another run, with --init-from"):
        go(directory / "pruned", config)


def test_an_output_that_is_not_empty_is_refused(pruned):
    directory, dataset, _ = pruned
    with pytest.raises(IWAEError, match="is not empty: choose another --out"):
        prune_run(RunDirectory(directory / "run"), RunDirectory(directory / "pruned"), dataset, samples=5)
