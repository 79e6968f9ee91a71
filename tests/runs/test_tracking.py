"""Trackers of runs: every epoch and the results, once each, however a run is interrupted."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from helpers.small_runs import Messages, go, same_training, small_config, write_data
from iwae.runs.reporter import Reporter
from iwae.training import trackers

EPOCHS, STEPS = 4, 3
"""Of 60 examples, 20 at a time."""


class Store:
    """A tracker in memory, by identity."""

    package: ClassVar[str] = "store"
    written: ClassVar[dict[str, list[tuple[int, dict[str, float]]]]] = defaultdict(list)
    final: ClassVar[dict[str, list[tuple[int, dict[str, float]]]]] = defaultdict(list)
    is_full: ClassVar[bool] = False

    def __init__(self, directory: Path, name: str, config: Mapping[str, Any], identity: str | None):
        self.identity = identity or f"run {len(self.written) + 1}"
        self.name, self.config = name, config

    def write(self, figures: Mapping[str, float], step: int) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.written[self.identity].append((step, dict(figures)))

    def summarize(self, figures: Mapping[str, float], step: int) -> None:
        self.final[self.identity].append((step, dict(figures)))

    def close(self) -> None:
        pass


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> type[Store]:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Store)
    monkeypatch.setattr(Store, "written", defaultdict(list))
    monkeypatch.setattr(Store, "final", defaultdict(list))
    return Store


class Dying(Reporter):
    """Ends the process, as it were, after so many epochs."""

    def __init__(self, epochs: int):
        self._epochs = epochs

    def training(self, progress: Any) -> None:
        if progress.epoch + 1 == self._epochs and progress.epoch_done:
            raise RuntimeError("killed")


def tracked(directory: Path, **options: Any) -> Any:
    config = small_config(write_data(directory / "own.npz"), epochs=EPOCHS, batch_size=20)
    return go(directory / "run", config, **{"track": ("wandb",), **options})


def test_epochs_and_results_are_what_the_files_have(tmp_path: Path, store: type[Store]) -> None:
    results = tracked(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [step for step, _ in store.written["run 1"]] == [STEPS * epoch for epoch in range(1, EPOCHS + 1)]
    for line, (step, figures) in zip(lines, store.written["run 1"], strict=True):
        assert step == line["step"]
        names = {"epoch": "epoch", "bound": "train/bound", "valid_bound": "valid/bound"}
        assert figures == {**{named: line[name] for name, named in names.items()}, "learning_rate": 0.001}
    ((step, final),) = store.final["run 1"]
    assert step == results["step"]
    assert final["test/nll"] == results["test"]["nll"]
    assert final["active_units"] == sum(results["active_units"])
    # The same command once more, and measured anew: nothing is there twice.
    tracked(tmp_path)
    assert (len(store.written["run 1"]), len(store.final["run 1"])) == (EPOCHS, 1)


def test_a_run_that_died_and_went_back_has_no_step_twice(tmp_path: Path, store: type[Store]) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        tracked(tmp_path, reporter=Dying(3))
    assert len(store.written["run 1"]) == 3
    tracked(tmp_path)
    assert list(store.written) == ["run 1"]
    assert [figures["epoch"] for _, figures in store.written["run 1"]] == [1, 2, 3, 4]
    tracked(tmp_path, checkpoint=0)
    assert len(store.written["run 1"]) == EPOCHS
    tracked(tmp_path, fresh=True)
    assert list(store.written) == ["run 1", "run 2"]


def test_a_run_that_was_not_tracked_is_written_whole(tmp_path: Path, store: type[Store]) -> None:
    tracked(tmp_path, track=())
    assert not (tmp_path / "run/tracking.json").exists()
    tracked(tmp_path)
    assert len(store.written["run 1"]) == EPOCHS
    assert len(store.final["run 1"]) == 1


def test_a_full_disk_stops_nothing_and_is_made_up_for(
    tmp_path: Path, store: type[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    tracked(tmp_path / "other", track=())
    monkeypatch.setattr(Store, "is_full", True)
    messages = Messages()
    tracked(tmp_path, reporter=messages)
    assert len([text for text in messages.texts if text.startswith("Warning: no more is written to wandb")]) == 1
    same_training(tmp_path / "run", tmp_path / "other/run", 1)
    monkeypatch.setattr(Store, "is_full", False)
    tracked(tmp_path)
    assert [figures["epoch"] for _, figures in store.written["run 1"]] == [1, 2, 3, 4]
    assert len(store.final["run 1"]) == 1


def test_a_damaged_record_of_what_was_written_stops_nothing(tmp_path: Path, store: type[Store]) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        tracked(tmp_path, reporter=Dying(2))
    (tmp_path / "run/tracking.json").write_text('{"wandb": {"identity": 3}}')
    messages = Messages()
    tracked(tmp_path, reporter=messages)
    assert any("delete it, and all is written to new ones" in text for text in messages.texts)
    assert len(store.written["run 1"]) == 2


def test_tensorboard_reads_a_run_that_died_as_one(tmp_path: Path) -> None:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    with pytest.raises(RuntimeError, match="killed"):
        tracked(tmp_path, reporter=Dying(3), track=("tensorboard",))
    tracked(tmp_path, track=("tensorboard",))
    found = accumulators.EventAccumulator(str(tmp_path / "run/tensorboard"))
    found.Reload()
    assert [event.value for event in found.Scalars("epoch")] == [1, 2, 3, 4]
    assert len(found.Scalars("test/nll")) == 1
    assert found.Scalars("active_units/h_1")[0].step == STEPS * EPOCHS
