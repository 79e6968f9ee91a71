"""Real processes of the installed command: killed, interrupted, crowded and short of room, then continued.

All share one cache of compiled programs, which the uninterrupted run fills: what continues a run there runs the
same program from a file, and the test is quicker.
"""

import os
import random
import resource
import shlex
import signal
import time
from collections.abc import Callable

import pytest
from safetensors.numpy import load_file

from helpers.small_runs import COMMAND, same_training
from helpers.workshop import (
    DEADLINE,
    EPOCHS,
    STAGES,
    Workshop,
    epochs,
    make_workshop,
    one_error_line,
    stopped_line,
    wait_until,
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("workshop"))


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
        *[(f"after {n} epochs", lambda n=n: epochs(run) >= n) for n in (3, 60)],
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
    assert len({count for count in progress if 0 < count < EPOCHS}) >= 2
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
    run = workshop.directory / "interrupted"
    command = workshop.train(run.name)
    for number, status, count in ((signal.SIGTERM, 143, 10), (signal.SIGINT, 130, 40)):
        process = workshop.start(command)
        wait_until(lambda count=count: epochs(run) >= count, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == status
        line = stopped_line(err)
        reached = epochs(run)
        assert reached < EPOCHS
        steps = int(load_file(run / "checkpoints/latest.safetensors")["step"])
        assert reached * 75 <= steps < (reached + 1) * 75
        program, *arguments = shlex.split(line.partition("To continue: ")[2])
        assert program == "iwae"
        command = [str(COMMAND), *arguments]
    workshop.completes(command, run)


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


def test_a_full_disk_is_one_line_and_loses_nothing(workshop: Workshop) -> None:
    """A limit on the size of a file stands for the full disk: too small for a checkpoint, then for all metrics."""
    checkpoint, metrics = (workshop.whole / name for name in ("checkpoints/1.safetensors", "metrics.jsonl"))
    assert 4000 < checkpoint.stat().st_size < 10_000 < metrics.stat().st_size
    run = workshop.directory / "full"
    command = workshop.train(run.name)
    for limit, written in ((4000, "0.safetensors"), (10_000, "metrics.jsonl")):
        failed = workshop.run(command, lambda size=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
        assert failed.returncode == 1
        line = one_error_line(failed.stderr)
        assert written in line
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
