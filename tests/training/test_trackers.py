"""Trackers, read back with their own readers; what fails in them stops nothing."""

import json
import sqlite3
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import iwae
from helpers.toy import toy_dataset
from helpers.workshop import DEADLINE
from iwae.training import trackers

ARCHITECTURE = iwae.Architecture(6, latent=(2,), hidden=((4,),))
EPOCHS, STEPS = 3, 6
"""Of 60 examples, ten at a time."""


def trained(tracker: iwae.Tracker) -> list[float]:
    """Trains a small model with a tracker; returns the bounds that another callback was given."""
    data, bounds = toy_dataset(), []

    def callback(progress: Any) -> None:
        tracker(progress)
        bounds.append(progress.bound)

    estimator = iwae.make_estimator("iwae", k=2)
    start = iwae.create_model(data, ARCHITECTURE)
    iwae.fit(start, data, estimator, epochs=EPOCHS, batch_size=10, callback=callback)
    tracker.summarize({"test/nll": 12.5, "test/stderr": None})
    tracker.close()
    assert not tracker.is_failed
    return bounds


def test_tensorboard(tmp_path: Path) -> None:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    bounds = trained(iwae.Tracker("tensorboard", tmp_path, config={"k": 2}))
    found = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    events = found.Scalars("train/bound")
    assert [event.step for event in events] == [STEPS * epoch for epoch in range(1, EPOCHS + 1)]
    assert [event.value for event in events] == pytest.approx(bounds)
    assert [event.value for event in found.Scalars("epoch")] == [1, 2, 3]
    assert [(event.step, event.value) for event in found.Scalars("test/nll")] == [(STEPS * EPOCHS, 12.5)]
    assert "test/stderr" not in found.Tags()["scalars"]
    (text,) = found.Tensors("configuration/text_summary")
    assert b"| k | 2 |" in text.tensor_proto.string_val[0]


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    bounds = trained(iwae.Tracker("wandb", tmp_path, config={"k": 2}))
    rows, summary = read_wandb(tmp_path)
    assert [row["train/bound"] for row in rows] == pytest.approx(bounds)
    assert [row["_step"] for row in rows] == [STEPS * epoch for epoch in range(1, EPOCHS + 1)]
    assert summary["test/nll"] == 12.5


def read_wandb(directory: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows and the summary of the one offline run below a directory, in W&B's own messages. Its service may still
    be writing when `finish` returns: the message that it ended is waited for.
    """
    end = time.monotonic() + DEADLINE
    (path,) = directory.glob("wandb/offline-run-*/*.wandb")
    while (found := wandb_messages(path))[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < end
        time.sleep(0.05)

    def plain(items: Any) -> dict[str, Any]:
        return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}

    kinds = [(record.WhichOneof("record_type"), record) for record in found]
    summary: dict[str, Any] = {}
    for kind, record in kinds:
        if kind == "summary":
            summary |= plain(record.summary.update)
    return [plain(record.history.item) for kind, record in kinds if kind == "history"], summary


def wandb_messages(path: Path) -> list[Any]:
    """The messages of a file."""
    from wandb.proto import wandb_internal_pb2  # pyright: ignore[reportMissingImports]

    return [wandb_internal_pb2.Record.FromString(message) for message in leveldb_log(path.read_bytes())]


def leveldb_log(content: bytes) -> Iterator[bytes]:
    """The messages of W&B's files: after seven bytes of their own, LevelDB's log format."""
    at, message = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        message += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # Whole, or the last part.
            yield message
            message = b""


def test_two_runs_at_once_are_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of several seeds, trained in one process."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    both = [iwae.Tracker("wandb", tmp_path / name) for name in ("one", "other")]
    for step in (1, 2):
        for value, tracker in enumerate(both):
            tracker.write({"train/bound": value}, step)
    for value, tracker in enumerate(both):
        tracker.close()
        rows, _ = read_wandb(tmp_path / ("one", "other")[value])
        assert [row["train/bound"] for row in rows] == [value, value]


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = iwae.Tracker("mlflow", tmp_path / "run", config={"k": 2})
    bounds = trained(tracker)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.get_run(tracker.identity)
    assert (run.info.run_name, run.info.status, run.data.params) == ("run", "FINISHED", {"k": "2"})
    history = sorted(client.get_metric_history(tracker.identity, "train/bound"), key=lambda metric: metric.step)
    assert [metric.value for metric in history] == pytest.approx(bounds)
    assert [metric.step for metric in history] == [STEPS * epoch for epoch in range(1, EPOCHS + 1)]
    assert run.data.metrics["test/nll"] == 12.5


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    tracker = iwae.Tracker("trackio", tmp_path / "run", config={"k": 2})
    with iwae.Tracker("trackio", tmp_path / "other") as other:
        bounds = trained(tracker)
        other.write({"train/bound": 7.0}, 1)
    from trackio.sqlite_storage import SQLiteStorage  # pyright: ignore[reportMissingImports]

    rows = SQLiteStorage.get_logs(trackers.PROJECT, tracker.identity)
    assert [row["train/bound"] for row in rows if "train/bound" in row] == pytest.approx(bounds)
    assert rows[-1]["test/nll"] == 12.5
    assert [row["train/bound"] for row in SQLiteStorage.get_logs(trackers.PROJECT, other.identity)] == [7.0]


class Remembering:
    """A tracker of this module: what it was given, and an error where it is asked for one."""

    package = "remembering"
    written: list[tuple[dict[str, float], int]]
    fails_at: str | None = None

    def __init__(self, directory: Path, name: str, config: Mapping[str, Any], identity: str | None):
        self._may_fail("open")
        self.identity = identity or "new"
        type(self).written = []

    def write(self, figures: Mapping[str, float], step: int) -> None:
        self._may_fail("write")
        self.written.append((dict(figures), step))

    def summarize(self, figures: Mapping[str, float], step: int) -> None:
        self._may_fail("summarize")

    def close(self) -> None:
        self._may_fail("close")

    def _may_fail(self, where: str) -> None:
        if where == self.fails_at:
            raise sqlite3.OperationalError("database or disk\nis full")


@pytest.mark.parametrize("where", ["open", "write", "summarize", "close"])
def test_a_tracker_that_fails_says_so_once_and_stops_nothing(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Remembering)
    monkeypatch.setattr(Remembering, "fails_at", where)
    said: list[str] = []
    with iwae.Tracker("wandb", tmp_path, warn=said.append) as tracker:
        for step in (1, 2, 3):
            tracker.write({"train/bound": -1.0}, step)
        tracker.summarize({"test/nll": 1.0})
    assert tracker.is_failed
    (line,) = said
    assert "no more is written to wandb" in line
    assert "database or disk is full" in line


def test_the_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.warns(UserWarning, match=r"pip install tensorboardX, or \"iwae\[trackers\]\""):
        tracker = iwae.Tracker("tensorboard", tmp_path)
    assert tracker.is_failed
    tracker.write({"train/bound": -1.0}, 1)


def test_a_name_that_no_tracker_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(iwae.IWAEError, match=r"must be one of tensorboard, .* got 'neptune'"):
        iwae.Tracker("neptune", tmp_path)  # pyright: ignore[reportArgumentType]
    with pytest.raises(iwae.IWAEError, match="`track` names a tracker twice"):
        iwae.TrainOptions(track=("wandb", "wandb"))


def test_a_second_training_in_one_place_has_events_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    identities = []
    for _ in range(2):
        with iwae.Tracker("tensorboard", tmp_path) as tracker:
            tracker.write({"train/bound": -1.0}, 1)
            identities.append(tracker.identity)
    assert identities == ["tensorboard", "tensorboard-2"]
