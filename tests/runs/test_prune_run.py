"""Pruning a run: the smaller model is a run that everything else accepts."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import logsumexp

import iwae.runs.prune
from helpers.small_runs import go, small_config, write_data
from iwae import load
from iwae.cli import main
from iwae.data import load_dataset
from iwae.errors import IWAEError
from iwae.evaluation import importance_weights as diagnostics
from iwae.evaluation import likelihood as evaluation
from iwae.evaluation.active_units import ActiveUnits, active_units
from iwae.explore.content import MAX_SAMPLES, page_content
from iwae.models.pruning import units_to_keep
from iwae.runs.analyze import AnalyzeOptions, analyze_run
from iwae.runs.directory import Run
from iwae.runs.evaluate import kept_units
from iwae.runs.prune import _left_of_the_first, _nothing_to_prune, layers_kept_inactive, prune_run


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A run with more units than its data has use for, pruned."""
    directory = tmp_path_factory.mktemp("prune")
    data = write_data(directory / "d.npz", num_train=400)
    go(directory / "run", small_config(data, latent=(8, 3), hidden=(8, 8)), stages=3)
    dataset = load_dataset(str(data))
    source, out = Run(directory / "run"), Run(directory / "pruned")
    result = prune_run(source, out, dataset, samples=50)
    return directory, dataset, result


def test_what_is_kept_is_what_is_active(pruned):
    directory, dataset, result = pruned
    units = active_units(load(directory / "run"), dataset)
    kept = units_to_keep(units.active, units.variances)
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
    results = Run(path).results()
    assert results is not None
    assert results["architecture"]["latent"] == list(result.kept)
    assert np.load(directory / "pruned/samples.npy").shape == (100, 6)


def test_the_paired_figure_is_the_runs_result_and_evaluate_repeats_it(pruned, capsys):
    directory, dataset, result = pruned
    run = Run(directory / "pruned")
    results = run.results()
    assert results is not None
    assert results["test"]["nll"] == result.after
    assert main(["evaluate", str(run.path), "--samples", "50"]) == 0
    assert f"L_50: {result.after:.2f} ± " in capsys.readouterr().out
    analyzed = analyze_run(run.path, options=AnalyzeOptions(samples=50))
    assert analyzed["test"]["nll"] == pytest.approx(result.after, abs=1e-9)
    model, kept = load(run.path), kept_units(run)
    assert kept is not None
    assert [int(mask.sum()) for mask in kept] == list(result.kept)
    # The figures of single examples, in the report's picture and on the explorer's page, have the same noise.
    measured = evaluation.likelihoods(model, dataset, num_samples=50, kept=kept)
    assert measured.nll == pytest.approx(result.after)
    log_weights = diagnostics.example_log_weights(model, dataset, num_samples=50, num_examples=5, kept=kept)
    np.testing.assert_allclose(logsumexp(log_weights, axis=1) - np.log(50), measured.log_likelihood[:5], rtol=1e-5)
    measured = evaluation.likelihoods(model, dataset, num_samples=MAX_SAMPLES, kept=kept)
    recorded = page_content(model, dataset, kept=kept)["examples"]["log_likelihood"]
    np.testing.assert_allclose(recorded, measured.log_likelihood, rtol=1e-6)


def test_adams_moments_are_pruned_with_the_weights(pruned):
    directory, _, result = pruned
    before, after = (load_file(directory / name / "checkpoints/3.safetensors") for name in ("run", "pruned"))
    kept = kept_units(Run(directory / "pruned"))
    assert kept is not None
    for moment in ("mu", "nu"):
        name = f"optimizer.{moment}.encoder.0.mean.weight"
        np.testing.assert_array_equal(after[name], before[name][:, kept[0]])
        name = f"optimizer.{moment}.decoder.0.hidden.0.weight"
        np.testing.assert_array_equal(after[name], before[name][kept[0]])
        name = f"optimizer.{moment}.decoder.0.hidden.0.bias"
        np.testing.assert_array_equal(after[name], before[name])
    assert after["optimizer.count"] == before["optimizer.count"] > 0
    source = str(directory / "pruned")
    config = small_config(directory / "d.npz", latent=result.kept, hidden=(8, 8), init_from=source, epochs=1)
    go(directory / "warm", config)
    start = load_file(directory / "warm/checkpoints/0.safetensors")
    name = "optimizer.nu.encoder.0.mean.weight"
    np.testing.assert_array_equal(start[name], after[name])


def test_interrupted_at_any_moment_the_same_command_does_it(pruned, tmp_path, monkeypatch):
    directory, dataset, result = pruned
    out = Run(tmp_path / "out")
    unfinished = tmp_path / ".out.partial"

    def interrupted(*_, **__):
        assert (unfinished / "run.json").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(iwae.runs.prune, "measure_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prune_run(Run(directory / "run"), out, dataset, samples=50)
    assert list(tmp_path.iterdir()) == []
    # What a kill leaves is in nobody's way.
    (unfinished / "checkpoints").mkdir(parents=True)
    (unfinished / "run.json").write_text("{")
    again = prune_run(Run(directory / "run"), out, dataset, samples=50)
    assert again == result
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_prune_leaves_is_no_run_to_show(pruned, tmp_path, capsys):
    directory, *_ = pruned
    shutil.copytree(directory / "pruned", tmp_path / ".half.partial")
    shutil.copytree(directory / "pruned", tmp_path / "whole")
    assert main(["show", "--results-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "whole" in printed
    assert "half" not in printed


def test_a_unit_that_is_kept_for_its_layers_sake_is_not_called_active():
    units = ActiveUnits((np.zeros(2), np.zeros(1)), (np.array([0.5, 0.4]), np.array([0.001])))
    assert layers_kept_inactive(units) == (2,)
    assert _nothing_to_prune((2, 1), ()) == "all units are active (2+1), nothing to prune"
    assert "of layer 2 only one unit is left, which is inactive" in _nothing_to_prune((2, 1), (2,))


def test_pruning_again_counts_from_the_first_model():
    first = (np.array([True, False, True, True]),)
    (left,) = _left_of_the_first(first, (np.array([True, False, True]),))
    assert left.tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "0"], "--samples must be an integer of at least 1, got 0"),
        (["--samples", "100001"], "--samples must be at most 100,000, got 100001"),
        (["--examples", "0"], "--examples must be an integer of at least 1, got 0"),
    ],
)
def test_the_command_names_its_own_options(pruned, tmp_path, capsys, options, message):
    directory, *_ = pruned
    assert main(["prune", str(directory / "run"), "--out", str(tmp_path / "x"), *options]) == 1
    assert capsys.readouterr().err.splitlines() == [f"iwae: error: {message}"]


def test_own_data_that_moved_is_given_by_its_path(pruned, tmp_path, capsys):
    directory, *_ = pruned
    shutil.copytree(directory / "run", tmp_path / "run")
    moved = tmp_path / "moved.npz"
    (directory / "d.npz").rename(moved)
    try:
        for command in ("prune", "analyze", "report"):
            line = [command, str(tmp_path / "run"), "--samples", "5"]
            if command == "report":
                line[-1] = "6"  # So that it is analyzed again.
            assert main(line) == 1
            assert "there is no file" in capsys.readouterr().err
            assert main([*line, "--dataset", str(moved)]) == 0
    finally:
        moved.rename(directory / "d.npz")


def test_training_a_pruned_run_is_refused_and_says_what_to_do(pruned):
    directory, *_ = pruned
    config = Run(directory / "pruned").config
    with pytest.raises(IWAEError, match="is a pruned model: train on from it in another run, with `init_from`"):
        go(directory / "pruned", config)


def test_a_link_where_the_unfinished_run_would_be_is_not_followed(pruned, tmp_path):
    """What it leads to would be cleared."""
    directory, dataset, _ = pruned
    (tmp_path / "home").mkdir()
    (tmp_path / "home/precious").write_text("mine")
    (tmp_path / ".out.partial").symlink_to(tmp_path / "home")
    with pytest.raises(IWAEError, match=r"\.out\.partial is a link, and what it leads to would be cleared"):
        prune_run(Run(directory / "run"), Run(tmp_path / "out"), dataset, samples=5)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["precious"]
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_not_empty_is_refused(pruned):
    directory, dataset, _ = pruned
    with pytest.raises(IWAEError, match="is not empty: choose another `out`"):
        prune_run(Run(directory / "run"), Run(directory / "pruned"), dataset, samples=5)
