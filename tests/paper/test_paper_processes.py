"""Training the paper's cells by real processes: what is trained, what fails, and how all of them end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.killing import children
from helpers.small_runs import Messages, environment, go, small_config, write_data
from iwae.paper.cells import Cell, Published
from iwae.paper.plan import make_plan
from iwae.paper.runner import orders_of, together
from iwae.paper.status import status_of
from iwae.runs import processes
from iwae.runs.checkpoint import load_checkpoint, save_checkpoint
from iwae.runs.directory import Run
from iwae.runs.options import MeasureOptions
from iwae.runs.processes import divided_cores, run_orders
from iwae.runs.signals import Interrupted
from iwae.training.optim import paper_adam

FEW = MeasureOptions(test_samples=10)
DEADLINE = 400


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("paper")
    return directory, write_data(directory / "d.npz")


@pytest.fixture
def cached(small, monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


def small_cells(data):
    configs = [small_config(data, schedule="quick", seed=seed) for seed in (0, 1, 2)]
    return [Cell("1", config, Published(86.76, "19")) for config in configs]


def train(cells, results, *, stages: int | None = 1, measure=FEW, jobs=1, on_progress=None):
    plan = make_plan(cells, results, stages, measure)
    orders = orders_of(plan, results, stages=stages, measure=measure, jobs=jobs)
    return run_orders(orders, jobs=jobs, on_progress=on_progress)


@pytest.mark.usefixtures("cached")
def test_missing_cells_are_trained_and_finished_ones_left_alone(small):
    directory, data = small
    results = directory / "results"
    cells = small_cells(data)
    seen, cores = [], {}

    def look(progress):
        seen.append(progress)
        if any(cell.state == "measuring" for cell in progress) and hasattr(os, "sched_getaffinity"):
            cores.update((child, os.sched_getaffinity(child)) for child in children(os.getpid()))

    assert train(cells[:2], results, jobs=2, on_progress=look) == []
    assert [cell.state for cell in seen[-1]] == ["done", "done"]
    # Each is kept to its share, and the only one has all.
    assert all(own in [set(share) for share in divided_cores(2)] for own in cores.values())
    assert cores or not hasattr(os, "sched_getaffinity")
    cores.clear()
    assert max(sum(cell.state == "training" for cell in step) for step in seen) == 2
    status = status_of(cells[0], results)
    assert (status.stages_done, status.stages_total, status.measured_stages) == (1, 4, 1)
    assert status.gap is not None
    assert (status.gap.num_samples, status.gap.test["num_examples"], status.gap.train["num_examples"]) == (10, 30, 30)
    assert not status.is_reproduction
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.safetensors")}
    plan = make_plan(cells, results, 1, FEW)
    assert (plan.finished, plan.work) == (tuple(cells[:2]), (cells[2],))
    assert train(cells, results, jobs=2, on_progress=look) == []
    assert all(own == os.sched_getaffinity(0) for own in cores.values())
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert all(Run(cell.directory(results)).results() for cell in cells)
    # Measured with less than is asked for now: measured again, and nothing else.
    more = MeasureOptions(test_samples=40)
    (order,) = orders_of(make_plan(cells[:1], results, 1, more), results, stages=1, measure=more)
    order.carry_out(Messages())
    again = status_of(cells[0], results)
    assert again.results is not None
    assert (again.results["test"]["num_samples"], again.gap.num_samples if again.gap else None) == (40, 40)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.usefixtures("cached")
def test_a_cell_that_fails_is_told_in_one_line_and_the_others_go_on(small, tmp_path):
    """One that starts from another waits for its last stage."""
    _, data = small
    results = tmp_path / "results"
    broken = Cell("1", small_config(tmp_path / "gone.npz", schedule="quick"), Published(1.0, None))
    source = results / broken.config.name()
    waiting = Cell("2", small_config(data, init_from=str(source), epochs=1), Published(1.0, None), broken.config)
    good = small_cells(data)[0]
    start = str(results / good.config.name())
    config = small_config(data, model="iwae", k=2, init_from=start, epochs=1)
    child = Cell("2", config, Published(1.0, None), good.config)
    failures = train([waiting, child, broken, good], results, stages=None, jobs=2)
    assert len(failures) == 2
    (gone,) = [failure for failure in failures if "gone.npz" in failure]
    log = results / f"{broken.config.name()}.train.log"
    assert f"(all that it said: {log})" in gone
    assert "gone.npz" in log.read_text()
    failures.remove(gone)
    assert f"not begun: {broken.config.name()}, which it starts from, has 0 of 4 stages" in failures[0]
    assert not any("\n" in failure for failure in [gone, *failures])
    assert status_of(good, results).measured_stages == 4
    begun = Run(child.directory(results)).record.get("init_from")
    assert begun is not None
    assert begun["stages_done"] == 4


@given(st.sets(st.integers(0, 200), min_size=1, max_size=30), st.integers(1, 40))
def test_cores_are_divided_among_processes(cores, jobs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
        shares = divided_cores(jobs)
    assert len(shares) == jobs
    assert set().union(*shares) <= cores
    sizes = [len(share) for share in shares]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    if jobs <= len(cores):
        assert sorted(core for share in shares for core in share) == sorted(cores)
    else:
        times = [sum(core in share for share in shares) for core in cores]
        assert max(times) - min(times) <= 1


def model_cells(data, *changes):
    return [Cell("1", small_config(data, schedule="quick", **change), Published(1.0, None)) for change in changes]


def test_cells_of_one_network_and_k_share_a_process_while_there_is_work_for_all(tmp_path):
    data = tmp_path / "d.npz"
    vae, iwae, many, wide = model_cells(
        data, {"k": 5}, {"model": "iwae", "k": 5}, {"model": "iwae", "k": 9}, {"model": "iwae", "k": 5, "latent": (4,)}
    )
    late = Cell("2", small_config(data, init_from=str(tmp_path)), Published(1.0, None), vae.config)
    later = Cell("2", small_config(data, model="iwae", init_from=str(tmp_path)), Published(1.0, None), vae.config)
    cells = [vae, many, iwae, wide, late, later]
    apart = [[vae], [many], [iwae], [wide], [late], [later]]
    for jobs in range(1, 6):
        assert together(cells, jobs) == [[vae, iwae], [many], [wide], [late], [later]]
    assert sorted(map(str, together(cells, 6))) == sorted(map(str, apart)) == sorted(map(str, together(cells, 9)))
    assert together([], 3) == []


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_a_process_trains_its_cells_together_and_each_has_its_results(small, tmp_path):
    _, data = small
    cells = model_cells(data, {"k": 5}, {"model": "iwae", "k": 5})
    seen = []
    assert train(cells, tmp_path, on_progress=seen.append) == []
    assert [(cell.name, cell.state) for cell in seen[-1]] == [(cell.config.name(), "done") for cell in cells]
    logs = list(tmp_path.glob("*.train.log"))
    assert [log.name for log in logs] == [f"{cells[0].config.name()}.train.log"]
    assert all(str(cell.directory(tmp_path)) in logs[0].read_text() for cell in cells)
    for cell in cells:
        status = status_of(cell, tmp_path)
        assert (status.measured_stages, status.gap is not None) == (1, True)


@pytest.mark.slow
@pytest.mark.usefixtures("cached")
def test_of_cells_trained_together_the_one_that_fails_does_not_take_the_others_along(small, tmp_path):
    """Weights that a stranger made huge: one diverges at once, the other is trained, measured and analyzed."""
    _, data = small
    good, bad = model_cells(data, {"k": 5}, {"model": "iwae", "k": 5})
    go(bad.directory(tmp_path), bad.config, stages=1)
    path = bad.directory(tmp_path) / "checkpoints" / "1.safetensors"
    ruined = load_checkpoint(path)
    state = ruined.train_state(paper_adam())
    state = eqx.tree_at(lambda s: s.model.decoder[0].outputs.bias, state, replace_fn=lambda bias: bias + 3e38)
    save_checkpoint(path, state, architecture=ruined.architecture, seed=0, stages_done=1, seconds=1.0)
    (failure,) = train([good, bad], tmp_path, stages=2)
    (log,) = tmp_path.glob("*.train.log")
    assert all(str(cell.directory(tmp_path)) in log.read_text() for cell in (good, bad))
    assert "training diverged" in failure
    assert str(bad.directory(tmp_path)) in failure
    status = status_of(good, tmp_path)
    assert (status.measured_stages, status.gap is not None) == (2, True)


@pytest.mark.parametrize(
    ("heeds", "signals", "said"),
    [
        ("signal.default_int_handler", 1, "all is saved. The same command continues where it stopped"),
        # One signal tells it to end, which it does not; a further one kills it.
        ("signal.SIG_IGN", 2, "what was done since the last checkpoint is lost"),
    ],
)
def test_a_signal_ends_all_processes_and_a_further_one_kills_them(small, tmp_path, monkeypatch, heeds, signals, said):
    """With a program that only waits in the worker's place."""
    program = f"import os, signal, time; signal.signal(signal.SIGTERM, {heeds}); open(str(os.getpid()), 'w')"
    (tmp_path / "waits.py").write_text(f"{program}\ntime.sleep({DEADLINE})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(processes, "WORKER", "waits")
    monkeypatch.setattr(processes, "POLL_SECONDS", 0.02)
    (begun := tmp_path / "begun").mkdir()
    monkeypatch.chdir(begun)
    sent = []

    def interrupt(_):
        if len(list(begun.iterdir())) == 2 and len(sent) < signals:
            sent.append(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    cells = small_cells(small[1])[:2]
    with pytest.raises(Interrupted, match=said):
        train(cells, tmp_path / "results", jobs=2, on_progress=interrupt)
    assert len(sent) == signals
    assert not any(Path(f"/proc/{path.name}").exists() for path in begun.iterdir())


class Parent:
    """A process that trains two cells for a long time, as `iwae paper run --jobs 2` does."""

    def __init__(self, directory: Path, results: Path):
        data = write_data(directory / "long.npz", num_train=1500)
        program = f"""
import sys
from pathlib import Path
from iwae.cli.app import guarded
from iwae.paper.cells import Cell, Published
from iwae.paper.plan import make_plan
from iwae.paper.runner import orders_of
from iwae.runs.config import RunConfig
from iwae.runs.options import MeasureOptions
from iwae.runs.processes import run_orders
cells = [Cell("1", RunConfig.of(dataset={str(data)!r}, latent=(3,), hidden=(8,), k=5, batch_size=1, seed=seed),
    Published(1.0, None)) for seed in (0, 1)]
results = Path({str(results)!r})
plan = make_plan(cells, results, None, MeasureOptions())
sys.exit(guarded(lambda: len(run_orders(orders_of(plan, results, jobs=2), jobs=2))))
"""
        self.results = results
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
            # Tests that were started with nohup hand on that SIGHUP is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        wait_until(lambda: len(self.trained()) == 2, self.process)
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        self.children = [int(pid) for pid in listed.split()]
        assert len(self.children) == 2

    def trained(self) -> list[Path]:
        """The runs that have trained for some epochs."""
        return [path.parent for path in self.results.glob("*/metrics.jsonl") if path.stat().st_size > 0]

    def error(self) -> str:
        return self.process.communicate(timeout=DEADLINE)[1]

    def nothing_lives(self) -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in self.children)

    def all_saved(self) -> bool:
        """Whether every run has a state after its first one."""
        return all(len(list((run / "checkpoints").glob("*.safetensors"))) > 1 for run in self.trained())


def wait_until(condition, process=None):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def parent(small, tmp_path):
    if not Path("/proc/self/task").is_dir():
        pytest.skip("finding a process's children needs Linux's /proc")
    parent = Parent(small[0], tmp_path)
    yield parent
    for pid in [parent.process.pid, *parent.children]:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)
    parent.process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupted_it_tells_all_its_processes_to_save(parent, number, status):
    parent.process.send_signal(number)
    error = parent.error()
    assert error.startswith("iwae: stopped: ")
    assert "all is saved. The same command continues" in error
    assert parent.process.returncode == status
    assert parent.nothing_lives()
    assert parent.all_saved()


@pytest.mark.slow
def test_a_second_interrupt_kills_those_that_do_not_end(parent):
    # Stopped, the first can't save; the other must not wait for it before it is told.
    os.kill(parent.children[0], signal.SIGSTOP)
    parent.process.send_signal(signal.SIGINT)
    wait_until(lambda: Path(f"/proc/{parent.children[1]}/stat").read_text().split()[2] == "Z", parent.process)
    parent.process.send_signal(signal.SIGINT)
    assert "what was done since the last checkpoint is lost" in parent.error()
    assert parent.process.returncode == 130
    assert parent.nothing_lives()


def test_when_the_parent_dies_its_processes_save_and_end(parent):
    parent.process.kill()
    parent.process.wait(DEADLINE)
    wait_until(parent.nothing_lives)
    assert parent.all_saved()
