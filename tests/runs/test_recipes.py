"""What a schedule brings along, and that anything else can be asked for instead."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from helpers.small_runs import go, small_config, write_data
from iwae.errors import IWAEError
from iwae.estimators.table import OBJECTIVES
from iwae.runs.config import RunConfig
from iwae.runs.directory import Run
from iwae.runs.job import make_optimizer
from iwae.training.optim import nadam, paper_adam

NEEDED: dict[str, dict[str, Any]] = {
    "miwae": {"m": 3},
    "piwae": {"m": 3},
    "ciwae": {"beta": 0.5},
    "renyi": {"alpha": 0.5},
    "free-bits": {"free_bits": 1.0},
}


def brought(config: RunConfig) -> tuple[Any, ...]:
    return config.batch_size, config.beta1, config.objective.estimator, config.objective.backward


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (20, 0.99, "reparameterized", None)),
        ({"schedule": "quick", "model": "iwae", "k": 50}, (20, 0.99, "reparameterized", None)),
        ({"schedule": "fast"}, (100, 0.9, "dreg", None)),
        ({"schedule": "fast", "model": "iwae", "k": 8}, (100, 0.9, "dreg", None)),
        ({"schedule": "fast", "model": "iwae", "k": 9}, (100, 0.9, "dreg", 4)),
        ({"schedule": "fast", "objective": "miwae", "k": 5, "m": 2}, (100, 0.9, "dreg", 4)),
        ({"schedule": "fast", "objective": "vr-max", "k": 50}, (100, 0.9, "reparameterized", None)),
        ({"schedule": "fast", "objective": "vimco", "k": 50}, (100, 0.9, "score", None)),
        (
            {"schedule": "fast", "model": "iwae", "k": 50, "backward": 50, "estimator": "stl", "batch_size": 20},
            (20, 0.9, "stl", 50),
        ),
        ({"schedule": "fast", "beta1": 0.99}, (100, 0.99, "dreg", None)),
    ],
)
def test_what_a_schedule_brings_along(options: dict[str, Any], expected: tuple[Any, ...]) -> None:
    config = RunConfig.of(**options)
    assert brought(config) == expected
    assert RunConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_every_objective_goes_with_the_fast_schedule(objective: str) -> None:
    config = RunConfig.of(objective=objective, k=4, schedule="fast", **NEEDED.get(objective, {}))
    methods = OBJECTIVES[objective].methods
    assert config.objective.estimator == ("dreg" if "dreg" in methods else next(iter(methods)))


def test_binary_latents_keep_an_estimator_that_they_have() -> None:
    config = RunConfig.of(objective="vimco", k=4, schedule="fast", latent_kind="bernoulli")
    assert config.objective.estimator == "score"


def test_names_hold_what_differs_from_the_schedule() -> None:
    assert RunConfig.of(model="iwae", k=50, schedule="fast").name() == "mnist-iwae-k50-dreg-backward4-1layer-fast-seed0"
    other = RunConfig.of(schedule="fast", batch_size=20, beta1=0.99)
    assert other.name() == "mnist-vae-k1-dreg-1layer-fast-batch20-beta0.99-seed0"


def test_the_optimizer_is_that_of_the_schedule() -> None:
    assert make_optimizer(RunConfig()) is paper_adam(20, beta1=0.99, moments="delayed")
    assert make_optimizer(RunConfig.of(schedule="fast")) is nadam(100, beta1=0.9)
    assert make_optimizer(RunConfig.of(schedule="fast", beta1=0.5)) is nadam(100, beta1=0.5)


def test_a_fast_run_trains_continues_exactly_and_serves_as_a_start(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d.npz", num_train=230)
    config = small_config(data, schedule="fast", model="iwae", k=9)
    go(tmp_path / "whole", config, stages=2)
    go(tmp_path / "parts", config, stages=1)
    results = go(tmp_path / "parts", config, stages=2)
    assert (results["epochs"], results["step"]) == (100, 300)
    one, other = (load_file(tmp_path / name / "checkpoints/2.safetensors") for name in ("whole", "parts"))
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    # The moments start at zero, not at the paper's one.
    start = load_file(tmp_path / "whole/checkpoints/0.safetensors")
    assert not start["optimizer.nu.encoder.0.mean.weight"].any()
    warm = go(tmp_path / "warm", small_config(data, init_from=str(tmp_path / "whole"), epochs=1))
    assert warm["epochs"] == 1


def test_a_new_run_has_epochs_and_a_learning_rate_of_its_own(tmp_path: Path) -> None:
    config = small_config(write_data(tmp_path / "d.npz"), epochs=3, learning_rate=0.01)
    assert config.name().endswith("-epochs3-rate0.01-seed0")
    results = go(tmp_path / "run", config)
    assert (results["epochs"], results["stages_total"]) == (3, 1)
    lines = Run.open(tmp_path / "run").metrics.lines()
    assert [line["learning_rate"] for line in lines] == [0.01] * 3
    assert len({line.get("valid_bound") for line in lines}) == 3
    assert go(tmp_path / "run", config) == results
    with pytest.raises(IWAEError, match=r"learning_rate: 0\.02, there 0\.01"):
        go(tmp_path / "run", replace(config, learning_rate=0.02))
