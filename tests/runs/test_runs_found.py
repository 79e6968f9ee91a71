"""What users do to runs between commands: move their data, mix up checkpoints, ask for other measurements."""

import shutil
from pathlib import Path

import pytest

import iwae
from helpers.small_runs import Messages, go, small_config
from iwae import IWAEError, MeasureOptions, RunConfig
from iwae.cli import main
from iwae.runs.checkpoint import CheckpointError
from iwae.runs.directory import Run


def test_own_data_may_move_and_a_change_of_it_is_still_noticed(
    config: RunConfig, whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    moved = shutil.copy(data, tmp_path / "elsewhere.npz")
    reporter = Messages()
    go(run, small_config(Path(moved)), stages=3, reporter=reporter)
    assert any("is complete" in text for text in reporter.texts)
    assert main(["evaluate", str(run), "--samples", "5", "--dataset", str(moved)]) == 0
    assert "test NLL" in capsys.readouterr().out
    Path(moved).write_bytes(Path(moved).read_bytes() + b"\0")
    both = rf"elsewhere.npz \(sha256:\w+\) is not the file that this run was trained on, {data.name} \(sha256:\w+\)"
    with pytest.raises(IWAEError, match=both):
        go(run, small_config(Path(moved)), stages=3)


def test_a_foreign_checkpoint_is_refused_by_everything(whole: Path, data: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    go(tmp_path / "other", small_config(data, seed=5), stages=1)
    shutil.copy(tmp_path / "other/checkpoints/1.safetensors", run / "checkpoints/3.safetensors")
    with pytest.raises(CheckpointError, match=r"is of seed 5, not of this run's; the newest intact one is 2"):
        iwae.load(run)
    assert Run(run).checkpoint(2).stages_done == 2


def test_lists_are_as_good_as_tuples(data: Path, tmp_path: Path) -> None:
    config = RunConfig.of(dataset=str(data), latent=[3], hidden=[8])  # pyright: ignore[reportArgumentType]
    assert config == small_config(data)
    go(tmp_path / "run", config, stages=1)
    go(tmp_path / "run", config, stages=2)


def test_a_complete_run_says_how_it_was_measured_when_asked_for_another_measurement(
    config: RunConfig, whole: Path
) -> None:
    reporter = Messages()
    go(whole, config, stages=3, measure=MeasureOptions(test_samples=33), reporter=reporter)
    assert any("measured with 20 samples" in text and "--samples 33" in text for text in reporter.texts)


def test_show_goes_on_past_a_damaged_run(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = shutil.copytree(whole, tmp_path / "broken")
    (broken / "run.json").write_text("{")
    assert main(["show", str(broken), str(whole)]) == 1
    printed = capsys.readouterr()
    assert whole.name in printed.out
    assert printed.err.startswith("iwae: error: ")
    assert "run.json" in printed.err


def test_a_dataset_that_is_no_text_is_refused_in_words() -> None:
    with pytest.raises(IWAEError, match="`dataset` must be a name or a path, got 5"):
        RunConfig.of(dataset=5)  # pyright: ignore[reportArgumentType]
