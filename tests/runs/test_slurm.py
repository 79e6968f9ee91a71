"""Runs as jobs of a real Slurm, which are cancelled, timed out and killed, and end in the bits of undisturbed ones."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.slurm import OneNodeSlurm, why_not
from helpers.small_runs import environment, go, same_training, small_config, write_data
from iwae import IWAEError, RunConfig
from iwae.io.files import write_json
from iwae.runs import slurm as slurm_jobs
from iwae.runs.directory import Run
from iwae.runs.orders import Order
from iwae.runs.slurm import minutes, queued_runs, sbatch_parameters, submit_orders
from iwae.runs.sweep import Sweep

GRID = "--grid k=1,5 --grid model=vae,iwae --seeds 0:2"
SMALL = "--latent 3 --hidden 8 --test-samples 20"
FIXED = f"{SMALL} --epochs 25 --batch-size 1 --save-every 1"
# The same on one core, as a job has.
WHOLE = """
import os, sys
from pathlib import Path
from iwae.runs.config import RunConfig
from iwae.runs.options import MeasureOptions
from iwae.runs.sweep import Sweep
from iwae.runs.train import train_run
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
for own in Sweep(sys.argv[1]).record["runs"]:
    config = RunConfig.from_json(own["config"])
    train_run(Path(sys.argv[2], own["run"]), config, measure=MeasureOptions(test_samples=20))
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5),
        ("5:30", 6),
        ("00:00:30", 1),
        ("1:00:00", 60),
        ("2:30:01", 151),
        ("2-3", 51 * 60),
        ("1-2:30", 26 * 60 + 30),
        ("1-0:0:10", 1441),
    ],
)
def test_time_limits_are_in_whole_minutes(text: str, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "1:2:3:4", "-5", "1h", "٣"])
def test_other_time_limits_are_refused(text: str) -> None:
    with pytest.raises(IWAEError, match="`slurm` time must be minutes, hours:minutes:seconds or days-hours, got"):
        minutes(text)


def test_options_of_sbatch_are_passed_on() -> None:
    found = sbatch_parameters({"time": "1:00:00", "gres": "gpu:1", "cpus_per_task": "2"})
    more = {"requeue": True, "gres": "gpu:1", "cpus-per-task": "2"}
    assert found == {"job_name": "iwae", "time": 60, "srun_args": ["--cpus-per-task=2"], "additional_parameters": more}
    # The partition's limit, and not submitit's of five minutes.
    assert sbatch_parameters({})["time"] is None


def order(path: Path, source: Path | None = None) -> Order:
    config = RunConfig.of(dataset="d.npy", latent=(3,), hidden=(8,), init_from=str(source) if source else None)
    return Order({path: config}, then="validate", command="again")


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What is submitted to a queue that takes everything: names of runs, and what the array waits for."""
    arrays: list[tuple[list[str], dict[str, str]]] = []

    def submit(orders: list[Order], *arguments: Any) -> list[str]:
        arrays.append(([path.name for order in orders for path in order.runs], arguments[-1]))
        return [f"{len(arrays)}_{index}" for index in range(len(orders))]

    monkeypatch.setattr(slurm_jobs, "_submit", submit)
    monkeypatch.setattr(slurm_jobs.shutil, "which", lambda _: "/usr/bin/sbatch")
    return arrays


def test_runs_that_start_from_others_wait_for_their_jobs(tmp_path: Path, queue: list[Any]) -> None:
    a, b, c = (tmp_path / name for name in "abc")
    assert submit_orders([order(c, a), order(a), order(b)], tmp_path, {}) == (["1", "2"], [])
    assert queue == [(["a", "b"], {}), (["c"], {"dependency": "afterany:1_0"})]
    record = json.loads((tmp_path / "slurm" / "submitted.json").read_text())
    assert record == {"jobs": {str(a): "1_0", str(b): "1_1", str(c): "2_0"}}


def test_what_is_in_the_queue_is_left_there_and_waited_for(
    tmp_path: Path, queue: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    monkeypatch.setattr(slurm_jobs, "queued_runs", lambda _: {str(a): "7_3"})
    assert submit_orders([order(a), order(b, a)], tmp_path, {}) == (["1"], ["a"])
    assert queue == [(["b"], {"dependency": "afterany:7_3"})]
    assert submit_orders([order(a)], tmp_path, {}) == ([], ["a"])


def test_more_runs_than_an_array_can_have_are_several(
    tmp_path: Path, queue: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_jobs, "MOST_IN_ARRAY", 2)
    assert submit_orders([order(tmp_path / str(index)) for index in range(5)], tmp_path, {})[0] == ["1", "2", "3"]
    assert [names for names, _ in queue] == [["0", "1"], ["2", "3"], ["4"]]


def test_a_slurm_that_is_not_there_or_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IWAEError, match="there is no sbatch on this machine"):
        submit_orders([order(tmp_path / "a")], tmp_path, {})
    refused = "sbatch: error: invalid partition specified: x"
    for name, says in (("sbatch", refused), ("srun", ""), ("squeue", "no contact")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{says}' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(IWAEError, match=r"Slurm refused the jobs: .*invalid partition specified: x") as error:
        submit_orders([order(tmp_path / "a")], tmp_path, {"partition": "x"})
    assert "\n" not in str(error.value)
    write_json(tmp_path / "slurm" / "submitted.json", {"jobs": {}})
    with pytest.raises(IWAEError, match=r"Slurm does not answer \(no contact\): give the same command again"):
        submit_orders([order(tmp_path / "a")], tmp_path, {})


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneNodeSlurm]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with OneNodeSlurm(tmp_path_factory.mktemp("slurm")) as found:
        yield found


class Array:
    """A sweep of eight small runs, and what happens to their jobs."""

    def __init__(self, slurm: OneNodeSlurm, path: Path):
        self.slurm, self.path = slurm, path
        data = path.with_name("d.npy")
        np.save(data, np.random.default_rng(0).integers(0, 2, size=(200, 6), dtype=np.uint8))
        self._words = ["sweep", *GRID.split(), *FIXED.split(), "--dataset", str(data), "--sweep-dir", str(path)]
        self._environment = {**environment(), **slurm.environment}

    def submit(self, *more: str) -> str:
        """Gives the command, and returns what it says on standard error."""
        words = [sys.executable, "-m", "iwae", *self._words, "--on", "slurm", "--slurm", "signal=USR2@600", *more]
        done = subprocess.run(words, env=self._environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def whole(self, path: Path) -> None:
        """The same runs by one process that nothing disturbs."""
        subprocess.run([sys.executable, "-c", WHOLE, self.path, path], env=self._environment, check=True)

    def trains(self, but: set[str]) -> Run:
        """A run that has trained for an epoch, and has more to train."""
        found: list[Run] = []

        def look() -> list[Run]:
            progress = zip(Sweep(self.path).runs, Sweep(self.path).progress(), strict=True)
            found[:] = [
                run for run, one in progress if one.state == "training" and one.epochs and run.path.name not in but
            ]
            return found

        self.slurm.wait_until(look)
        return found[0]

    def job(self, run: Run) -> str:
        """The id of its job."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.slurm.environment.items():
                patch.setenv(name, value)
            return queued_runs(self.path)[str(run.path)]

    def ended(self) -> bool:
        return not self.slurm.states()


@pytest.mark.slow
def test_jobs_that_are_cancelled_timed_out_and_killed_end_in_the_bits_of_undisturbed_ones(
    slurm: OneNodeSlurm, tmp_path: Path
) -> None:
    array = Array(slurm, tmp_path / "sweep")
    assert "Submitted: 8 runs, Slurm's job" in array.submit()
    assert len(slurm.states()) == 8
    assert "In the queue or running already: 8 runs" in array.submit()
    assert len(slurm.states()) == 8
    cancelled, met = array.trains(set()), set[str]()

    def meet(run: Run) -> Run:
        met.add(run.path.name)
        return run

    # Cancelled by its owner: it saves, and ends.
    job = array.job(meet(cancelled))
    slurm.run("scancel", job)
    slurm.wait_until(lambda: job not in slurm.states())
    log = cancelled.path.with_name(f"{cancelled.path.name}.train.log").read_text()
    assert "iwae: stopped: all is saved in" in log
    # The process killed, as for want of memory, while the controller is away.
    killed = meet(array.trains(met))
    job = array.job(killed)
    slurm.stop_controller()
    assert killed.holder is not None
    os.kill(killed.holder.pid, signal.SIGKILL)
    slurm.start_controller()
    slurm.wait_until(lambda: job not in slurm.states())
    # Held up until Slurm warns of its time limit, which is five minutes from now: ten minutes before it.
    late = meet(array.trains(met))
    job, holder = array.job(late), late.holder
    assert holder is not None
    os.kill(holder.pid, signal.SIGSTOP)
    elapsed = minutes(slurm.run("squeue", "--noheader", "--array", f"--jobs={job}", "--format=%M"))
    slurm.run("scontrol", "update", f"jobid={job}", f"timelimit={elapsed + 5}")
    # Slurm has it go on, to heed the warning.
    slurm.wait_until(lambda: not Path(f"/proc/{holder.pid}").exists())
    assert job in slurm.states()
    slurm.run("scontrol", "update", f"jobid={job}", "timelimit=600")
    slurm.wait_until(array.ended)
    # Of the requeued one nothing is left to do.
    missing = Sweep(array.path).unfinished(save_every=1.0, datasets_dir=None)
    assert {path.name for order in missing for path in order.runs} == {cancelled.path.name, killed.path.name}
    assert "Submitted: 2 runs" in array.submit("--jobs", "1")
    slurm.wait_until(array.ended)
    assert "8 runs, 8 of them finished" in array.submit()
    array.whole(tmp_path / "whole")
    for run in Sweep(array.path).runs:
        whole = Run(tmp_path / "whole" / run.path.name)
        same_training(run.path, whole.path, 1)
        mine, theirs = run.results(), whole.results()
        assert mine is not None
        assert theirs is not None
        assert mine["test"] == theirs["test"]
    (row,) = [row for row in Sweep(array.path).table() if row["is_best"]]
    assert row["finished"] == 2


@pytest.mark.slow
def test_a_run_is_measured_in_parts_of_which_one_is_cancelled_and_one_requeued(
    slurm: OneNodeSlurm, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    go(run.path, small_config(write_data(tmp_path / "d.npz", num_train=320)), stages=2)
    words = [sys.executable, "-m", "iwae", "evaluate", str(run.path), "--split", "train", "--method", "ais"]
    words += ["--examples", "320", "--steps", "1000"]
    given = {"env": {**environment(), **slurm.environment}, "capture_output": True, "text": True, "check": True}

    def submit() -> str:
        return subprocess.run([*words, "--on", "slurm", "--shards", "2"], **given).stdout

    def begun(index: int) -> bool:
        return any(run.evaluations_path.glob(f"*.parts/{index}-of-2.*.unfinished.npz"))

    assert "Submitted: 2, Slurm's job" in submit()
    assert "In the queue or running already: 2" in submit()
    cancelled, warned = sorted(slurm.states())
    slurm.wait_until(lambda: begun(1))
    slurm.run("scancel", cancelled)
    slurm.wait_until(lambda: begun(2))
    # What Slurm sends before a time limit.
    slurm.run("scancel", "--signal=USR2", warned)
    slurm.wait_until(lambda: not slurm.states())
    said = next((run.path / "slurm").glob("*-2-of-2.log")).read_text()
    assert "the same command goes on" in said
    assert "Missing: part 1" in said
    assert "Submitted: 1, Slurm's job" in submit()
    slurm.wait_until(lambda: not slurm.states())
    assert "train NLL, AIS: " in submit()
    (found,) = run.evaluations_path.glob("*-ais-*.npz")
    joined = found.read_bytes()
    found.unlink()
    subprocess.run(["taskset", "--cpu-list", "0", *words], **given)
    assert found.read_bytes() == joined


@pytest.mark.slow
def test_the_tasks_of_a_step_train_one_run(slurm: OneNodeSlurm, tmp_path: Path) -> None:
    data = write_data(tmp_path / "d.npz")
    command = [sys.executable, "-m", "iwae", "train", "--dataset", str(data), "--run-dir", str(tmp_path / "run")]
    options = f"{SMALL} --epochs 3 --batch-size 12 --distributed auto"
    step = ["srun", "--ntasks", "2", "--overcommit", *command, *options.split()]
    done = subprocess.run(
        step, env={**os.environ, **slurm.environment}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    places = re.findall(r"Process (\d) of 2 \(from 0\): meeting at (\S+)\.$", done.stderr, re.MULTILINE)
    assert sorted(index for index, _ in places) == ["0", "1"]
    assert len({address for _, address in places}) == 1
    assert Run.open(tmp_path / "run").checkpoint().step == 15
