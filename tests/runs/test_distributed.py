"""One run trained by several real processes over gloo: the numbers of one, and what is said of a lost process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from helpers.slurm import free_ports
from helpers.small_runs import write_data

TRAIN = "--latent 3 --hidden 8 --model iwae --k 3 --batch-size 12 --test-samples 20"
# As `iwae`, which waits a shorter time for a process that hangs.
COMMAND = "import sys, iwae.runs.peers as peers; peers.SILENT_SECONDS = 10; from iwae.cli import main; sys.exit(main())"
DEADLINE = 300


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "d.npz")


class Processes:
    """The processes of one run, started with one command but for `--process-id`."""

    def __init__(self, data: Path, path: Path, count: int, epochs: int = 1_000_000):
        words = ["train", *TRAIN.split(), "--dataset", str(data), "--run-dir", str(path), "--epochs", str(epochs)]
        if count > 1:
            words += ["--distributed", f"localhost:{free_ports(1)[0]}", "--num-processes", str(count)]
        self.path, self.all = path, []
        for index in range(count):
            own = ["--process-id", str(index)] if count > 1 else []
            streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
            self.all.append(subprocess.Popen([sys.executable, "-c", COMMAND, *words, *own], **streams))  # pyright: ignore[reportCallIssue, reportArgumentType]

    def ended(self) -> list[tuple[int, str]]:
        """The status and the last line of each, once all have ended."""
        try:
            said = [process.communicate(timeout=DEADLINE)[1] for process in self.all]
        finally:
            for process in self.all:
                process.kill()
        return [(p.returncode, (text.splitlines() or [""])[-1]) for p, text in zip(self.all, said, strict=True)]

    def wait_for_epochs(self, more: int = 2) -> None:
        """Until it has trained."""
        end, metrics, before = time.monotonic() + DEADLINE, self.path / "metrics.jsonl", None
        while before is None or len(metrics.read_text().splitlines()) < before + more:
            assert time.monotonic() < end
            assert all(process.poll() is None for process in self.all), self.ended()
            time.sleep(0.2)
            if before is None and metrics.exists():
                before = len(metrics.read_text().splitlines())

    def stop(self) -> list[tuple[int, str]]:
        """As a user stops it, from one of the processes."""
        self.all[-1].send_signal(signal.SIGTERM)
        return self.ended()


@pytest.mark.slow
def test_two_and_four_processes_have_the_numbers_of_one(data: Path, tmp_path: Path) -> None:
    for count in (1, 2, 4):
        assert [status for status, _ in Processes(data, tmp_path / str(count), count, epochs=5).ended()] == [0] * count
    one = load_file(tmp_path / "1" / "checkpoints" / "1.safetensors")
    lines = [json.loads(line) for line in (tmp_path / "1" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    for count in ("2", "4"):
        for name, array in load_file(tmp_path / count / "checkpoints" / "1.safetensors").items():
            np.testing.assert_allclose(array, one[name], rtol=0, atol=1e-5 * np.max(np.abs(one[name])), err_msg=name)
        for line, own in zip((tmp_path / count / "metrics.jsonl").read_text().splitlines(), lines, strict=True):
            assert json.loads(line) == pytest.approx(own, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "number", "what"),
    [
        (1, signal.SIGKILL, "died"),
        (0, signal.SIGKILL, "died"),
        (2, signal.SIGSTOP, "has not answered for 10 s"),
        (0, signal.SIGSTOP, "has not answered for 10 s"),
    ],
)
def test_a_process_that_dies_or_hangs_is_named_by_the_others_and_the_run_goes_on_with_any_number(
    data: Path, tmp_path: Path, lost: int, number: int, what: str
) -> None:
    processes = Processes(data, tmp_path / "run", 3)
    processes.wait_for_epochs()
    name = f"process {lost} of 3 (" + (
        "at localhost" if lost == 0 else f"from 0; process {processes.all[lost].pid} on "
    )
    os.kill(processes.all[lost].pid, number)
    gone = processes.all.pop(lost)
    for status, line in processes.ended():
        assert status == 1
        assert line.startswith(f"iwae: error: {name}")
        assert what in line
        assert line.endswith(f"the same commands, for any number of processes, continue {processes.path}")
    gone.kill()
    gone.communicate()
    again = Processes(data, tmp_path / "run", {0: 1, 1: 2, 2: 4}[lost])
    again.wait_for_epochs()
    assert {status for status, _ in again.stop()} == {143}
    steps = [json.loads(line)["step"] for line in (processes.path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(5, 5 * len(steps) + 1, 5))


@pytest.mark.slow
@pytest.mark.parametrize("told", [[0], [1], [0, 1]])
def test_a_signal_for_one_or_for_all_saves_the_run_and_stops_all(data: Path, tmp_path: Path, told: list[int]) -> None:
    processes = Processes(data, tmp_path / "run", 2)
    processes.wait_for_epochs()
    for index in told:
        processes.all[index].send_signal(signal.SIGINT)
    (first, says), (second, line) = processes.ended()
    assert (first, second) == (130, 130)
    assert says.startswith(f"iwae: stopped: all is saved in {processes.path}. To continue: iwae train ")
    assert line.startswith("iwae: stopped: process 0 has saved what is done; the same commands")
    saved = load_file(processes.path / "checkpoints" / "latest.safetensors")
    last = json.loads((processes.path / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    (step,) = {int(array) for name, array in saved.items() if name.endswith("step")}
    assert last <= step


@pytest.mark.slow
def test_what_does_not_fit_ends_all_before_anything_is_made(data: Path, tmp_path: Path) -> None:
    processes = Processes(data, tmp_path / "run", 5, epochs=1)
    assert all(status == 1 for status, _ in processes.ended())
    assert not (tmp_path / "run").exists()
