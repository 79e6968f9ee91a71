"""Real processes of the installed command, in a directory with data, a cache and a run that nothing interrupted."""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.small_runs import COMMAND, environment, names_below, same_training, write_data

STAGES = 5
EPOCHS = 1 + 3 + 9 + 27 + 81
STEPS_PER_EPOCH = 20
SEED_STAGES = 4
DEADLINE = 400


@contextlib.contextmanager
def signals_heeded() -> Iterator[None]:
    """Has processes that are started meanwhile heed SIGINT and SIGHUP: where the tests were started with nohup, or in
    the background by a script, these are ignored, and children would ignore them too.
    """
    ignored = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


class Workshop:
    """A directory to work in, with data, a cache, and a run that nothing interrupted."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.environment = environment()
        write_data(directory / "small.npz", num_train=20 * STEPS_PER_EPOCH)
        self.whole = directory / "whole"
        done = self.run(self.train("whole"))
        assert done.returncode == 0, done.stderr

    def train(self, run: str) -> list[str]:
        """A command line of the installed program: a second or more of training, with several checkpoints in it."""
        options = "--dataset small.npz --latent 3 --hidden 8 --model iwae --k 5"
        limits = f"--stages {STAGES} --save-every 0.1 --test-samples 200"
        return [str(COMMAND), "train", *options.split(), *limits.split(), "--run-dir", run]

    def start(self, command: list[str], before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        with signals_heeded():
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
        assert names_below(run) == names_below(self.whole)

    def train_seeds(self, results: str) -> list[str]:
        """A command line that trains three seeds in one compiled program, each as a run of its own in `results`."""
        options = "--dataset small.npz --latent 3 --hidden 8 --model iwae --k 5 --seeds 0,1,2"
        limits = f"--stages {SEED_STAGES} --save-every 0.2 --test-samples 100"
        return [str(COMMAND), "train", *options.split(), *limits.split(), "--results-dir", results]

    def whole_seeds(self) -> Path:
        """The results of three seeds that were trained together, which nothing interrupted."""
        path = self.directory / "whole seeds"
        if not path.is_dir():
            done = self.run(self.train_seeds(path.name))
            assert done.returncode == 0, done.stderr
        return path

    def completes_seeds(self, results: str) -> None:
        """Asserts that the command ends all seeds with the bits of the uninterrupted one, and leaves nothing behind."""
        whole, done = self.whole_seeds(), self.run(self.train_seeds(results))
        assert done.returncode == 0, done.stderr
        mine = self.directory / results
        assert {path.name for path in mine.iterdir()} == {path.name for path in whole.iterdir()}
        for expected in whole.iterdir():
            run = mine / expected.name
            for number in range(SEED_STAGES + 1):
                same_training(run, expected, number)
            mine_found, theirs = (json.loads((path / "results.json").read_text()) for path in (run, expected))
            for field in ("test", "active_units", "weights_sha256", "epochs", "train_bound"):
                assert mine_found[field] == theirs[field]
        assert names_below(mine) == names_below(whole)


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


def stopped_line(err: str) -> str:
    """The last line of standard error, which says that a signal stopped the command; none is an error."""
    assert "Traceback" not in err
    assert "iwae: error: " not in err
    line = err.splitlines()[-1]
    assert line.startswith("iwae: stopped")
    return line


def make_workshop(directory: Path) -> Workshop:
    """A workshop, or the reason why there is none."""
    if not COMMAND.exists():
        pytest.skip("the command is not installed in this environment")
    return Workshop(directory)
