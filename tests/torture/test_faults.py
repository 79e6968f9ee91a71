"""What the system can take away: room, permission, the directory itself, files to open, the steady clock."""

import ctypes
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.killing import no_half_files
from helpers.small_runs import COMMAND
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
from iwae.io.files import is_leftover

pytestmark = pytest.mark.torture

PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def small_disk(workshop: Workshop) -> Iterator[Path]:
    """A disk of 64 KiB in memory, which holds a run's first checkpoints and not the rest."""
    path = workshop.directory / "disk"
    path.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs to be root")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=False)


def heed_permissions() -> None:
    """In a child before it starts: gives up root's right to write where permissions forbid it."""
    library = ctypes.CDLL(None)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        library.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def test_a_full_disk_at_every_write(workshop: Workshop) -> None:
    """A limit just below the size of each file that a run writes stands for a disk that fills up there."""
    files = sorted(path for path in workshop.whole.rglob("*") if path.is_file() and path.stat().st_size > 0)
    limits = sorted({path.stat().st_size - 1 for path in files} | {1, 100})
    assert len(limits) > 8
    for limit in limits:
        run = workshop.directory / f"limit {limit}"
        command = workshop.train(run.name)
        failed = workshop.run(command, lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        assert failed.returncode == 1, (limit, failed.stderr)
        line = one_error_line(failed.stderr)
        assert "make room and give the same command again" in line, (limit, line)
        assert not [path for path in run.rglob("*") if is_leftover(path)], limit
        workshop.completes(command, run)
        shutil.rmtree(run)


def test_a_real_disk_that_is_full(workshop: Workshop, small_disk: Path) -> None:
    run = small_disk / "run"
    command = workshop.train(str(run))
    failed = workshop.run(command)
    assert failed.returncode == 1
    assert "No space left on device; make room" in one_error_line(failed.stderr)
    assert not [path for path in run.rglob("*") if is_leftover(path)]
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    workshop.completes(command, run)


@pytest.mark.parametrize("sealed", [".", "checkpoints", "evaluations"])
def test_permission_lost_while_training(workshop: Workshop, sealed: str) -> None:
    run = workshop.directory / f"sealed {sealed.strip('.')}"
    command = workshop.train(run.name)
    process = workshop.start(command, heed_permissions)
    wait_until(lambda: epochs(run) >= 5, process)
    (run / sealed).chmod(0o500)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1, err
    line = one_error_line(err)
    assert "Permission denied" in line
    assert run.name in line
    # Still sealed, the next one says so at once.
    again = workshop.run(command, heed_permissions)
    assert again.returncode == 1
    assert "Permission denied" in one_error_line(again.stderr)
    (run / sealed).chmod(0o700)
    workshop.completes(command, run)


def test_a_directory_that_can_not_be_written(workshop: Workshop) -> None:
    parent = workshop.directory / "read only"
    parent.mkdir(mode=0o500)
    done = workshop.run(workshop.train(f"{parent.name}/run"), heed_permissions)
    assert done.returncode == 1
    assert "Permission denied" in one_error_line(done.stderr)


def test_the_directory_is_removed_while_training(workshop: Workshop) -> None:
    run = workshop.directory / "removed"
    process = workshop.start(workshop.train(run.name))
    wait_until(lambda: epochs(run) >= 5, process)
    aside = run.rename(workshop.directory / "moved away")
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1, err
    assert "No such file or directory" in one_error_line(err)
    assert not run.exists()
    # What was there is whole, and continues under its new name.
    workshop.completes(workshop.train(aside.name), aside)


# What the system or Python itself says where not even Python can start.
NOT_EVEN_PYTHON = ("Fatal Python error", "error while loading shared libraries")


def test_too_few_files_from_the_start(workshop: Workshop) -> None:
    """From a limit at which Python itself can't start to the first at which all goes well: in between, one line."""
    refused = []
    for limit in range(3, 33):
        run = workshop.directory / f"files {limit}"
        command = workshop.train(run.name)
        done = workshop.run(command, lambda limit=limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
        if done.returncode == 0:
            break
        if any(words in done.stderr for words in NOT_EVEN_PYTHON):
            continue
        assert done.returncode == 1, (limit, done.stderr)
        assert "Too many open files" in one_error_line(done.stderr), limit
        refused.append(limit)
        workshop.completes(command, run)
    else:
        pytest.fail("32 files are not enough")
    print(f"too few files: {refused}; enough: {limit}")
    assert refused


@pytest.mark.parametrize("reached", [1, 20, 60, EPOCHS])
def test_too_few_files_from_the_middle(workshop: Workshop, reached: int) -> None:
    """While it trains, and while it measures, no more files may be opened: one line; then it continues."""
    run = workshop.directory / f"files after {reached}"
    command = workshop.train(run.name)
    process = workshop.start(command)
    wait_until(lambda: epochs(run) >= reached, process)
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, hard))
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1, err
    assert "Too many open files" in one_error_line(err)
    workshop.completes(command, run)


def test_too_little_memory_from_the_start(workshop: Workshop) -> None:
    """What Python hears of is one line. Where native code ends the process, nothing is promised but that the run is
    none the worse.
    """
    lines, native = [], []
    for megabytes in (30, 60, 100, 150, 200, 300, 400, 500, 700, 900, 1200, 1500):
        run = workshop.directory / f"memory {megabytes}"
        command, limit = workshop.train(run.name), megabytes * 1_000_000
        done = workshop.run(command, lambda limit=limit: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
        if done.returncode == 0:
            break
        # A segmentation fault says nothing at all.
        if "".join(done.stderr.splitlines()[-1:]).startswith("iwae: error: "):
            assert done.returncode == 1, (megabytes, done.stderr)
            assert "memory" in one_error_line(done.stderr), (megabytes, done.stderr)
            lines.append(megabytes)
        else:
            assert "Traceback" not in done.stderr or "Fatal Python error" in done.stderr, (megabytes, done.stderr)
            native.append(megabytes)
        # Most fail before there is anything to continue.
        if run.exists():
            workshop.completes(command, run)
    print(f"memory: one line at {lines} megabytes, ended by native code at {native}")
    assert len(lines) >= 3


@pytest.mark.parametrize("megabytes", [0, 8, 64])
def test_too_little_memory_from_the_middle(workshop: Workshop, megabytes: int) -> None:
    """While it trains it may have no more memory than it has and a little: however it ends, it continues."""
    run = workshop.directory / f"memory and {megabytes}"
    command = workshop.train(run.name)
    process = workshop.start(command)
    wait_until(lambda: epochs(run) >= 5, process)
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + megabytes * 1_000_000
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    _, err = process.communicate(timeout=DEADLINE)
    print(f"{megabytes} more megabytes: status {process.returncode}, {err.splitlines()[-1:]}")
    assert "Traceback" not in err
    if process.returncode == 1:
        assert "memory" in one_error_line(err)
    workshop.completes(command, run)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_any_moment_of_the_start(workshop: Workshop, number: signal.Signals) -> None:
    """While Python loads the program, JAX starts, the data is read and the step compiles (the cache is empty)."""
    told = 0
    for step in range(14):
        run = workshop.directory / f"{number.name} {step}"
        process = workshop.start(["env", "JAX_ENABLE_COMPILATION_CACHE=0", *workshop.train(run.name)])
        time.sleep(0.25 + 0.3 * step)
        if process.poll() is not None:
            break
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE)
        # Before the program has begun, the system's own answer stands.
        assert process.returncode in (128 + number, -number), (step, err)
        told += process.returncode > 0
        assert "Traceback" not in err or process.returncode == -number, err
        if process.returncode > 0:
            assert stopped_line(err)
        workshop.completes(workshop.train(run.name), run)
        shutil.rmtree(run)
    print(f"{number.name}: heeded at {told} moments of the start")
    assert told >= 5


@pytest.mark.parametrize("pair", [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGTERM)])
def test_two_signals_at_once(workshop: Workshop, pair: tuple[signal.Signals, signal.Signals]) -> None:
    """One line and the status of one of them, unless the run had just finished."""
    run = workshop.directory / f"twice {pair[0].name}"
    told = 0
    for turn in range(8):
        process = workshop.start(workshop.train(run.name))
        start = epochs(run)
        wait_until(lambda start=start: epochs(run) > start, process)
        for number in pair:
            process.send_signal(number)
            # Half of them at once, the others while the first is being heeded.
            time.sleep(0.01 * (turn % 2))
        _, err = process.communicate(timeout=DEADLINE)
        if process.returncode == 0:
            assert (run / "results.json").exists()
            break
        assert process.returncode in {128 + number for number in pair}, (process.returncode, err)
        assert stopped_line(err)
        told += 1
        if epochs(run) == EPOCHS:
            break
    print(f"{pair[0].name} and {pair[1].name} at once: {told} times")
    assert told >= 4
    workshop.completes(workshop.train(run.name), run)


def test_seeds_together_on_a_full_disk(workshop: Workshop) -> None:
    """A limit below the size of a checkpoint, and one below that of all metrics, while three runs write."""
    whole = next(workshop.whole_seeds().iterdir())
    sizes = [(whole / name).stat().st_size for name in ("checkpoints/1.safetensors", "metrics.jsonl")]
    for limit in (size - 1 for size in sizes):
        results = f"seeds at {limit}"
        command = workshop.train_seeds(results)
        failed = workshop.run(command, lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        assert failed.returncode == 1, (limit, failed.stderr)
        assert "make room and give the same command again" in one_error_line(failed.stderr)
        assert not [path for path in (workshop.directory / results).rglob("*") if is_leftover(path)]
        workshop.completes_seeds(results)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_seeds_together_told_to_end(workshop: Workshop, number: signal.Signals) -> None:
    whole = workshop.whole_seeds()
    results = workshop.directory / f"seeds {number.name}"
    for reached in (1, 10, 30):
        process = workshop.start(workshop.train_seeds(results.name))
        runs = [results / path.name for path in whole.iterdir()]
        wait_until(lambda reached=reached, runs=runs: max(map(epochs, runs)) >= reached, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 128 + number, err
        assert "To continue: " in stopped_line(err)
        no_half_files(results)
    workshop.completes_seeds(results.name)


def test_a_clock_that_jumps(workshop: Workshop) -> None:
    """The time of day goes back by a year and forth again at every look; nothing but what it prints may change."""
    hook = workshop.directory / "clock"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "real, turn = time.time, itertools.count()\n"
        "time.time = lambda: real() + (3e7 if next(turn) % 2 else -3e7)\n"
    )
    run = workshop.directory / "jumping"
    command = ["env", f"PYTHONPATH={hook}", *workshop.train(run.name)]
    check = workshop.run(["env", f"PYTHONPATH={hook}", sys.executable, "-c", "import time; print(time.time())"])
    assert abs(float(check.stdout) - time.time()) > 1e7
    workshop.completes(command, run)


def test_several_processes_in_one_run_directory(workshop: Workshop) -> None:
    """One of them trains, the others are refused in one line; the run is that of one."""
    run = workshop.directory / "crowd"
    crowd = [workshop.start(workshop.train(run.name)) for _ in range(6)]
    ends = [process.communicate(timeout=DEADLINE) for process in crowd]
    refused = [err for process, (_, err) in zip(crowd, ends, strict=True) if process.returncode != 0]
    assert len(refused) < len(crowd)
    for err in refused:
        assert "another process is working on this run" in one_error_line(err)
    workshop.completes(workshop.train(run.name), run)


def test_measuring_and_pruning_one_run_at_once(workshop: Workshop) -> None:
    run = workshop.directory / "busy"
    workshop.completes(workshop.train(run.name), run)
    commands = [["evaluate", run.name, "--samples", str(k)] for k in (50, 60, 60)]
    commands += [["analyze", run.name, "--samples", "50"], ["sample", run.name]]
    started = [workshop.start([str(COMMAND), *words]) for words in commands]
    for process in started:
        _, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0 or "another process" in one_error_line(err), err
    assert not [path for path in run.rglob("*") if is_leftover(path)]
    assert {f"5-test-{k}.json" for k in (50, 60)} <= {path.name for path in (run / "evaluations").iterdir()}
    assert STAGES == 5
