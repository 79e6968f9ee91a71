"""Runs in process that go on, start again or are refused: the same bits, nothing lost, one clear line."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, Key
from safetensors.numpy import load_file

from helpers.small_runs import Messages, files_below, flip_byte, go, same_training, small_config, write_data
from iwae import IWAEError, MeasureOptions, RunBusyError, RunConfig, TrainOptions
from iwae.estimators.base import Estimate, Estimator
from iwae.estimators.objective import make_estimator
from iwae.models.vae import HierarchicalVAE
from iwae.randomness import Purpose, purpose_key
from iwae.runs import job as work
from iwae.runs.checkpoint import CheckpointError
from iwae.runs.directory import Run
from iwae.training.loop import Divergence

HOLD_THE_LOCK = """
import sys, filelock
with filelock.FileLock(sys.argv[1] + "/.lock"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of the three stages, to be changed."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def checkpoint(run: Path, name: int | str) -> Path:
    return run / f"checkpoints/{name}.safetensors"


def fails(run: Path, config: RunConfig, match: str, kind: type[Exception] = IWAEError, **options: Any) -> str:
    """Asserts that training is refused with one line, and that nothing in the run changed."""
    before = files_below(run)
    with pytest.raises(kind, match=match) as error:
        go(run, config, **options)
    assert "\n" not in str(error.value)
    assert files_below(run) == before
    return str(error.value)


# Going on


def test_stage_by_stage_is_the_same_as_in_one_go(config: RunConfig, whole: Path, tmp_path: Path) -> None:
    for stages in (1, 2, 3):
        results = go(tmp_path / "run", config, stages=stages)
        assert results["stages_done"] == stages
    for number in range(4):
        same_training(tmp_path / "run", whole, number)


@pytest.mark.parametrize("stop_after", [1, 3, 17, 38])
def test_stopped_in_the_middle_is_the_same_as_in_one_go(
    config: RunConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """Every step is a chunk that ends in a checkpoint, and the power fails before one of them is saved."""

    class PowerCut(BaseException):
        pass

    train = work.train_together

    def until_the_cut(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for progress in train(*args, **kwargs):
            if progress[0].step > stop_after:
                raise PowerCut
            yield progress

    monkeypatch.setattr("iwae.training.loop.FIRST_CHUNK_STEPS", 1)
    monkeypatch.setattr("iwae.training.loop.CHUNK_SECONDS", 1e-9)
    monkeypatch.setattr(work, "train_together", until_the_cut)
    with pytest.raises(PowerCut):
        go(tmp_path / "run", config, stages=3, save_every=1e-9)
    monkeypatch.setattr(work, "train_together", train)
    go(tmp_path / "run", config, stages=3)
    same_training(tmp_path / "run", whole, 3)
    assert not checkpoint(tmp_path / "run", "latest").exists()


def test_half_a_line_of_metrics_is_replaced(run: Path, config: RunConfig, whole: Path) -> None:
    (run / "results.json").unlink()
    checkpoint(run, 3).unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:7]) + lines[7][:20])
    go(run, config, stages=3)
    same_training(run, whole, 3)


def test_a_run_that_died_before_its_record_starts_again(run: Path, config: RunConfig, whole: Path) -> None:
    for path in [*run.glob("*.json*"), *run.glob("samples.*"), *(checkpoint(run, n) for n in (1, 2, 3))]:
        path.unlink()
    shutil.rmtree(run / "evaluations")
    leftovers = [run / ".run.json.123.partial", run / "checkpoints/.0.safetensors.123.partial"]
    for path in leftovers:
        path.write_text("half a fi")
    go(run, config, stages=3)
    same_training(run, whole, 3)
    assert not any(path.exists() for path in leftovers)


def test_measuring_is_repeated_where_it_was_cut(run: Path, config: RunConfig, whole: Path) -> None:
    (run / "results.json").unlink()
    # As a kill leaves it just after a stage was saved.
    shutil.copy(checkpoint(run, 2), checkpoint(run, "latest"))
    results = go(run, config, stages=3)
    assert not checkpoint(run, "latest").exists()
    expected = json.loads((whole / "results.json").read_text())
    assert results["test"] == expected["test"]
    assert results["active_units"] == expected["active_units"]
    same_training(run, whole, 3)


# Starting again


@pytest.mark.parametrize("number", [0, 1, 3])
def test_restarting_from_a_checkpoint_ends_with_the_same_bits(
    run: Path, config: RunConfig, whole: Path, number: int
) -> None:
    messages = Messages()
    go(run, config, stages=3, checkpoint=number, reporter=messages)
    same_training(run, whole, 3)
    aside = run / "replaced-1"
    assert any(str(aside) in text and f"checkpoint {number}" in text for text in messages.texts)
    moved = {path.name for path in aside.iterdir()}
    assert moved == {f"{n}.safetensors" for n in range(number + 1, 4)} | {"metrics.jsonl", "results.json"}
    for name in moved - {"metrics.jsonl", "results.json"}:
        assert (aside / name).read_bytes() == (whole / "checkpoints" / name).read_bytes()
    assert (aside / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    # A second restart puts aside beside the first.
    go(run, config, stages=3, checkpoint=2)
    assert (run / "replaced-2/3.safetensors").is_file()
    assert (run / "replaced-1/metrics.jsonl").is_file()


def test_fresh_puts_the_old_run_aside_and_says_where(run: Path, data: Path, whole: Path) -> None:
    before = files_below(run)
    for index in (1, 2):
        messages = Messages()
        go(run, small_config(data, seed=index), stages=1, fresh=True, reporter=messages)
        aside = run.with_name(f"run.replaced-{index}")
        assert any(str(aside) in text for text in messages.texts)
        assert json.loads((run / "run.json").read_text())["config"]["seed"] == index
        assert not checkpoint(run, 2).exists()
    assert files_below(run.with_name("run.replaced-1")) == before
    assert json.loads((run.with_name("run.replaced-2") / "run.json").read_text())["config"]["seed"] == 1


def test_fresh_does_not_move_the_working_directory(
    run: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (run, run / "checkpoints"):
        monkeypatch.chdir(place)
        fails(run, config, "working directory", fresh=True)
    fails(Path(".."), config, "working directory", fresh=True)


# Refused


def test_another_configuration_is_refused_naming_the_fields(run: Path, data: Path, config: RunConfig) -> None:
    other = small_config(data, seed=5, k=2, model="iwae")
    message = fails(run, other, "another configuration")
    for field in ("seed: 5, there 0", "k: 2, there 1", "model: iwae, there vae", "`fresh`", "`run_dir`"):
        assert field in message
    assert "beta1" not in message
    assert config.differences(config) == []


def test_changed_data_is_refused(run: Path, data: Path, config: RunConfig) -> None:
    content = data.read_bytes()
    try:
        write_data(data, seed=1)
        message = fails(run, config, "not the file that this run was trained on")
        assert data.name in message
    finally:
        data.write_bytes(content)
    data.rename(data.with_suffix(".moved"))
    try:
        fails(run, config, "there is no file", stages=8)
    finally:
        data.with_suffix(".moved").rename(data)


@pytest.mark.parametrize(("name", "advice"), [("latest", "`checkpoint` 3"), (3, "`checkpoint` 2")])
@pytest.mark.parametrize("harm", ["flip", "truncate", "empty"])
def test_a_damaged_newest_checkpoint_is_named_with_the_newest_intact_one(
    run: Path, config: RunConfig, whole: Path, name: int | str, advice: str, harm: str
) -> None:
    path = checkpoint(run, name)
    if name == "latest":
        shutil.copy(checkpoint(run, 3), path)
    if harm == "flip":
        flip_byte(path)
    else:
        path.write_bytes(path.read_bytes()[: 100 if harm == "truncate" else 0])
    message = fails(run, config, "newest intact", CheckpointError, stages=3)
    assert str(path) in message
    assert advice in message
    # The advice is right.
    go(run, config, stages=3, checkpoint=int(advice.split()[-1]))
    same_training(run, whole, 3)


@pytest.mark.parametrize("measured", [True, False])
def test_a_missing_newest_checkpoint_is_no_reason_to_train_it_again(
    run: Path, config: RunConfig, whole: Path, measured: bool
) -> None:
    missing = 3 if measured else 2
    if not measured:
        (run / "results.json").unlink()
        checkpoint(run, 3).unlink()
    checkpoint(run, missing).unlink()
    message = fails(run, config, "there is no such checkpoint", CheckpointError, stages=3)
    assert str(checkpoint(run, missing)) in message
    assert f"`checkpoint` {missing - 1}" in message
    go(run, config, stages=3, checkpoint=missing - 1)
    same_training(run, whole, 3)


def test_all_checkpoints_missing_is_never_a_fresh_start(run: Path, config: RunConfig) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    fails(run, config, "all checkpoints of this run are missing", CheckpointError)
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    fails(run, config, "no such checkpoint.*no other is intact", CheckpointError, checkpoint=1)


def test_a_checkpoint_of_another_architecture_is_refused(run: Path, data: Path, config: RunConfig) -> None:
    go(run.with_name("other"), small_config(data, latent=(2,)), stages=1)
    shutil.copy(checkpoint(run.with_name("other"), 1), checkpoint(run, 3))
    message = fails(run, config, "another architecture", CheckpointError, stages=8, checkpoint=3)
    assert str(checkpoint(run, 3)) in message


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 99}', '{"format": 1, "config": {}, "data": {}}'])
def test_a_damaged_record_is_refused(run: Path, config: RunConfig, content: str) -> None:
    (run / "run.json").write_text(content)
    assert str(run) in fails(run, config, "run")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"stages_done": "3"}'])
def test_damaged_results_are_named(run: Path, config: RunConfig, content: str) -> None:
    (run / "results.json").write_text(content)
    assert str(run / "results.json") in fails(run, config, "delete it", stages=3)
    (run / "results.json").unlink()
    assert go(run, config, stages=3)["stages_done"] == 3


def test_a_file_or_what_a_run_would_replace_is_in_the_way(tmp_path: Path, config: RunConfig, run: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(IWAEError, match="is a file"):
            go(tmp_path / "file", config, fresh=fresh)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/samples.png").write_text("mine")
    fails(tmp_path / "foreign", config, "has samples.png and no run.json.*it is no run")
    fails(tmp_path / "foreign", config, "is no run, but has samples.png: `fresh` replaces only runs", fresh=True)
    (run / "run.json").unlink()
    fails(run, config, "has metrics.jsonl, results.json, samples.png and no run.json.*restore run.json")


@pytest.mark.parametrize("fresh", [False, True])
def test_what_a_run_would_not_write_is_not_in_the_way(data: Path, tmp_path: Path, fresh: bool) -> None:
    """Slurm's --output, and what Jupyter makes."""
    run = tmp_path / "run"
    (run / ".ipynb_checkpoints").mkdir(parents=True)
    (run / "slurm-1234.out").write_text("epoch 1")
    go(run, small_config(data), stages=1, fresh=fresh)
    assert (run / "slurm-1234.out").read_text() == "epoch 1"
    assert (run / "results.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_two_at_once_are_refused(run: Path, config: RunConfig) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert str(run) in fails(run, config, "another process", RunBusyError, stages=8)
        fails(run, config, "another process", RunBusyError, fresh=True)
        other.communicate("")
    assert other.returncode == 0
    assert go(run, config, stages=3)["stages_done"] == 3


def test_what_cannot_be_trained_or_measured_is_refused_before_anything_is_made(
    tmp_path: Path, data: Path, config: RunConfig, whole: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(IWAEError, match="`batch_size` 61 is more than the 60 training examples"):
        go(run, small_config(data, batch_size=61))
    with pytest.raises(IWAEError, match="`test_samples` must be at most 100,000, got 100001"):
        go(run, config, measure=MeasureOptions(test_samples=100_001))
    with pytest.raises(IWAEError, match="no run to restart from checkpoint 2"):
        go(run, config, checkpoint=2)
    with pytest.raises(
        IWAEError, match="6,000,000,000 steps, and no more than 2,147,483,647 are counted: choose fewer"
    ):
        go(run, small_config(data, init_from=str(whole), epochs=2_000_000_000))
    with pytest.raises(IWAEError, match="`stages` must be from 1 to 8"):
        go(run, config, stages=9)
    for options in ({"stages": 0}, {"checkpoint": -1}, {"save_every": 0}, {"checkpoint": 1, "fresh": True}):
        with pytest.raises(IWAEError, match="`"):
            dataclasses.replace(TrainOptions(), **options)
    with pytest.raises(IWAEError, match="`k` must be an integer"):
        RunConfig.of(k=True)
    for changes in ({"seed": -1}, {"seed": 2**32}, {"beta1": 1.0}, {"batch_size": 0}, {"layers": 2}):
        with pytest.raises(IWAEError, match="`"):
            dataclasses.replace(config, **changes)
    assert not run.exists()


# Failures on the way


class NotANumberAt(Estimator):
    """The usual estimator, but NaN at one step, which it knows by its key."""

    inner: Estimator
    step: int = eqx.field(static=True)

    def __call__(self, model: HierarchicalVAE, x: Float[Array, "batch visible"], key: Key[Array, ""]) -> Estimate:
        estimate = self.inner(model, x, key)
        bad = jax.random.split(jax.random.fold_in(purpose_key(0, Purpose.TRAIN), self.step))[1]
        same = jnp.all(jax.random.key_data(key) == jax.random.key_data(bad))
        return Estimate(jnp.where(same, jnp.nan, estimate.value), estimate.gradient)


def test_divergence_saves_the_last_good_state_and_says_the_step(
    config: RunConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        work, "make_estimator", lambda *args, **how: NotANumberAt(make_estimator(*args, **how), step=16)
    )
    run = tmp_path / "run"
    with pytest.raises(Divergence, match="at step 16 ") as error:
        go(run, config, stages=3)
    assert "\n" not in str(error.value)
    good = Run(run).checkpoint()
    assert good.path.stem == "latest"
    assert 12 <= good.step <= 16
    assert all(bool(jnp.all(jnp.isfinite(array))) for array in good.arrays.values())
    with pytest.raises(Divergence, match="at step 16 "):
        go(run, config, stages=3)
    monkeypatch.undo()
    go(run, config, stages=3)
    # Close, not the same: the steps before were another compiled program's.
    for name, array in load_file(checkpoint(whole, 3)).items():
        np.testing.assert_allclose(load_file(checkpoint(run, 3))[name], array, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("failing", ["0.safetensors", "run.json", "metrics.jsonl", "2.safetensors", "results.json"])
def test_a_full_disk_loses_nothing(
    config: RunConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    run = tmp_path / "run"
    real = os.fsync

    def fsync(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        if name.lstrip(".").startswith(failing):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to tell which file is written")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left") as error:
        go(run, config, stages=3)
    assert str(error.value.filename).endswith(failing)
    assert not list(run.rglob("*.partial"))
    monkeypatch.undo()
    for path in run.glob("checkpoints/*"):
        assert load_file(path)
    go(run, config, stages=3)
    same_training(run, whole, 3)
