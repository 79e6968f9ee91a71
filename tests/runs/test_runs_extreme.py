"""Runs on extreme data and of extreme sizes: they train, measure themselves and have finite figures."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.small_runs import SMALL, go
from iwae import RunConfig
from iwae.runs.options import MeasureOptions

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)


def data_file(path: Path, train: np.ndarray, test: np.ndarray | None = None) -> str:
    np.savez(path, train=train, test=train[:10] if test is None else test)
    return str(path)


def noise(*shape: int) -> np.ndarray:
    return (RNG.random(shape) < 0.5).astype(np.uint8)


def with_constant_pixels() -> np.ndarray:
    rows = noise(60, 6)
    rows[:, 0], rows[:, 1] = 0, 1
    return rows


@pytest.mark.parametrize(
    ("train", "changes"),
    [
        (np.zeros((60, 6), np.uint8), {}),
        (np.ones((60, 6), np.uint8), {}),
        (with_constant_pixels(), {}),
        (noise(1, 6), {"batch_size": 1}),
        (noise(60, 1), {}),
        (noise(40, 10_000), {}),
        (noise(20, 6), {"k": 10_000, "model": "iwae"}),
        (noise(60, 6), {"latent": (1,), "hidden": (1,)}),
        (noise(60, 6), {"latent": (1000, 1), "hidden": (5, 5), "k": 3, "model": "iwae"}),
    ],
    ids=[
        "all zero",
        "all one",
        "pixels that never vary",
        "one training image",
        "one pixel",
        "10,000 dimensions",
        "k = 10,000",
        "one unit",
        "1,000 units",
    ],
)
def test_extreme_data_and_sizes_have_finite_figures(tmp_path: Path, train: np.ndarray, changes: dict[str, Any]) -> None:
    config = RunConfig.of(**{"dataset": data_file(tmp_path / "d.npz", train), **SMALL, **changes})
    results = go(tmp_path / "run", config, stages=3, measure=MeasureOptions(test_samples=60))
    assert math.isfinite(results["test"]["nll"])
    assert math.isfinite(results["train_bound"])
    if len(np.unique(train)) == 1:
        # Certainty is learnt, not overshot.
        assert 0 <= results["test"]["nll"] < 1.0


def test_a_test_image_that_training_ruled_out_is_measured(tmp_path: Path) -> None:
    zeros = np.zeros((60, 6), np.uint8)
    config = RunConfig.of(**{"dataset": data_file(tmp_path / "d.npz", zeros, 1 - zeros[:5]), **SMALL})
    results = go(tmp_path / "run", config, stages=3, measure=MeasureOptions(test_samples=60))
    assert 10 < results["test"]["nll"] < math.inf
