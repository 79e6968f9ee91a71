"""Real processes of the installed command: killed, interrupted, crowded and short of room, then continued.

All share one cache of compiled programs, which the uninterrupted run fills: what continues a run there runs the
same program from a file, and the test is quicker.
"""

import os
import resource
import shlex
import signal
import subprocess
from collections.abc import Callable

import pytest
from safetensors.numpy import load_file

from helpers.small_runs import COMMAND
from helpers.workshop import (
    DEADLINE,
    EPOCHS,
    STAGES,
    STEPS_PER_EPOCH,
    Workshop,
    epochs,
    make_workshop,
    one_error_line,
    stopped_line,
    wait_until,
)
from iwae.cli import main


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("workshop"))


def test_the_uninterrupted_run_is_whole(workshop: Workshop) -> None:
    assert epochs(workshop.whole) == EPOCHS
    assert not list(workshop.whole.rglob("*.partial"))
    assert not (workshop.whole / "checkpoints/latest.safetensors").exists()


def test_killed_again_and_again_it_ends_with_the_same_bits(workshop: Workshop) -> None:
    run = workshop.directory / "killed"
    moments: list[Callable[[], bool]] = [
        lambda: epochs(run) >= 3,
        lambda: epochs(run) >= 20,
        lambda: (run / f"checkpoints/{STAGES}.safetensors").exists(),
    ]
    progress = []
    for reached in moments:
        process = workshop.start(workshop.train("killed"))
        wait_until(reached, process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        progress.append(epochs(run))
    assert 0 < progress[0] < progress[1] < progress[2] == EPOCHS
    workshop.completes(workshop.train("killed"), run)


@pytest.mark.slow
def test_seeds_together_killed_end_with_the_same_bits(workshop: Workshop) -> None:
    whole = workshop.whole_seeds()
    run = workshop.directory / "killed seeds" / min(path.name for path in whole.iterdir())
    process = workshop.start(workshop.train_seeds("killed seeds"))
    wait_until(lambda: epochs(run) >= 10, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert epochs(run) < epochs(whole / run.name)
    workshop.completes_seeds("killed seeds")


def test_stopped_by_two_signals_it_prints_the_command_that_completes_it(workshop: Workshop) -> None:
    """A second process is refused meanwhile, and harms nothing."""
    run = workshop.directory / "interrupted"
    command = workshop.train(run.name)
    for number, status, count in ((signal.SIGTERM, 143, 5), (signal.SIGINT, 130, 40)):
        process = workshop.start(command)
        wait_until(lambda count=count: epochs(run) >= count, process)
        process.send_signal(signal.SIGSTOP)  # So that it can't be over before the second has begun.
        if number == signal.SIGTERM:
            is_refused(workshop.run(workshop.train(run.name)))
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == status
        line = stopped_line(err)
        reached = epochs(run)
        assert reached < EPOCHS
        steps = int(load_file(run / "checkpoints/latest.safetensors")["step"])
        assert reached * STEPS_PER_EPOCH <= steps < (reached + 1) * STEPS_PER_EPOCH
        program, *arguments = shlex.split(line.partition("To continue: ")[2])
        assert program == "iwae"
        command = [str(COMMAND), *arguments]
    workshop.completes(command, run)


def is_refused(second: subprocess.CompletedProcess[str]) -> None:
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert line.startswith("iwae: error: interrupted: another process is working on this run")


def test_a_full_disk_is_one_line_and_loses_nothing(workshop: Workshop) -> None:
    """A limit on the size of a file stands for the full disk: too small for all metrics."""
    checkpoint, metrics = (workshop.whole / name for name in ("checkpoints/1.safetensors", "metrics.jsonl"))
    limit = 10_000
    assert checkpoint.stat().st_size < limit < metrics.stat().st_size
    run = workshop.directory / "full"
    command = workshop.train(run.name)
    failed = workshop.run(command, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert failed.returncode == 1
    line = one_error_line(failed.stderr)
    assert "metrics.jsonl" in line
    assert "make room" in line
    for path in run.glob("checkpoints/*"):
        assert load_file(path)
    workshop.completes(command, run)


@pytest.mark.parametrize("megabytes", [40, 300])
def test_too_little_memory_to_load_the_program_is_one_line(workshop: Workshop, megabytes: int) -> None:
    """Not enough for NumPy's libraries, or for JAX's."""
    limit = megabytes * 1_000_000
    done = workshop.run(workshop.train("no room"), lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("iwae: error: not enough memory to load the program")
    assert not (workshop.directory / "no room").exists()


def test_where_nothing_can_be_written_is_one_line(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workshop.directory)
    assert main(workshop.train("/proc/self/run")[1:]) == 1
    (line,) = capfd.readouterr().err.splitlines()
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
