"""A run's directory: read once, found under any name, locked on any file system, and rows of a table."""

import errno
import fcntl
import json
import os
import platform
import shutil
import signal
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import iwae
from helpers.small_runs import go, same_training, small_config, write_data
from iwae import IWAEError, RunBusyError, RunConfig
from iwae.cli import main
from iwae.io import files
from iwae.io.locks import Holder, Lock
from iwae.runs.directory import Run
from iwae.runs.listing import find_runs
from iwae.runs.records import measured_enough
from iwae.runs.signals import Interrupted, SignalWatch


def test_a_measurement_reads_the_record_once(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    opened: list[str] = []
    really = os.open

    def counting(path: Any, *args: Any, **kwargs: Any) -> int:
        opened.append(os.path.basename(path) if isinstance(path, str | os.PathLike) else "")
        return really(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", counting)
    assert main(["evaluate", str(run), "--samples", "3"]) == 0
    assert opened.count("run.json") == 1
    assert opened.count("results.json") == opened.count("metrics.jsonl") == 1


def test_a_newer_record_is_said_to_be_newer_first(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "run.json").write_text('{"format": 2, "another": "shape"}')
    with pytest.raises(IWAEError, match=r"run\.json: format 2 is newer than this version reads \(1\): upgrade iwae"):
        Run.open(run)


@pytest.mark.parametrize(
    ("samples", "examples", "enough"),
    [(10, 5, True), (10, 100, True), (11, 5, False), (1, None, True), (10, 1, True)],
)
def test_measured_enough(samples: int, examples: int | None, enough: bool) -> None:
    measured: Any = {"num_samples": 10, "num_examples": 30, "split_examples": 30}
    fewer: Any = {**measured, "num_examples": 4}
    assert measured_enough(measured, samples, examples) == enough
    assert not measured_enough(fewer, samples, examples) or examples == 1


def test_a_tilde_is_the_home_directory(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    go(Path("~/results/run"), small_config(data), stages=1)
    assert (tmp_path / "results/run/results.json").is_file()
    assert not (tmp_path / "~").exists()
    assert iwae.load("~/results/run").latent == (3,)
    assert [row["name"] for row in iwae.results("~/results")] == ["run"]


def test_a_suffix_in_capitals_is_one(tmp_path: Path) -> None:
    config = small_config(write_data(tmp_path / "ok.npz").rename(tmp_path / "OK.NPZ"))
    assert config.name().startswith("OK-vae-k1-")
    go(tmp_path / "results" / config.name(), config, stages=1)
    moved = (tmp_path / "OK.NPZ").rename(tmp_path / "results" / "OK.NPZ")
    assert go(tmp_path / "results" / config.name(), small_config(moved), stages=1)["stages_done"] == 1


# Rows


def test_results_are_rows_of_plain_values(whole: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "b")
    go(tmp_path / "a", small_config(data, seed=3, model="iwae", k=2), stages=1)
    (tmp_path / "a/results.json").unlink()
    (tmp_path / "a.train.log").write_text("epoch 1")
    (tmp_path / "notes").mkdir()
    (tmp_path / ".c.partial").mkdir()
    shutil.copy(whole / "run.json", tmp_path / ".c.partial")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = iwae.results(tmp_path)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0].keys() == rows[1].keys()
    assert not any(isinstance(value, list | dict) for row in rows for value in row.values())
    recorded = json.loads((whole / "results.json").read_text())
    expected = {"name": "b", "objective": "elbo", "k": 1, "seed": 0, "stages_done": 3, "epochs": 13, "num_samples": 20}
    assert expected.items() <= rows[1].items()
    assert rows[1]["nll"] == recorded["test"]["nll"]
    assert rows[1]["nll_stderr"] == recorded["test"]["stderr"]
    assert rows[1]["active_units"] == sum(recorded["active_units"])
    unmeasured = {"name": "a", "objective": "iwae", "k": 2, "seed": 3, "stages_done": 1, "epochs": 1, "nll": None}
    assert unmeasured.items() <= rows[0].items()
    assert iwae.results(tmp_path / "b") == rows[1:]


def test_what_cannot_be_read_is_left_out_with_a_warning(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "good")
    shutil.copytree(whole, tmp_path / "bad")
    (tmp_path / "bad/results.json").write_text("{")
    with pytest.warns(UserWarning, match="left out: .*bad/results.json: damaged"):
        rows = iwae.results(tmp_path)
    assert [row["name"] for row in rows] == ["good"]
    with pytest.raises(IWAEError, match="there is no such directory"):
        iwae.results(tmp_path / "nowhere")


def test_many_results_are_read_quickly(whole: Path, tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).mkdir()
        for name in ("run.json", "results.json"):
            shutil.copy(whole / name, tmp_path / str(number))
    start = time.process_time()
    assert len(iwae.results(tmp_path)) == len(find_runs(tmp_path)) == 100
    # 500 in 1.5 s on a free core.
    assert time.process_time() - start < 1.0


# File systems without locks


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    number: int, config: RunConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    run = Run(tmp_path / "run")
    go(run.path, config, stages=3)
    same_training(run.path, whole, 3)
    with run.lock(), pytest.raises(RunBusyError, match=r"another process is working on this run \(process \d+ on "):
        go(run.path, config, stages=3)
    # As a killed process leaves it, on another machine, a minute ago.
    lease = run.path / ".lock.99"
    lease.write_text(json.dumps(asdict(replace(Holder.this(locked=True), machine="another"))))
    os.utime(lease, (0, 0))
    assert run.holder is None
    assert go(run.path, config, stages=3)["stages_done"] == 3


def test_other_failures_of_locks_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", failing)
    with pytest.raises(OSError, match="Input/output error"):
        files.write_atomically(tmp_path / "x", b"")


def test_a_run_that_was_taken_over_while_its_process_was_suspended_is_not_written_to(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Lock, "is_held", lambda _: len(run.metrics.lines()) < 2)
        with pytest.raises(RunBusyError, match="another one has taken the run over"):
            go(run.path, config, stages=3)
    assert len(run.metrics.lines()) == 2
    assert go(run.path, config, stages=3)["stages_done"] == 3


def test_what_another_host_is_writing_is_no_leftover(tmp_path: Path) -> None:
    mine, theirs, old = (tmp_path / f".x.123@{host}.partial" for host in (platform.node(), "node7", "node8"))
    for path in (mine, theirs, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    files.write_atomically(tmp_path / "x", b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"x", theirs.name}


# Signals


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP"])
def test_schedulers_signals_are_heeded_unless_they_are_ignored(name: str) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with SignalWatch() as watch:
            signal.raise_signal(number)
            with pytest.raises(Interrupted, match="all is saved") as stopped:
                watch.check("all is saved")
        assert stopped.value.exit_status == 128 + number
        if name != "SIGTERM":
            signal.signal(number, signal.SIG_IGN)
            with SignalWatch() as watch:
                signal.raise_signal(number)
                assert watch.received is None
    finally:
        signal.signal(number, before)
