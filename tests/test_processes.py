"""Real processes of the installed command: killed, interrupted, crowded and short of room, then continued.

All share one cache of compiled programs, which the uninterrupted run fills: what continues a run there runs the
same program from a file, and the test is quicker.
"""

import json
import os
import random
import resource
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from small_runs import COMMAND, environment, same_training, write_data

STAGES = 5
EPOCHS = 1 + 3 + 9 + 27 + 81
DEADLINE = 120


class Workshop:
    """A directory to work in, with data, a cache, and a run that nothing interrupted."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.environment = environment(directory / "cache")
        write_data(directory / "small.npz", num_train=1500)
        self.whole = directory / "whole"
        done = self.run(self.train("whole"))
        assert done.returncode == 0, done.stderr

    def train(self, run: str) -> list[str]:
        """A command line of the installed program: some seconds of training, a checkpoint several times a second."""
        options = "--dataset small.npz --latent 3 --hidden 8 --model iwae --k 20"
        limits = f"--stages {STAGES} --save-every 0.2 --test-samples 200"
        return [str(COMMAND), "train", *options.split(), *limits.split(), "--run-dir", run]

    def start(self, command: list[str], before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
        )

    def run(self, command: list[str], before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
        process = self.start(command, before)
        out, err = process.communicate(timeout=DEADLINE)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def completes(self, command: list[str], run: Path) -> None:
        """Asserts that `command` ends the run with the bits of the uninterrupted one, and leaves nothing behind."""
        done = self.run(command)
        assert done.returncode == 0, done.stderr
        for number in range(STAGES + 1):
            same_training(run, self.whole, number)
        mine, expected = (json.loads((path / "results.json").read_text()) for path in (run, self.whole))
        for field in ("test", "active_units", "weights_sha256", "epochs", "train_bound"):
            assert mine[field] == expected[field]
        names = {str(path.relative_to(run)) for path in run.rglob("*")}
        assert names == {str(path.relative_to(self.whole)) for path in self.whole.rglob("*")}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    if not COMMAND.exists():
        pytest.skip("the command is not installed in this environment")
    return Workshop(tmp_path_factory.mktemp("workshop"))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.002)


def epochs(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def one_error_line(err: str) -> str:
    """The only line of standard error that is an error, which must be the last, with nothing like a traceback."""
    lines = err.splitlines()
    assert "Traceback" not in err
    assert [line for line in lines if line.startswith("iwae: error: ")] == lines[-1:]
    return lines[-1]


def test_the_uninterrupted_run_is_whole(workshop: Workshop) -> None:
    assert epochs(workshop.whole) == EPOCHS
    assert not list(workshop.whole.rglob("*.partial"))
    assert not (workshop.whole / "checkpoints/latest.safetensors").exists()


def test_killed_again_and_again_it_ends_with_the_same_bits(workshop: Workshop) -> None:
    run = workshop.directory / "killed"
    rng = random.Random(0)
    moments: list[tuple[str, Callable[[], bool]]] = [
        ("before its record", lambda: (run / "checkpoints").is_dir()),
        ("soon after its record", lambda: (run / "run.json").exists()),
        *[(f"after {n} epochs", lambda n=n: epochs(run) >= n) for n in (3, 25, 50, 75)],
        ("while measuring", lambda: (run / f"checkpoints/{STAGES}.safetensors").exists()),
    ]
    progress = []
    for what, reached in moments:
        process = workshop.start(workshop.train("killed"))
        wait_until(reached, process)
        time.sleep(rng.random() * 0.2)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, what
        progress.append(epochs(run))
    assert progress[-1] == EPOCHS
    assert len({count for count in progress if 0 < count < EPOCHS}) >= 3
    workshop.completes(workshop.train("killed"), run)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_it_prints_the_command_that_completes_it(
    workshop: Workshop, number: signal.Signals, status: int
) -> None:
    run = workshop.directory / f"interrupted with {number.name}"
    process = workshop.start(workshop.train(run.name))
    wait_until(lambda: epochs(run) >= 10, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == status
    line = one_error_line(err)
    reached = epochs(run)
    assert reached < EPOCHS
    steps = int(load_file(run / "checkpoints/latest.safetensors")["step"])
    assert reached * 75 <= steps < (reached + 1) * 75
    program, *arguments = shlex.split(line.partition("To continue: ")[2])
    assert program == "iwae"
    workshop.completes([str(COMMAND), *arguments], run)


def test_a_second_process_is_refused_while_the_first_one_trains(workshop: Workshop) -> None:
    run = workshop.directory / "crowded"
    first = workshop.start(workshop.train("crowded"))
    wait_until(lambda: (run / "run.json").exists(), first)
    first.send_signal(signal.SIGSTOP)  # So that it can't be over before the second has begun.
    second = workshop.run(workshop.train("crowded"))
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert line.startswith("iwae: error: crowded: another process is working on this run")
    out, err = first.communicate(timeout=DEADLINE)
    assert first.returncode == 0, err
    assert "Test NLL" in out
    same_training(run, workshop.whole, STAGES)


@pytest.mark.parametrize(("limit", "written"), [(4000, "0.safetensors"), (10_000, "metrics.jsonl")])
def test_a_full_disk_is_one_line_and_loses_nothing(workshop: Workshop, limit: int, written: str) -> None:
    """A limit on the size of a file stands for the full disk: too small for a checkpoint, or for all metrics."""
    checkpoint, metrics = (workshop.whole / name for name in ("checkpoints/1.safetensors", "metrics.jsonl"))
    assert 4000 < checkpoint.stat().st_size < 10_000 < metrics.stat().st_size
    run = workshop.directory / f"full at {limit}"
    command = workshop.train(run.name)
    failed = workshop.run(command, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert failed.returncode == 1
    line = one_error_line(failed.stderr)
    assert written in line
    assert "make room" in line
    for path in run.glob("checkpoints/*"):
        assert load_file(path)
    workshop.completes(command, run)


def test_where_nothing_can_be_written_is_one_line(workshop: Workshop) -> None:
    done = workshop.run(workshop.train("/proc/self/run"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("iwae: error: /proc/self/run: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_write_permission_is_one_line(workshop: Workshop) -> None:
    run = workshop.directory / "sealed"
    run.mkdir(mode=0o500)
    done = workshop.run(workshop.train(run.name))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("iwae: error: sealed")
    assert line.endswith("Permission denied")
