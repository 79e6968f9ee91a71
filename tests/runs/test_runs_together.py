"""Runs of several seeds at once: each in its own directory, as if alone; they may stand at different steps."""

import contextlib
import json
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from helpers.small_runs import QUICK_MEASURE, files_below, flip_byte, go, names_below, small_config
from iwae import IWAEError, RunBusyError, RunConfig, TrainOptions
from iwae.cli import main
from iwae.cli.tables import seeds_lines
from iwae.estimators.base import Estimate, Estimator
from iwae.estimators.objective import make_estimator
from iwae.runs import job
from iwae.runs.directory import Run
from iwae.runs.reporter import Reporter
from iwae.runs.signals import Interrupted
from iwae.runs.train import train_runs
from iwae.training.loop import Divergence

SEEDS = (0, 1, 2)


def configs(directory: Path, data: Path) -> dict[Path, RunConfig]:
    return {directory / f"seed{seed}": small_config(data, seed=seed) for seed in SEEDS}


def together(runs: dict[Path, RunConfig], *, reporter: Reporter | None = None, **options: Any) -> list[Any]:
    return train_runs(runs, options=TrainOptions(**options), measure=QUICK_MEASURE, reporter=reporter)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Each seed alone, three stages. Tests only read them."""
    directory = tmp_path_factory.mktemp("alone")
    for path, config in configs(directory, data).items():
        go(path, config, stages=3)
    return {seed: directory / f"seed{seed}" for seed in SEEDS}


def as_alone(directory: Path, alone: dict[int, Path]) -> None:
    """Asserts that every run has what it has alone, but for rounding, and the same files."""
    for seed, expected in alone.items():
        run = directory / f"seed{seed}"
        assert names_below(run) == names_below(expected)
        for number in range(4):
            mine, theirs = (load_file(path / f"checkpoints/{number}.safetensors") for path in (run, expected))
            assert mine.keys() == theirs.keys()
            for name, array in theirs.items():
                np.testing.assert_allclose(mine[name], array, rtol=1e-4, atol=1e-5)
        mine, theirs = (Run(path).metrics.lines() for path in (run, expected))
        for line, other in zip(mine, theirs, strict=True):
            assert line == pytest.approx(other, rel=1e-5)
        mine, theirs = (json.loads((path / "results.json").read_text()) for path in (run, expected))
        assert (mine["seed"], mine["config"]) == (seed, theirs["config"])
        assert mine["test"]["nll"] == pytest.approx(theirs["test"]["nll"], rel=1e-5)


def test_each_is_as_if_alone(data: Path, alone: dict[int, Path], tmp_path: Path) -> None:
    results = together(configs(tmp_path, data), stages=3)
    assert [found["seed"] for found in results] == list(SEEDS)
    as_alone(tmp_path, alone)


def test_those_behind_catch_up_and_complete_ones_are_left(data: Path, alone: dict[int, Path], tmp_path: Path) -> None:
    runs = configs(tmp_path, data)
    paths = list(runs)
    go(paths[0], runs[paths[0]], stages=1)
    for path in (paths[0] / "evaluations").iterdir():
        path.unlink()
    go(paths[1], runs[paths[1]], stages=3)
    complete = files_below(paths[1])
    together(runs, stages=3)
    as_alone(tmp_path, alone)
    assert files_below(paths[1]) == complete


class InterruptAfter(Reporter):
    """Sends this process SIGTERM after so many chunks."""

    def __init__(self, chunks: int):
        self.left = chunks

    def training(self, progress: Any) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)


def test_interrupted_all_are_saved_and_go_on_together_or_alone(
    data: Path, alone: dict[int, Path], tmp_path: Path
) -> None:
    runs = configs(tmp_path, data)
    # The signal that comes in one chunk is acted upon after the next.
    with pytest.raises(Interrupted, match=r"all is saved in .*seed0, .*seed1, .*seed2\. To continue: the same call"):
        together(runs, stages=3, reporter=InterruptAfter(2))
    steps = [Run(path).checkpoint().step for path in runs]
    assert len(set(steps)) == 1
    assert 0 < steps[0] < 39
    first = next(iter(runs))
    go(first, runs[first], stages=3)
    together(runs, stages=3)
    as_alone(tmp_path, alone)


class Ruins(Estimator):
    """NaN at a step for the model whose weights are those of one seed."""

    inner: Estimator
    mark: float

    def __call__(self, model: Any, x: Any, key: Any) -> Estimate:
        estimate = self.inner(model, x, key)
        is_marked = jnp.abs(model.decoder[0].network.hidden[0].weight[0, 0] - self.mark) < 1e-6
        return Estimate(jnp.where(is_marked, jnp.nan, estimate.value), estimate.gradient)


def test_one_that_diverges_is_left_behind(
    data: Path, alone: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Run(alone[1]).checkpoint(1).model()
    mark = float(model.decoder[0].network.hidden[0].weight[0, 0])  # pyright: ignore[reportAttributeAccessIssue]
    runs = configs(tmp_path, data)
    go(tmp_path / "seed1", runs[tmp_path / "seed1"], stages=1)
    monkeypatch.setattr(job, "make_estimator", lambda *args, **how: Ruins(make_estimator(*args, **how), mark))
    with pytest.raises(Divergence, match=r"seed1: training diverged: at step 3 .* the bound was nan") as caught:
        together(runs, stages=3)
    assert "\n" not in str(caught.value)
    assert Run(tmp_path / "seed1").checkpoint().step == 3
    for seed in (0, 2):
        found = json.loads((tmp_path / f"seed{seed}/results.json").read_text())
        theirs = json.loads((alone[seed] / "results.json").read_text())
        assert found["test"]["nll"] == pytest.approx(theirs["test"]["nll"], rel=1e-5)


def test_a_run_that_is_held_stops_all_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    runs = configs(tmp_path, data)
    held = Run(tmp_path / "seed2")
    held.create()
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with held.lock():
            entered.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(60)
    with pytest.raises(RunBusyError, match="seed2: another process"):
        together(runs, stages=1)
    leave.set()
    holder.join()
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("in_the_way", ["held", "no run", "no checkpoint"])
def test_what_one_is_refused_for_changes_none(
    data: Path, alone: dict[int, Path], tmp_path: Path, in_the_way: str
) -> None:
    runs = configs(tmp_path, data)
    for seed, path in alone.items():
        shutil.copytree(path, tmp_path / f"seed{seed}")
    last = Run(tmp_path / "seed2")
    if in_the_way == "no run":
        shutil.rmtree(last.path)
        last.path.mkdir()
        last.results_path.write_text("precious")
    if in_the_way == "no checkpoint":
        last.checkpoint_path(2).unlink()
    before = files_below(tmp_path)
    options: dict[str, Any] = (
        {"stages": 3, "checkpoint": 2} if in_the_way == "no checkpoint" else {"stages": 1, "fresh": True}
    )
    expected = {"held": "seed2: another process", "no run": "seed2 is no run", "no checkpoint": "2.safetensors"}
    with last.lock() if in_the_way == "held" else contextlib.nullcontext():
        with pytest.raises(IWAEError, match=expected[in_the_way]):
            together(runs, **options)
        after = files_below(tmp_path)
    assert {name: content for name, content in after.items() if ".lock" not in name} == {
        name: content for name, content in before.items() if ".lock" not in name
    }


def test_a_damaged_checkpoint_of_one_is_no_reason_to_take_the_others_back(
    data: Path, alone: dict[int, Path], tmp_path: Path
) -> None:
    for seed, path in alone.items():
        shutil.copytree(path, tmp_path / f"seed{seed}")
    flip_byte(Run(tmp_path / "seed2").checkpoint_path(3))
    before = files_below(tmp_path)
    with pytest.raises(IWAEError, match=r"with `checkpoint` 2, this run alone \(`seed` 2, not `seeds`\): together"):
        together(configs(tmp_path, data), stages=4)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ([{"seed": 0}, {"seed": 0}], "must differ in seed or objective, got small-vae-k1-"),
        (
            [{"seed": 0}, {"seed": 1, "k": 7}],
            "differ in their seeds and objectives alone, but this one in k: 7, there 1",
        ),
        ([{"seed": 0}, {"seed": 1, "dataset": "other.npz"}], r"but this one in dataset: .*other.npz, there /"),
        ([], "nothing to train"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(
    data: Path, tmp_path: Path, changes: list[dict[str, Any]], problem: str
) -> None:
    runs = {tmp_path / str(index): small_config(data, **change) for index, change in enumerate(changes)}
    with pytest.raises(IWAEError, match=problem):
        together(runs)
    assert list(tmp_path.iterdir()) == []


def test_different_objectives_are_each_as_if_alone(data: Path, tmp_path: Path) -> None:
    changes = ({"model": "vae"}, {"model": "iwae"}, {"model": "iwae", "estimator": "dreg", "seed": 3})
    objectives = {str(index): small_config(data, k=3, **change) for index, change in enumerate(changes)}
    together({tmp_path / "together" / name: config for name, config in objectives.items()}, stages=2)
    for name, config in objectives.items():
        go(tmp_path / "alone" / name, config, stages=2)
        mine, theirs = (load_file(tmp_path / way / name / "checkpoints/2.safetensors") for way in ("together", "alone"))
        for tensor, array in theirs.items():
            np.testing.assert_allclose(mine[tensor], array, rtol=1e-4, atol=1e-5)
        assert Run(tmp_path / "together" / name).config == config


def test_the_command_trains_seeds_and_show_has_their_mean(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--dataset", str(data), "--latent", "3", "--hidden", "8", "--stages", "1"]
    where = ["--results-dir", str(tmp_path)]
    assert main([*command, *where, "--seeds", "0,4", "--test-samples", "20"]) == 0
    assert main([*command, *where, "--seeds", "4", "7", "--test-samples", "20"]) == 0
    found = {seed: json.loads(next(tmp_path.glob(f"*-seed{seed}/results.json")).read_text()) for seed in (0, 4, 7)}
    nll = [one["test"]["nll"] for one in found.values()]
    capsys.readouterr()
    assert main(["show", *where]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"seeds 0, 4, 7: test NLL {np.mean(nll):.2f}, standard deviation {np.std(nll, ddof=1):.2f}" in line


def test_means_are_of_what_was_measured_alike(alone: dict[int, Path]) -> None:
    zero, one, two = (json.loads((path / "results.json").read_text()) for path in alone.values())
    other: Any = {**two, "test": {**two["test"], "num_samples": 7}}
    unmeasured: Any = {**one, "test": {**one["test"], "nll": None}}
    (line,) = seeds_lines([zero, one, other])
    assert "seeds 0, 1:" in line
    (line,) = seeds_lines([zero, one, two])
    assert "seeds 0, 1, 2:" in line
    assert seeds_lines([zero, unmeasured]) == []
    assert seeds_lines([zero, other]) == []
    # Another network, as after pruning, or other data under the same name: no further seed of the experiment.
    pruned: Any = {**one, "architecture": {**one["architecture"], "latent": [2]}}
    elsewhere: Any = {**one, "data": {**one["data"], "files": [{**one["data"]["files"][0], "checksum": "sha256:0"}]}}
    assert seeds_lines([zero, pruned]) == seeds_lines([zero, elsewhere]) == []
    # The same run in another place counts once; another run of the same seed can't be told from it.
    assert seeds_lines([zero, one, one]) == seeds_lines([zero, one])
    again: Any = {**one, "weights_sha256": "0" * 64}
    (line,) = seeds_lines([zero, one, again])
    assert line.endswith("several runs with seed 1; for a mean over seeds name one of each")


def test_a_run_that_was_put_aside_is_no_seed(
    alone: dict[int, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in {"a-seed0": 0, "a-seed0.replaced-1": 2, "a-seed1": 1}.items():
        shutil.copytree(alone[seed], tmp_path / name)
    assert main(["show", "--results-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "replaced-1" in shown
    assert "seeds 0, 1:" in shown.splitlines()[-1]
