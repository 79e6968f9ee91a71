"""Runs of custom data whose rows are shuffled: recorded, continued exactly, measured on the same split."""

from pathlib import Path

import numpy as np
import pytest

from helpers.small_runs import go, same_training, small_config
from iwae.errors import IWAEError
from iwae.runs.config import RunConfig
from iwae.runs.data import run_dataset
from iwae.runs.directory import Run
from iwae.runs.reporter import Reporter


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 rows of ten classes, sorted by class."""
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    np.save(path, np.repeat(np.eye(10, dtype=np.uint8), 10, axis=0))
    return path


def test_custom_data_are_shuffled_and_published_ones_are_not(rows: Path) -> None:
    assert RunConfig(dataset=str(rows)).order == "shuffled"
    assert RunConfig(dataset="mnist").order == "file"
    assert RunConfig(dataset="mnist").name() == "mnist-vae-k1-1layer-seed0"


def test_what_is_not_usual_is_in_the_name(rows: Path) -> None:
    def name(**settings: str | int) -> str:
        return RunConfig.of(dataset=str(rows), **settings).name()

    assert name() == "rows-vae-k1-1layer-seed0"
    assert name(order="file") == "rows-file-order-vae-k1-1layer-seed0"
    assert name(split_seed=3) == "rows-split3-vae-k1-1layer-seed0"
    assert RunConfig.of(dataset="mnist", order="shuffled").name() == "mnist-shuffled-vae-k1-1layer-seed0"


def test_a_record_of_before_has_the_order_of_the_file(rows: Path) -> None:
    record = RunConfig(dataset=str(rows), split_seed=2).to_json()
    assert RunConfig.from_json(record).split_seed == 2
    old = {name: value for name, value in record.items() if name not in ("order", "split_seed")}
    assert RunConfig.from_json(old).order == "file"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "random"}, "`order` must be shuffled or file, got 'random'"),
        ({"split_seed": -1}, "`split_seed` must be an integer from 0"),
        ({"split_seed": 1, "order": "file"}, "`split_seed` 1 has no meaning here: it goes with own data"),
        ({"split_seed": 1, "dataset": "mnist"}, "`split_seed` 1 has no meaning here: it goes with own data"),
    ],
)
def test_what_has_no_meaning_is_refused(rows: Path, settings: dict[str, str | int], message: str) -> None:
    with pytest.raises(IWAEError) as raised:
        RunConfig.of(**{"dataset": str(rows), **settings})
    assert message in str(raised.value)


def test_a_run_continues_with_the_same_order_and_split(rows: Path, tmp_path: Path) -> None:
    config = small_config(rows, schedule="quick", batch_size=30, split_seed=5)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    epochs = go(whole, config, stages=2)["epochs"]
    assert Run.open(whole).metrics.lines()[-1]["step"] == epochs * 3
    for stages in (1, 2):
        go(parts, config, stages=stages)
    same_training(whole, parts, 2)
    run = Run.open(parts)
    dataset = run_dataset(run, None, Reporter())
    permuted = np.load(rows)[np.random.RandomState(5).permutation(100)]
    np.testing.assert_array_equal(dataset.test, permuted[-10:])
    with pytest.raises(IWAEError, match="order: file, there shuffled"):
        go(parts, small_config(rows, schedule="quick", batch_size=30, order="file"), stages=2)
