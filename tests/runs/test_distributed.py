"""One run trained by several real processes over gloo: the numbers of one, and what is said of a lost process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from helpers.small_runs import write_data
from iwae import IWAEError
from iwae.runs.options import DistributedOptions
from iwae.runs.peers import Peers

TRAIN = "--latent 3 --hidden 8 --model iwae --k 3 --batch-size 12 --test-samples 20 --save-every 1"
DEADLINE = 300


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "d.npz")


class Processes:
    """The processes of one run, started with one command."""

    def __init__(self, data: Path, path: Path, count: int, epochs: int):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [sys.executable, "-m", "iwae", "train", *TRAIN.split(), "--dataset", str(data), "--run-dir", str(path)]
        words += ["--epochs", str(epochs), *(["--distributed", f"127.0.0.1:{port}"] if count > 1 else [])]
        numbers = [["--process-id", str(i), "--num-processes", str(count)] if count > 1 else [] for i in range(count)]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        self.all = [subprocess.Popen([*words, *own], **streams) for own in numbers]  # pyright: ignore[reportCallIssue, reportArgumentType]

    def ended(self) -> list[tuple[int, str]]:
        """The status and the last line of each, once all have ended."""
        said = [process.communicate(timeout=DEADLINE)[1] for process in self.all]
        return [(p.returncode, (text.splitlines() or [""])[-1]) for p, text in zip(self.all, said, strict=True)]


def wait_for_epochs(path: Path) -> None:
    end = time.monotonic() + DEADLINE
    while not (path / "metrics.jsonl").exists() or not (path / "metrics.jsonl").stat().st_size:
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
def test_two_and_four_processes_have_the_numbers_of_one(data: Path, tmp_path: Path) -> None:
    for count in (1, 2, 4):
        assert [status for status, _ in Processes(data, tmp_path / str(count), count, 5).ended()] == [0] * count
    one = load_file(tmp_path / "1" / "checkpoints" / "1.safetensors")
    lines = [json.loads(line) for line in (tmp_path / "1" / "metrics.jsonl").read_text().splitlines()]
    for count in ("2", "4"):
        for name, array in load_file(tmp_path / count / "checkpoints" / "1.safetensors").items():
            np.testing.assert_allclose(array, one[name], rtol=1e-5, atol=1e-5, err_msg=name)
        for line, own in zip((tmp_path / count / "metrics.jsonl").read_text().splitlines(), lines, strict=True):
            assert json.loads(line)["bound"] == pytest.approx(own["bound"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "number"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_a_process_that_dies_or_hangs_ends_the_others_which_name_it(
    data: Path, tmp_path: Path, lost: int, number: int
) -> None:
    path = tmp_path / "run"
    processes = Processes(data, path, 2, 1_000_000)
    wait_for_epochs(path)
    time.sleep(2)
    os.kill(processes.all[lost].pid, number)
    other = processes.all[1 - lost]
    said = other.communicate(timeout=DEADLINE)[1].splitlines()[-1]
    processes.all[lost].kill()
    processes.all[lost].communicate()
    assert other.returncode == 1
    assert said.startswith(f"iwae: error: process {lost} of 2 (from 0; process {processes.all[lost].pid} on ")
    assert f"go on from the last checkpoint of {path}" in said
    # Alone, it goes on.
    before = len((path / "metrics.jsonl").read_text().splitlines())
    alone = Processes(data, path, 1, 1_000_000)
    end = time.monotonic() + DEADLINE
    while len((path / "metrics.jsonl").read_text().splitlines()) <= before:
        assert time.monotonic() < end
        time.sleep(0.2)
    alone.all[0].terminate()
    assert alone.ended()[0][0] == 143


def test_a_process_that_does_not_come_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iwae.runs.peers.MEETING_SECONDS", 0.5)
    for index, missing in ((0, "1, 2"), (1, "0")):
        with pytest.raises(IWAEError, match=rf"process {missing} of 3 \(from 0\) has not come within"):
            Peers(tmp_path, index, 3, print).__enter__()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"process_id": 1}, "`process_id` goes with `distributed`"),
        ({"distributed": "here"}, "`distributed` must be host:port of process 0, got 'here'"),
        ({"distributed": "a:1", "process_id": 0}, "`distributed` needs `num_processes` where Slurm does not say it"),
        ({"distributed": "a:1", "process_id": 2, "num_processes": 2}, "`process_id` must be from 0 to 1, got 2"),
    ],
)
def test_what_has_no_meaning_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(IWAEError, match=message):
        DistributedOptions(**given)  # pyright: ignore[reportArgumentType]
