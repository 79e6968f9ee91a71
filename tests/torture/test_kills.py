"""`kill -9` at random moments, again and again: every run ends with the bits of one that nothing interrupted."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from iwae.files import is_leftover
from small_runs import COMMAND, environment, same_training, write_data
from workshop import DEADLINE, Workshop, make_workshop

pytestmark = pytest.mark.torture

KILLS = 50
LANES = 4


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("kills"))


def no_half_files(directory: Path) -> None:
    """Asserts that every file with a name of its own is whole."""
    for path in directory.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix in (".npz", ".npy"):
            np.load(path)


def kill_in(process: subprocess.Popen[str], moment: Callable[[], bool]) -> bool:
    """Kills a process at a moment; returns whether it was, or had ended by itself."""
    end = time.monotonic() + DEADLINE
    while process.poll() is None and not moment():
        assert time.monotonic() < end
        time.sleep(0.0005)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def while_writing(run: Path, seconds: float) -> Callable[[], bool]:
    """The first moment after so many seconds at which a file is half written."""
    late = after(seconds)
    return lambda: late() and any(is_leftover(path) for path in run.glob("**/.*"))


@pytest.mark.parametrize("lane", range(LANES))
def test_kills_of_a_run(workshop: Workshop, lane: int) -> None:
    """At any moment from the first, while a file is written, and while measuring."""
    rng = random.Random(lane)
    killed = finished = 0
    while killed < KILLS:
        run = workshop.directory / f"lane{lane}-{finished}"
        command = workshop.train(run.name)
        done = False
        while not done and killed < KILLS:
            process = workshop.start(command)
            # A start takes one or two seconds, all the training that is left a few more.
            seconds = rng.uniform(0.0, 6.0)
            moment = while_writing(run, seconds) if rng.randrange(4) == 0 else after(seconds)
            was_killed = kill_in(process, moment)
            killed += was_killed
            done = not was_killed
            if done:
                assert process.returncode == 0
            if run.is_dir():
                no_half_files(run)
        workshop.completes(command, run)
        finished += 1


TABLE = """
import sys
from pathlib import Path
from iwae.cli.app import guarded
from iwae.paper import Cell, Published
from iwae.paper.plan import make_plan
from iwae.paper.runner import train_cells
from iwae.runs.config import MeasureOptions, RunConfig
measure = MeasureOptions(test_samples=50)
cells = [Cell("1", RunConfig(dataset={data!r}, latent=(3,), hidden=(8,), k=k, schedule="quick"), Published(1.0, None))
    for k in (1, 5, 20)]
results = Path({results!r})
plan = make_plan(cells, results, None, measure)
failures = train_cells(plan, results, jobs=2, measure=measure)
print(*failures, sep="\\n", file=sys.stderr)
sys.exit(len(failures))
"""


def test_kills_of_a_table_run(tmp_path: Path) -> None:
    """Of the process that trains a table's cells: those that it left behind save and end, or still hold their run."""
    data = str(write_data(tmp_path / "small.npz", num_train=1500))
    settings = environment()

    def start(results: str) -> subprocess.Popen[str]:
        program = TABLE.format(data=data, results=str(tmp_path / results))
        return subprocess.Popen([sys.executable, "-c", program], env=settings, stderr=subprocess.PIPE, text=True)

    _, err = (whole := start("whole")).communicate(timeout=DEADLINE)
    assert whole.returncode == 0, err
    rng = random.Random(0)
    killed = 0
    while killed < 20:
        results = tmp_path / f"table{killed}"
        for _ in range(5):
            killed += kill_in(start(results.name), after(rng.uniform(0.5, 8.0)))
            if results.is_dir():
                no_half_files(results)
        end = time.monotonic() + DEADLINE
        while True:
            process = start(results.name)
            _, err = process.communicate(timeout=DEADLINE)
            if process.returncode == 0:
                break
            # A cell's process may still be saving; it holds its run, and nothing else may go wrong.
            assert "another process is working on this run" in err, err
            assert time.monotonic() < end
        for run in sorted((tmp_path / "whole").iterdir()):
            if run.is_dir():
                same_training(results / run.name, run, 4)
                mine, theirs = (json.loads((d / run.name / "results.json").read_text()) for d in (results, run.parent))
                assert mine["test"] == theirs["test"]
                assert {p.name for p in (results / run.name).rglob("*")} == {p.name for p in run.rglob("*")}


@pytest.mark.parametrize("command", ["prune", "analyze", "report", "evaluate"])
def test_kills_of_what_comes_after_training(workshop: Workshop, command: str) -> None:
    """A command killed at any moment, given again, does what it would have done; the run's own files stay."""
    rng = random.Random(command)
    run = workshop.directory / f"for {command}"
    # The ELBO, and more units than the data has use for, so that there is something to prune.
    changes = {"--latent": "30", "--model": "vae", "--k": "1"}
    training = workshop.train(run.name)
    for option, value in changes.items():
        training[training.index(option) + 1] = value
    assert workshop.run(training).returncode == 0
    own = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    arguments = {"prune": ["--samples", "200"], "analyze": ["--samples", "50"], "evaluate": ["--samples", "300"]}
    words = [str(COMMAND), command, run.name, *arguments.get(command, [])]
    killed = 0
    while killed < 10:
        was_killed = kill_in(workshop.start(words), after(rng.uniform(0.0, 6.0)))
        no_half_files(workshop.directory)
        killed += 1 if was_killed else 2
    done = workshop.run(words)
    assert done.returncode == 0 or "exist" in done.stderr, done.stderr
    assert all(path.read_bytes() == content for path, content in own.items())
    assert not [path for path in run.rglob("*") if is_leftover(path)]
